"""A record's metadata and text as a payload, and back, exactly.

Metadata is kept under its own names and types, so that other programs can read it. Three things would not come back as
they were written, so they are named once more, as text, in the list ``vw_exact``:

- a float that the server reads back as its neighbour (:mod:`.floats`): ``real=0.30000000000000004``
- an integral float in a field declared as integer, which is kept as an integer, since an index of integers may leave
  out floats: ``whole=3.0``
- an empty list, which the server's filters take for absence: ``tags=[]``
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vectorwright.errors import BatchRejected

from ..base import Metadata, MetadataValue
from .floats import is_kept
from .names import EXACT, TEXT, key_of, name_of

EMPTY_LIST = "[]"


def exact_entry(name: str, value: str) -> str:
    """An entry of ``vw_exact``."""
    return f"{name}={value}"


def encode(metadata: Metadata, text: str | None, integers: Iterable[str], where: str) -> dict[str, MetadataValue]:
    """The payload of a record. ``integers`` are the fields that are declared as such; ``where`` names the record.

    Raises BatchRejected where a float with a fraction is in such a field.
    """
    payload: dict[str, MetadataValue] = {}
    exact: list[str] = []
    for name, value in metadata.items():
        kept: MetadataValue = value
        if isinstance(value, float):
            if name in integers:
                kept = _whole(value, name, where)
                exact.append(exact_entry(name, repr(value)))
            elif not is_kept(value):
                exact.append(exact_entry(name, repr(value)))
        elif value == [] and isinstance(value, list):
            exact.append(exact_entry(name, EMPTY_LIST))
        payload[key_of(name)] = kept
    if text is not None:
        payload[TEXT] = text
    if exact:
        payload[EXACT] = exact
    return payload


def _whole(value: float, name: str, where: str) -> int:
    if not value.is_integer() or not -(2.0**63) <= value < 2.0**63:
        raise BatchRejected(
            f"{where}: metadata {name!r} is {value}, and the field is declared as integer: Qdrant's index of integers "
            "does not hold it. Declare the field as float"
        )
    return int(value)


def decode(payload: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """(metadata, text) of a payload, also of one that another program wrote. Null is absence."""
    metadata: dict[str, Any] = {}
    text = exact = None
    for key, value in payload.items():
        if key == TEXT:
            text = value
        elif key == EXACT:
            exact = value
        elif value is not None:
            metadata[name_of(key)] = value
    for entry in exact if isinstance(exact, list) else ():
        name, _, written = str(entry).rpartition("=")
        if name in metadata:
            metadata[name] = [] if written == EMPTY_LIST else _float(written, metadata[name])
    return metadata, text if isinstance(text, str) else None


def _float(written: str, otherwise: Any) -> Any:
    try:
        return float(written)
    except ValueError:
        return otherwise
