"""The kinds of resources, taken from the contract: one that enters `Resource` in config.proto is known here with its methods.

Pure. Called by whatever treats all kinds alike: bundles, export, events.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from crossns import names
from crossns.resource import MESSAGES, Resource
from crossns.v1 import config_pb2, interface_pb2, neighbor_pb2, route_pb2, route_table_pb2, rule_pb2, v_service_pb2

_FILES = (route_table_pb2, interface_pb2, route_pb2, rule_pb2, neighbor_pb2, v_service_pb2)
_SERVICES = {service.name: service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()}


@dataclass(frozen=True, slots=True)
class Kind:
    """`field`: its name in `Resource` and in requests, such as `route_table`; `singular`: in its methods, `RouteTable`."""

    collection: str
    field: str
    singular: str

    @property
    def plural(self) -> str:
        """In its methods, and its service's name."""
        return self.collection[0].upper() + self.collection[1:]

    def method(self, verb: str) -> MethodDescriptor:
        """A standard method: `Create`, `Update`, `Delete`, `Get` or `List`."""
        methods: Mapping[str, MethodDescriptor] = _SERVICES[self.plural].methods_by_name
        return methods[f"{verb}{self.plural if verb == 'List' else self.singular}"]


def _kinds() -> dict[str, Kind]:
    found = {}
    for collection, message in MESSAGES.items():
        fields = config_pb2.Resource.DESCRIPTOR.oneofs_by_name["kind"].fields
        field = next(each.name for each in fields if each.message_type is message.DESCRIPTOR)
        found[collection] = Kind(collection, field, message.DESCRIPTOR.name)
    return found


# By collection.
KINDS: Mapping[str, Kind] = _kinds()


def of(name: str) -> Kind:
    """The kind of the resource of that name."""
    return KINDS[names.collection(name)]


def request(method: MethodDescriptor, **fields: Any) -> Any:
    """The method's request with those of `fields` that it has."""
    known = method.input_type.fields_by_name
    return message_factory.GetMessageClass(method.input_type)(**{key: value for key, value in fields.items() if key in known})


def wrapped(resource: Resource) -> config_pb2.Resource:
    return config_pb2.Resource(**{of(resource.name).field: resource})  # type: ignore[arg-type]


def unwrapped(resource: config_pb2.Resource) -> Resource | None:
    """The one that it holds; None where it is empty, or of a kind that a newer client knows."""
    field = resource.WhichOneof("kind")
    return None if field is None else getattr(resource, field)
