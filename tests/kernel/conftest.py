"""What kernel tests share."""

from tests.suite import device, lab, started_suite

__all__ = ["device", "lab", "started_suite"]
