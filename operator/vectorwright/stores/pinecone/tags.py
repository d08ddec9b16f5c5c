"""What is kept in the tags of an index: its owner, the model's fingerprint, its incarnation and its declared fields.

Pinecone takes 20 tags an index, keys of 80 and values of 120 printable ASCII characters. A longer text goes on in a
second tag (``vw_mark``, ``vw_mark-2`` …). Tags are merged by the service: what others keep there is never sent, hence
never touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

from ..base import FieldDefinition, OwnershipMark

MARK = "vw_mark"
FINGERPRINT = "vw_fingerprint"
INCARNATION = "vw_incarnation"
FIELDS = "vw_fields"

MAX_TAGS = 20
MAX_VALUE = 120
MAX_FIELD_TAGS = 8
"""Declared fields are kept in so many tags at most: filters work without them, the other tags are dearer."""

_TYPES = {"keyword": "k", "integer": "i", "float": "f", "bool": "b"}
_NAMES = {short: name for name, short in _TYPES.items()}
_PLAIN = "/:,;._-~!#$&'()*+=?@[]{}|^<> "
"""What is kept as it is besides letters and digits; the rest of ASCII, and all beyond it, is escaped by ``%``."""


def _key(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _spread(name: str, text: str) -> dict[str, str]:
    escaped = quote(text, safe=_PLAIN)
    return {
        _key(name, at // MAX_VALUE + 1): escaped[at : at + MAX_VALUE]
        for at in range(0, max(len(escaped), 1), MAX_VALUE)
    }


def _joined(tags: Mapping[str, str], name: str) -> str | None:
    pieces: list[str] = []
    while (piece := tags.get(_key(name, len(pieces) + 1))) is not None:
        pieces.append(piece)
    return unquote("".join(pieces)) if pieces else None


def changes(tags: Mapping[str, str], values: Mapping[str, str | None]) -> dict[str, str]:
    """Tags to send so that ``values`` hold, None for those to remove: only what differs, "" removing a tag."""
    wanted: dict[str, str] = {}
    for name, text in values.items():
        wanted |= {} if text is None else _spread(name, text)
        number = 1
        while (key := _key(name, number)) in tags:
            wanted.setdefault(key, "")
            number += 1
    return {key: value for key, value in wanted.items() if tags.get(key) != value}


def encode_fields(fields: Iterable[FieldDefinition], taken: int = 0) -> str | None:
    """Fields as one text, or None where they do not fit beside ``taken`` other tags."""
    text = ",".join(f"{field.name}:{_TYPES[field.type]}" for field in fields)
    room = min(MAX_FIELD_TAGS, MAX_TAGS - taken)
    return text if text and len(_spread(FIELDS, text)) <= room else None


def read_fields(tags: Mapping[str, str]) -> tuple[FieldDefinition, ...] | None:
    """The declared fields; None where none are kept, since Pinecone filters by every field anyway."""
    pairs = [pair.rpartition(":") for pair in (_joined(tags, FIELDS) or "").split(",") if pair]
    if not pairs or any(kind not in _NAMES for _, _, kind in pairs):
        return None
    return tuple(FieldDefinition(name, _NAMES[kind]) for name, _, kind in pairs)


def read_mark(tags: Mapping[str, str]) -> OwnershipMark | None:
    """The owner, if there is one."""
    return OwnershipMark.parse(_joined(tags, MARK))


def read_fingerprint(tags: Mapping[str, str]) -> str | None:
    """The model's fingerprint, if there is one."""
    return _joined(tags, FINGERPRINT) or None


def read_incarnation(tags: Mapping[str, str]) -> str | None:
    """The incarnation that was written at creation; None for indexes that others made."""
    return _joined(tags, INCARNATION) or None
