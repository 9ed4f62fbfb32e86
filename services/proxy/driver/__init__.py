"""The proxy's hands: HAProxy under the launcher. `device` observes and applies, `master` asks HAProxy itself."""

from services.proxy.driver.check import Checker
from services.proxy.driver.device import Device

__all__ = ["Checker", "Device"]
