"""The ledger: what the index tells of a source, and how little memory that takes."""

from __future__ import annotations

import tracemalloc
import uuid

import numpy as np
import pytest
from tests.support.ingest import quick

from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.ledger import Ledger
from vectorwright.ingest.limits import Limits
from vectorwright.stores.base import IndexDefinition, Metadata, RecordBatch
from vectorwright.stores.memory import MemoryStore


def row(doc: str, ver: str, number: int, count: int, **extra: str) -> Metadata:
    return {"vw_source": "s", "vw_doc": doc, "vw_ver": ver, "vw_n": number, "vw_count": count, **extra}


async def store_with(rows: dict[str, Metadata]) -> MemoryStore:
    store = MemoryStore()
    await store.create_index(IndexDefinition("i", 2, "cosine"))
    names, metadata = list(rows), list(rows.values())
    for start in range(0, len(names), 10_000):
        part = names[start : start + 10_000]
        vectors = np.ones((len(part), 2), np.float32)
        await store.upsert("i", RecordBatch(part, vectors, metadata[start : start + 10_000], [None] * len(part)))
    return store


async def load(store: MemoryStore, limit: int = 1_000_000) -> Ledger:
    return await Ledger.load(store, "i", "s", limits=Limits(), retrier=quick(), limit=limit)


def ids(count: int) -> list[str]:
    return [str(uuid.UUID(int=number)) for number in range(1, count + 1)]


async def test_whole_half_and_old_versions_are_told_apart() -> None:
    names = ids(6)
    metadata = [
        row("a", "v1", 0, 2),
        row("a", "v1", 1, 2),
        row("b", "v1", 1, 2),
        row("c", "old", 0, 1),
        row("c", "v1", 0, 1),
    ]
    ledger = await load(
        await store_with(dict(zip(names[:5], metadata, strict=True)) | {names[5]: {"vw_source": "other"}})
    )
    assert (len(ledger), ledger.documents) == (5, 3)
    a, b, c = (ledger.find(name, "v1") for name in "abc")
    assert (a.whole, list(a.old)) == (True, [])
    assert (b.whole, sorted(b.present)) == (False, [1])
    assert (c.whole, ledger.record_ids(c.old)) == (True, [names[3]])
    assert ledger.find("a", "v2").old == list(a.rows)
    assert ledger.find("nobody", "v1").rows == ()
    assert set(ledger.record_ids(a.rows)) == set(names[:2])


async def test_integers_that_a_store_gives_back_as_floats_count() -> None:
    ledger = await load(await store_with({ids(1)[0]: row("a", "v", 0, 1) | {"vw_n": 0.0, "vw_count": 1.0}}))
    assert ledger.find("a", "v").whole


async def test_records_with_broken_metadata_are_never_taken_for_whole() -> None:
    rows: dict[str, Metadata] = {
        "x": {"vw_source": "s"},
        "y": {"vw_source": "s", "vw_doc": "a", "vw_ver": "v", "vw_n": "0"},
    }
    ledger = await load(await store_with(rows))
    assert not ledger.find("a", "v").whole
    assert sorted(ledger.record_ids(ledger.vanished())) == ["x", "y"]


async def test_what_was_not_seen_vanished_document_by_document() -> None:
    names = ids(5)
    metadata = [row("a", "v", 0, 2), row("b", "v", 0, 1), row("a", "v", 1, 2), row("c", "v", 0, 1), row("c", "w", 0, 1)]
    ledger = await load(await store_with(dict(zip(names, metadata, strict=True))))
    ledger.see(ledger.find("b", "v"))
    groups = ledger.by_document(ledger.vanished())
    assert sorted(len(group) for group in groups) == [2, 2]
    ledger.see_document("c")
    assert set(ledger.record_ids(ledger.vanished())) == {names[0], names[2]}
    ledger.remove(ledger.vanished())
    assert ledger.vanished() == []
    assert len(ledger.live_digests()) == 3


async def test_ids_that_records_came_with() -> None:
    own = ids(1)[0]
    ledger = await load(
        await store_with({"seven": row("a", "v", 0, 1, vw_id="seven"), own: row("b", "v", 0, 1, vw_id=own)})
    )
    assert ledger.has_own_id("seven")
    assert ledger.has_own_id(own)
    assert not ledger.has_own_id("eight")
    (first,) = ledger.find("a", "v").rows
    assert ledger.is_own(first)
    assert ledger.record_ids([first]) == ["seven"]


async def test_too_many_chunks_are_refused_with_what_to_do() -> None:
    store = await store_with({name: row(name, "v", 0, 1) for name in ids(30)})
    with pytest.raises(Terminal, match="split the source") as error:
        await load(store, limit=20)
    assert error.value.reason == "LedgerTooLarge"


async def test_a_scroll_that_breaks_is_read_again_from_its_start() -> None:
    class Flaky(MemoryStore):
        broken = 1

        async def scroll(self, *arguments, **options):  # type: ignore[no-untyped-def]
            async for page in super().scroll(*arguments, **options):
                yield page
                if self.broken:
                    self.broken -= 1
                    raise Retryable("reset")

    store = Flaky()
    await store.create_index(IndexDefinition("i", 2, "cosine"))
    names = ids(3)
    await store.upsert(
        "i", RecordBatch(names, np.ones((3, 2), np.float32), [row(n, "v", 0, 1) for n in names], [None] * 3)
    )
    assert len(await load(store)) == 3


async def test_memory_stays_small() -> None:
    """48 bytes a chunk, and as much again while the rows are sorted."""
    count = 50_000
    names = ids(count)
    store = await store_with({name: row(f"doc-{number // 5}", "v", number % 5, 5) for number, name in enumerate(names)})
    tracemalloc.start()
    ledger = await load(store)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ledger.find("doc-77", "v").whole
    assert kept / count < 80
