"""The contract holds Google's API improvement proposals where `buf lint` does not look; aip.dev says why.

Everything is read from the generated descriptors, so a resource that is added later is held to the same.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api import annotations_pb2, field_behavior_pb2, resource_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor

from crossns import errors, names
from crossns.v1 import (
    config_pb2,
    errors_pb2,
    events_pb2,
    impact_pb2,
    interface_pb2,
    isolation_pb2,
    neighbor_pb2,
    route_pb2,
    route_table_pb2,
    rule_pb2,
    statistics_pb2,
    status_pb2,
    v_service_pb2,
)

ROOT = Path(__file__).parents[2]
MODULES = (
    config_pb2,
    errors_pb2,
    events_pb2,
    impact_pb2,
    interface_pb2,
    isolation_pb2,
    neighbor_pb2,
    route_pb2,
    route_table_pb2,
    rule_pb2,
    statistics_pb2,
    status_pb2,
    v_service_pb2,
)
FILES: tuple[FileDescriptor, ...] = tuple(module.DESCRIPTOR for module in MODULES)
# What every resource has, with these numbers (AIP-148, AIP-154, AIP-128).
FIELDS = ("name", "spec", "status", "labels", "etag", "create_time", "update_time", "delete_time", "generation", "reconciling")
OUTPUT_ONLY = ("status", "create_time", "update_time", "delete_time", "generation", "reconciling")


def _messages() -> Iterator[Descriptor]:
    for file in FILES:
        yield from file.message_types_by_name.values()


def _methods() -> list[MethodDescriptor]:
    return [method for file in FILES for service in file.services_by_name.values() for method in service.methods]


def _resources() -> list[Descriptor]:
    return [message for message in _messages() if message.GetOptions().Extensions[resource_pb2.resource].type]


def _method(name: str) -> MethodDescriptor:
    return next(method for method in _methods() if method.name == name)


def _message_of(message: Descriptor, field: str) -> Descriptor:
    """The message type of a field."""
    kind = message.fields_by_name[field].message_type
    assert kind is not None
    return kind


def _behaviours(field: FieldDescriptor) -> set[int]:
    return set(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def _plural(resource: Descriptor) -> str:
    """`RouteTables` of RouteTable."""
    plural = str(resource.GetOptions().Extensions[resource_pb2.resource].plural)
    return plural[0].upper() + plural[1:]


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _verb(method: MethodDescriptor) -> tuple[str, str]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern") or ""
    return verb, str(getattr(rule, verb)) if verb else ""


each_resource = pytest.mark.parametrize("resource", _resources(), ids=lambda message: message.name)
each_method = pytest.mark.parametrize("method", _methods(), ids=lambda method: method.full_name)
changing = pytest.mark.parametrize(
    "method", [m for m in _methods() if re.match("Create|Update|Delete|Move", m.name)], ids=lambda method: method.full_name
)


def test_every_proto_file_is_looked_at() -> None:
    assert {Path(file.name).name for file in FILES} == {path.name for path in (ROOT / "protos/crossns/v1").glob("*.proto")}


def test_every_resource_of_the_contract_has_an_owner_among_the_services() -> None:
    assert {str(resource.GetOptions().Extensions[resource_pb2.resource].plural) for resource in _resources()} == set(names.OWNERS)


@each_method
def test_method_has_an_http_rule_below_v1(method: MethodDescriptor) -> None:
    verb, path = _verb(method)
    assert verb in {"get", "post", "patch", "delete"}
    assert path.startswith("/v1/")


def test_no_two_methods_share_an_http_rule() -> None:
    rules = [_verb(method) for method in _methods()]
    assert len(set(rules)) == len(rules)


@each_method
def test_variables_of_the_http_path_are_fields_of_the_request(method: MethodDescriptor) -> None:
    for variable in re.findall(r"\{([a-z_.]+)(?:=[^}]*)?\}", _verb(method)[1]):
        *messages, last = variable.split(".")
        message = method.input_type
        for part in messages:
            message = _message_of(message, part)
        assert message.fields_by_name[last].type == FieldDescriptor.TYPE_STRING


@each_resource
def test_resource_has_the_fields_that_every_resource_has(resource: Descriptor) -> None:
    numbers = {field.name: field.number for field in resource.fields}
    assert numbers == {name: number for number, name in enumerate(FIELDS, start=1)}


@each_resource
def test_what_only_the_device_writes_is_marked_so(resource: Descriptor) -> None:
    for name in OUTPUT_ONLY:
        assert field_behavior_pb2.OUTPUT_ONLY in _behaviours(resource.fields_by_name[name]), name
    assert field_behavior_pb2.IDENTIFIER in _behaviours(resource.fields_by_name["name"])


@each_resource
def test_status_says_of_which_generation_it_speaks(resource: Descriptor) -> None:
    status = _message_of(resource, "status")
    assert [field.name for field in status.fields[:3]] == ["observed_generation", "state", "conditions"]
    assert status.fields_by_name["state"].enum_type is status_pb2.State.DESCRIPTOR
    assert _message_of(status, "conditions") is status_pb2.Condition.DESCRIPTOR


@each_resource
def test_get_takes_a_name_and_gives_the_resource(resource: Descriptor) -> None:
    method = _method(f"Get{resource.name}")
    assert method.output_type is resource
    assert [field.name for field in method.input_type.fields] == ["name"]
    assert _verb(method)[0] == "get"


@each_resource
def test_list_is_paged(resource: Descriptor) -> None:
    method = _method(f"List{_plural(resource)}")
    assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
    assert method.output_type.name == f"List{_plural(resource)}Response"
    first, token = method.output_type.fields
    assert (first.name, first.message_type, first.is_repeated) == (_snake(_plural(resource)), resource, True)
    assert token.name == "next_page_token"
    assert _verb(method)[0] == "get"


@each_resource
def test_list_of_a_nested_resource_asks_for_its_parent(resource: Descriptor) -> None:
    is_nested = str(resource.GetOptions().Extensions[resource_pb2.resource].pattern[0]).count("/") > 1
    for verb in (f"List{_plural(resource)}", f"Create{resource.name}"):
        assert ("parent" in _method(verb).input_type.fields_by_name) == is_nested


@each_resource
def test_create_takes_an_id_and_the_resource(resource: Descriptor) -> None:
    method = _method(f"Create{resource.name}")
    singular = _snake(resource.name)
    fields = method.input_type.fields_by_name
    assert method.output_type is resource
    assert fields[singular].message_type is resource
    assert field_behavior_pb2.REQUIRED in _behaviours(fields[f"{singular}_id"])
    assert (_verb(method)[0], method.GetOptions().Extensions[annotations_pb2.http].body) == ("post", singular)


@each_resource
def test_update_takes_the_resource_a_mask_and_allow_missing(resource: Descriptor) -> None:
    method = _method(f"Update{resource.name}")
    singular = _snake(resource.name)
    fields = method.input_type.fields_by_name
    assert method.output_type is resource
    assert fields[singular].message_type is resource
    assert _message_of(method.input_type, "update_mask").full_name == "google.protobuf.FieldMask"
    assert "allow_missing" in fields
    assert (_verb(method)[0], method.GetOptions().Extensions[annotations_pb2.http].body) == ("patch", singular)


@each_resource
def test_delete_takes_an_etag_and_gives_what_is_being_deleted(resource: Descriptor) -> None:
    method = _method(f"Delete{resource.name}")
    assert method.output_type is resource
    assert {"name", "etag", "allow_missing"} <= set(method.input_type.fields_by_name)
    assert _verb(method)[0] == "delete"


@changing
def test_method_that_changes_something_can_be_tried_and_repeated(method: MethodDescriptor) -> None:
    assert {"validate_only", "request_id"} <= set(method.input_type.fields_by_name)


@each_method
def test_name_that_a_request_asks_for_is_required(method: MethodDescriptor) -> None:
    for name in ("name", "parent"):
        field = method.input_type.fields_by_name.get(name)
        assert field is None or field_behavior_pb2.REQUIRED in _behaviours(field)


@pytest.mark.parametrize("resource", _resources(), ids=lambda message: message.name)
def test_pattern_of_a_resource_leads_to_its_names(resource: Descriptor) -> None:
    options = resource.GetOptions().Extensions[resource_pb2.resource]
    name = re.sub(r"\{[a-z_]+\}", "a", options.pattern[0])
    assert names.check(name, options.plural, "name") == name
    assert options.type == f"crossns/{resource.name}"


def test_enums_begin_with_unspecified() -> None:
    for file in FILES:
        for enum in file.enum_types_by_name.values():
            assert enum.values[0].number == 0
            # The kernel's default mode of a macvlan is documented as what "unspecified" means.
            assert enum.values[0].name == f"{_snake(enum.name).upper()}_UNSPECIFIED"


def test_reasons_are_upper_snake_and_fit_into_an_error() -> None:
    # google.rpc.ErrorInfo: at most 63 characters of [A-Z][A-Z0-9_]+[A-Z0-9].
    for value in errors_pb2.Reason.DESCRIPTOR.values:
        assert re.fullmatch(r"REASON_[A-Z][A-Z_]{1,61}[A-Z]", value.name)


def test_numbers_of_reasons_have_no_gaps() -> None:
    numbers = [value.number for value in errors_pb2.Reason.DESCRIPTOR.values]
    assert numbers == list(range(len(numbers)))


def test_errors_that_the_tree_names_itself_are_in_the_registry() -> None:
    own = [errors.InvalidSpec("f", "m"), errors.StoreUnavailable("m"), errors.InvariantError("m")]
    assert all(f"REASON_{error.reason}" in errors_pb2.Reason.DESCRIPTOR.values_by_name for error in own)


def test_buf_lint_is_clean() -> None:
    buf = Path(sys.executable).parent / "buf"
    done = subprocess.run([buf, "lint"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_comment_stands_before_every_field_of_the_contract(tmp_path: Path) -> None:
    # That buf would notice: the lint is not clean because it looks at nothing.
    (tmp_path / "protos").mkdir()
    (tmp_path / "buf.yaml").write_text("version: v2\nmodules: [{path: protos}]\nlint: {use: [COMMENTS]}\n")
    message = "// A message.\nmessage X {\n  string bare = 1;\n}\n"
    (tmp_path / "protos/x.proto").write_text(f'syntax = "proto3";\npackage x;\n{message}')
    buf = Path(sys.executable).parent / "buf"
    done = subprocess.run([buf, "lint"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "bare" in done.stdout
