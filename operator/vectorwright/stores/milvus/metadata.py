"""Metadata in the column ``metadata``: JSON, grouped by type, so that it comes back exactly and is compared exactly.

::

    {
        "string": {"color": "red"},
        "integer": {"page": 3},
        "float": {"weight": 1.0},
        "bool": {"draft": true},
        "list": {"tags": ["a", "b"]},
        "empty": {"notes": true},
        "no_text": true,
    }

A path such as ``metadata["integer"]["page"]`` holds values of one type only. What an expression says of a value of
another type, of a number among whole numbers, or of nothing at all differs between versions of Milvus; here none of
that is ever asked. ``empty`` names the empty lists, for which ``exists`` is not true in every version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import orjson

from ..base import Metadata, MetadataValue

LISTS, EMPTY = "list", "empty"
SCALARS = ("string", "integer", "float", "bool")
NO_TEXT = "no_text"
MAX_JSON = 65_536
"""Bytes of one value of a JSON column (Milvus' documentation)."""
_PLAIN = re.compile(r"[\w. -]+")
_QUOTED = "vw_%"


def group_of(value: MetadataValue) -> str:
    """The group that a value belongs to."""
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case int():
            return "integer"
        case float():
            return "float"
        case _:
            return LISTS if value else EMPTY


def key_of(name: str) -> str:
    """The key of a field in its group.

    Letters and digits of any script, dots, blanks, dashes and underscores are kept. Other names are quoted: brackets,
    quotes and slashes in a key cannot be said in an expression of every version.
    """
    if _PLAIN.fullmatch(name) and not name.startswith(_QUOTED):
        return name
    return _QUOTED + quote(name, safe="").replace("~", "%7E")


def name_of(key: str) -> str:
    """The field that a key stands for."""
    return unquote(key.removeprefix(_QUOTED)) if key.startswith(_QUOTED) else key


def encode(metadata: Metadata, *, has_text: bool) -> bytes:
    """Metadata as JSON, of values that were checked."""
    groups: dict[str, Any] = {}
    for name, value in metadata.items():
        group = group_of(value)
        groups.setdefault(group, {})[key_of(name)] = True if group == EMPTY else value
    if not has_text:
        groups[NO_TEXT] = True
    return orjson.dumps(groups)


def decode(data: bytes) -> tuple[Metadata, bool]:
    """The metadata, and whether the record has a text."""
    groups: Mapping[str, Any] = orjson.loads(data) if data else {}
    found: Metadata = {}
    for group in (*SCALARS, LISTS):
        for key, value in groups.get(group, {}).items():
            # Whole floats are written as such ("2.0"); a server that rewrites them as whole numbers loses nothing.
            found[name_of(key)] = float(value) if group == "float" else value
    for key in groups.get(EMPTY, {}):
        found[name_of(key)] = []
    return found, not groups.get(NO_TEXT, False)
