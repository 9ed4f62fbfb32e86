"""`crossns.v1.Config`: many resources as one declarative unit. It drives nothing itself: the owners' standard methods do."""

from gateway.config.servicer import Config

__all__ = ["Config"]
