"""How a write is meant, beside what is written: the options that the standard requests carry."""

import hashlib
from dataclasses import dataclass

from google.protobuf.message import Message

_FIELDS = ("etag", "allow_missing", "validate_only", "request_id")


@dataclass(frozen=True, slots=True)
class Options:
    """`fingerprint` identifies the request that `request_id` stands for."""

    etag: str = ""
    allow_missing: bool = False
    validate_only: bool = False
    request_id: str = ""
    fingerprint: str = ""


def options_of(request: Message) -> Options:
    fields = {name: getattr(request, name) for name in _FIELDS if name in request.DESCRIPTOR.fields_by_name}
    if fields.get("request_id"):
        content = request.DESCRIPTOR.full_name.encode() + request.SerializeToString(deterministic=True)
        fields["fingerprint"] = hashlib.sha256(content).hexdigest()
    return Options(**fields)
