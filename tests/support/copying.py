"""Two indexes and copies between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tests.support.ingest import no_sleep, quick

from vectorwright.ingest.copying.run import CopyRun, copy_of
from vectorwright.ingest.limits import Limits
from vectorwright.ingest.runspec import RunSpec, RunState
from vectorwright.stores.base import IndexDefinition, Metadata, Record, RecordBatch, Store

DIMENSION = 8
SOURCE, TARGET = "docs", "copy"


def record(
    record_id: str, number: int = 0, metadata: Metadata | None = None, text: str | None = None, *, seed: int = 1
) -> Record:
    """A record with a vector of unit length of its own."""
    drawn = np.random.default_rng([seed, number]).standard_normal(DIMENSION)
    vector = np.ascontiguousarray(drawn / math.sqrt(float(drawn @ drawn)), np.float32)
    return Record(record_id, {} if metadata is None else metadata, text, vector)


def some(count: int, *, source: str | None = None) -> list[Record]:
    """Records with ids of their own, of a source or of none."""
    named: Metadata = {} if source is None else {"vw_source": source}
    return [
        record(f"{source or 'r'}-{number}", number, {**named, "n": number}, f"text {number}") for number in range(count)
    ]


def as_batch(records: Sequence[Record]) -> RecordBatch:
    return RecordBatch(
        [one.id for one in records],
        np.stack([one.vector for one in records if one.vector is not None]),
        [one.metadata for one in records],
        [one.text for one in records],
    )


async def put(store: Store, index: str, records: Sequence[Record]) -> None:
    most = store.capabilities.max_batch_records
    for start in range(0, len(records), min(most, 500)):
        await store.upsert(index, as_batch(records[start : start + min(most, 500)]))


async def all_of(store: Store, index: str) -> dict[str, Record]:
    found: dict[str, Record] = {}
    async for page in store.scroll(index, vectors=True):
        for one in page:
            assert one.id not in found
            found[one.id] = one
    return found


def described(records: Iterable[Record]) -> dict[str, tuple[Any, str | None, bytes]]:
    """Records by id, in a form that tells 1 from 1.0 and compares vectors to the last bit."""
    return {one.id: (_typed(one.metadata), one.text, one.vector.tobytes()) for one in records if one.vector is not None}


def _typed(metadata: Metadata) -> dict[str, tuple[str, Any]]:
    return {name: (type(value).__name__, value) for name, value in metadata.items()}


@dataclass
class Pair:
    """A source index, and an index that it is copied to."""

    origin: Store
    store: Store
    origin_incarnation: str
    incarnation: str
    overrides: dict[str, Any] = field(default_factory=dict)
    metric: str = "cosine"

    @classmethod
    async def make(cls, origin: Store, store: Store, *, metric: str = "cosine", **overrides: Any) -> Pair:
        """Make both indexes."""
        first = await origin.create_index(IndexDefinition(SOURCE, DIMENSION, metric))
        second = await store.create_index(IndexDefinition(TARGET, DIMENSION, metric))
        return cls(origin, store, first.incarnation, second.incarnation, overrides, metric)

    def spec(self, **overrides: Any) -> RunSpec:
        place = {"provider": "memory", "settings": {}, "dimension": DIMENSION, "metric": self.metric}
        wanted: dict[str, Any] = {
            "runId": "copy-1",
            "job": "team/copy",
            "sourceName": "team/copy",
            "source": {"vectorIndex": {"name": SOURCE}},
            "store": {
                **place, "index": TARGET, "incarnation": self.incarnation, "soleWriter": True, "madeForUs": True,
            },
            "sourceStore": {**place, "index": SOURCE, "incarnation": self.origin_incarnation},
        }  # fmt: skip
        for name, value in (self.overrides | overrides).items():
            known = wanted.get(name)
            wanted[name] = known | dict(value) if isinstance(value, Mapping) and isinstance(known, dict) else value
        return RunSpec.model_validate(wanted)

    def prepare(self, **overrides: Any) -> CopyRun:
        spec = self.spec(**overrides)
        assert spec.source_store is not None
        place = spec.source_store
        run = copy_of(spec, place, store=self.store, origin=self.origin, limits=Limits.of(spec), looks=quick())
        run._retrier._sleep = no_sleep
        return run

    async def run(self, **overrides: Any) -> RunState:
        return await self.prepare(**overrides).execute()

    async def copied(self) -> dict[str, Record]:
        return await all_of(self.store, TARGET)
