"""Names of ours as names that Milvus takes, and back: one to one, in both directions.

Milvus takes ``[A-Za-z_][A-Za-z0-9_]{0,254}`` for collections, aliases and partitions. Such a name stays as it is, and
so does a collection of somebody else. ``docs-g1`` is ``docs__g1``; a dot, a digit in front, and an underscore that
would be read as one of these are written ``_xHH_``.
"""

from __future__ import annotations

import re

from vectorwright.errors import Terminal

MAX_NAME = 255
_TAKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPED = re.compile(r"_x([0-9a-f]{2})_|__")
NAMESPACE_SIGN = ":"


def _unescaped(name: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else "-", name)


def _escaped(name: str) -> str:
    """Injective: what does not come back by the short form is written in the long one."""
    first = f"_x{ord(name[0]):02x}_" if name[:1].isdigit() else name[:1]
    body = first + name[1:]
    short = body.replace("-", "__").replace(".", "_x2e_")
    if _unescaped(short) == name:
        return short
    long = "".join(f"_x{ord(char):02x}_" if char in "-._" else char for char in name[1:])
    head = f"_x{ord(name[0]):02x}_" if not name[0].isalpha() else name[0]
    return head + long


def to_milvus(name: str) -> str:
    """The name that Milvus has for ``name``. Raises Terminal (``InvalidName``) where it would be too long."""
    plain = _TAKEN.fullmatch(name) is not None
    made = name if plain and _escaped(_unescaped(name)) != name else _escaped(name)
    if len(made) > MAX_NAME:
        raise Terminal(
            f"name {name[:200]!r} is not taken by this store: Milvus' own form of it ({made[:100]}…) has {len(made)} "
            f"characters, and {MAX_NAME} are possible: take a shorter one, without dots",
            reason="InvalidName",
        )
    return made


def from_milvus(name: str) -> str:
    """Our name for what Milvus calls ``name``: ``to_milvus`` of it is ``name`` again."""
    plain = _unescaped(name)
    return plain if plain and _escaped(plain) == name else name


def to_key(record_id: str, namespace: str) -> str:
    """The primary key of a record: its id, and in a namespace ``:namespace:id``.

    Milvus takes two records with one key in two partitions for one where it searches both, so keys differ. An id that
    begins with a colon gets another one, and no namespace is empty: keys of two records are never equal.
    """
    if namespace:
        return f"{NAMESPACE_SIGN}{namespace}{NAMESPACE_SIGN}{record_id}"
    return NAMESPACE_SIGN + record_id if record_id.startswith(NAMESPACE_SIGN) else record_id


def from_key(key: str, namespace: str) -> str:
    """The id of the record with this primary key."""
    if namespace:
        return key.removeprefix(f"{NAMESPACE_SIGN}{namespace}{NAMESPACE_SIGN}")
    return key[1:] if key.startswith(NAMESPACE_SIGN) else key
