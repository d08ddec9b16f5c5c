"""Names and ids as Qdrant takes them: keys of a payload, paths to them, ids of points."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from ..base import RESERVED_FIELDS

TEXT = "vw_text"
"""Key of a record's text."""
EXACT = "vw_exact"
"""Key of a list of ``name=value``: what the payload itself would not give back as it was written (see :mod:`.payload`).
"""
_ENCODED = "vw_name:"
_OWN = "vw_"
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")

_LARGEST = 2**64 - 1


def _up_to(most: str) -> str:
    """A regular expression of the numbers with as many digits as ``most`` that are not larger."""
    smaller = [
        f"{most[:at]}[{1 if at == 0 else 0}-{int(digit) - 1}][0-9]{{{len(most) - at - 1}}}"
        for at, digit in enumerate(most)
        if int(digit) > (at == 0)
    ]
    return "|".join([*smaller, most])


ID_PATTERN = (
    r"^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|0|[1-9][0-9]{0,18}|" + _up_to(str(_LARGEST)) + ")$"
)
"""Ids of points: UUIDs, of whose spellings the server keeps this one, and integers of 64 bits."""
_ID = re.compile(ID_PATTERN)


def key_of(name: str) -> str:
    """The payload key of a metadata field. Names that a path cannot hold, or that are ours, are encoded."""
    if name in RESERVED_FIELDS or not (name.startswith(_OWN) or '"' in name or "\\" in name):
        return name
    return _ENCODED + quote(name, safe="")


def name_of(key: str) -> str:
    """The metadata field that :func:`key_of` named."""
    return unquote(key.removeprefix(_ENCODED)) if key.startswith(_ENCODED) else key


def path_of(key: str) -> str:
    """A key as a filter names it: quoted where it would otherwise be read as a path into an object."""
    return key if _PLAIN.fullmatch(key) else f'"{key}"'


def number_of(record_id: str) -> int | None:
    """The number that an id is, or None where it is a UUID. Raises ValueError where it can be no point's id."""
    if not _ID.fullmatch(record_id):
        raise ValueError("neither a UUID nor an integer of 64 bits")
    return None if len(record_id) == 36 else int(record_id)
