"""nsmanager's gRPC methods: RouteTables, Interfaces, Routes, Rules, Neighbors.

They store what is wanted; nothing here touches the device. Statistics, and what a change would touch, are read from it, by what
`app` hands over.
"""

from services.nsmanager.servicer.impact import Impacts
from services.nsmanager.servicer.interface import Interfaces
from services.nsmanager.servicer.kind import registries
from services.nsmanager.servicer.move import Moves
from services.nsmanager.servicer.neighbor import Neighbors
from services.nsmanager.servicer.route import Routes
from services.nsmanager.servicer.route_table import RouteTables
from services.nsmanager.servicer.rule import Rules
from services.nsmanager.servicer.statistics import Statistics

__all__ = ["Impacts", "Interfaces", "Moves", "Neighbors", "RouteTables", "Routes", "Rules", "Statistics", "registries"]
