"""From an index to a parquet file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

from vectorwright.errors import Terminal
from vectorwright.ingest.record_files import FileHead
from vectorwright.stores.base import IndexDescription, Store

from .record_writer import RecordFileWriter

_PAGE_BYTES = 8 * 2**20


def head_of(found: IndexDescription, dimension: int) -> FileHead:
    """What the file says of an index's records."""
    return FileHead(
        dimension=dimension,
        metric=found.metric,
        model_fingerprint=found.model_fingerprint,
        index=found.name,
        exported_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


async def export_index(
    store: Store, index: str, path: Path, *, dimension: int | None = None, told: Callable[[int], None] | None = None
) -> int:
    """Write all records of an index to ``path``, and return how many there were. Memory does not grow with them.

    ``dimension`` is needed where the store does not tell. ``told`` is called with the number of records so far. The
    file appears under its name when it is whole. Raises NotFound, Retryable, and Terminal where records or file cannot
    be had.
    """
    found = await store.describe_index(index)
    dimension = found.dimension or dimension
    if dimension is None:
        raise Terminal(f"the store does not tell the dimension of index {index!r}", reason="WrongDimension")
    page = max(1, min(1000, _PAGE_BYTES // (4 * dimension + 4096)))
    seen = 0
    writer = RecordFileWriter(path, head_of(found, dimension))
    with writer:
        async with aclosing(store.scroll(index, vectors=True, page=page)) as pages:  # type: ignore[type-var]
            async for records in pages:
                await asyncio.to_thread(writer.write, records)
                seen += len(records)
                if told is not None:
                    told(seen)
    return seen
