"""nsmanager's gRPC methods: RouteTables, Interfaces, Routes. They store what is wanted; nothing here touches the device."""

from services.nsmanager.servicer.interface import Interfaces
from services.nsmanager.servicer.kind import registries
from services.nsmanager.servicer.route import Routes
from services.nsmanager.servicer.route_table import RouteTables

__all__ = ["Interfaces", "RouteTables", "Routes", "registries"]
