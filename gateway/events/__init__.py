"""`crossns.v1.Events`: one resumable stream of everything that happens on the device, read from the store's own history."""

from gateway.events.servicer import Events

__all__ = ["Events"]
