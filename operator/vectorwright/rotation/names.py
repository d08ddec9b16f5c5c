"""Names of keys at the stores: the same for the same resource for ever, and nobody else's."""

from __future__ import annotations

import hashlib
import re

from vectorwright.stores.base import OwnershipMark

SLOTS = ("a", "b")
"""Identities that take turns: odd revisions have the first."""
DIGEST_LENGTH = 8
"""Hex digits: two resources of one installation share them once in 4 billion."""


def owner_digest(owner: OwnershipMark) -> str:
    """Eight hex digits that stand for the resource in the names of its keys."""
    return hashlib.sha256(str(owner).encode()).hexdigest()[:DIGEST_LENGTH]


def numbered(owner: OwnershipMark, revision: int, *, most: int = 80) -> str:
    """Name of a numbered key: ``vw-team-a-search-3f2a91c4-r7``, at most ``most`` characters, ASCII."""
    tail = f"-{owner_digest(owner)}-r{revision}"
    head = re.sub(r"[^a-z0-9-]", "-", f"vw-{owner.namespace}-{owner.name}".lower())
    return head[: most - len(tail)].rstrip("-") + tail


def revision_of(owner: OwnershipMark, name: str) -> int | None:
    """The revision in a name that :func:`numbered` made for this resource; None for every other name."""
    found = re.fullmatch(rf"vw-[a-z0-9-]*-{owner_digest(owner)}-r([0-9]+)", name)
    return int(found.group(1)) if found else None


def slot_of(revision: int) -> str:
    """``a`` for odd revisions, ``b`` for even ones."""
    return SLOTS[(revision + 1) % 2]


def slotted(owner: OwnershipMark, prefix: str, slot: str, separator: str = "-") -> str:
    """Name of an identity that takes turns with another: ``search-3f2a91c4-a``."""
    return separator.join((prefix, owner_digest(owner), slot))


def is_slotted(owner: OwnershipMark, name: str, separator: str = "-") -> bool:
    """Whether :func:`slotted` makes such a name for this resource, with whatever prefix."""
    tails = (separator.join(("", owner_digest(owner), slot)) for slot in SLOTS)
    return any(name.endswith(tail) and len(name) > len(tail) for tail in tails)
