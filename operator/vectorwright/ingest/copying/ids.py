"""Under which id a record is kept in the store that it is copied to.

A store may not be able to hold an id (Qdrant: UUIDs and whole numbers, Weaviate: UUIDs). The record is then kept under
a UUID made from it, with the original in ``vw_id``, as ingestion does; copied on to a store that can hold the original,
it gets that back. Records of an ingestion keep ``vw_id`` there, too: ingestion writes it in every store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vectorwright.ingest.checks import Defect
from vectorwright.ingest.identity import foreign_id, holds_id
from vectorwright.stores.base import Capabilities, Metadata, Record

from .origin import Origin


@dataclass(frozen=True, slots=True)
class Placed:
    """A record of the origin, and what it becomes in the target."""

    origin: Record
    id: str
    metadata: Metadata

    @property
    def moved(self) -> bool:
        """Whether its id is another one than in the origin."""
        return self.id != self.origin.id


def place(record: Record, target: Capabilities) -> Placed | Defect:
    """The id and the metadata of a record in a store."""
    original = record.metadata.get("vw_id")
    if isinstance(original, str) and record.id == foreign_id(original) and holds_id(target.id_pattern, original):
        metadata = dict(record.metadata)
        if "vw_source" not in metadata:
            del metadata["vw_id"]
        return Placed(record, original, metadata)
    if holds_id(target.id_pattern, record.id):
        return Placed(record, record.id, record.metadata)
    if original not in (None, record.id):
        return Defect(
            "IdNotHeld",
            "this store cannot hold its id, and vw_id, where the id would be kept, holds something else already",
        )
    return Placed(record, foreign_id(record.id), {**record.metadata, "vw_id": record.id})


async def without_rivals(placed: Sequence[Placed], origin: Origin) -> list[Placed | Defect]:
    """The same, but no record gets an id that another record of the origin has: it keeps its own, or cannot be kept."""
    moved = [one.id for one in placed if one.moved]
    taken = await origin.present(moved) if moved else set()
    found: list[Placed | Defect] = []
    for one in placed:
        if not one.moved or one.id not in taken:
            found.append(one)
        elif one.metadata.get("vw_id") == one.origin.id:
            # It would stand under a UUID, which is the id of another record.
            found.append(Defect("DuplicateId", f"another record of the source has the id {one.id} that it would get"))
        else:
            found.append(replace(one, id=one.origin.id, metadata=one.origin.metadata))
    return found


def other_origins(record: Record) -> list[str]:
    """The ids, besides its own, that a record of the target may have in the origin."""
    original = record.metadata.get("vw_id")
    return [foreign_id(record.id), *([original] if isinstance(original, str) and original else [])]
