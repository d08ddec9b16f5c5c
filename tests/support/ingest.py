"""What tests of the ingestion engine share: sources and embedders under the test's control, and runs over them."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Generic, TypeVar

import numpy as np

from vectorwright.errors import VectorwrightError
from vectorwright.ingest.contracts import Document, Embedded, Entry, Fetched, Rejected
from vectorwright.ingest.limits import Limits
from vectorwright.ingest.parser_pool import parse_bytes
from vectorwright.ingest.pipeline import Run
from vectorwright.ingest.retry import Retrier
from vectorwright.ingest.runspec import RunSpec, RunState
from vectorwright.stores.base import IndexDefinition, Record, RecordBatch, Store, Vectors
from vectorwright.stores.memory import MemoryStore

DIMENSION = 8
INDEX = "docs"
SOURCE = "team/docs"


class StaticSource:
    """Documents in memory. A value that is an error stands for a fetch that fails with it, every time."""

    def __init__(self, documents: Mapping[str, str | bytes | VectorwrightError], *, tokens: bool = True) -> None:
        self.documents = dict(documents)
        self.tokens = tokens
        self.fetched: list[str] = []
        self.errors: dict[str, list[VectorwrightError]] = {}
        """Errors of the next fetches of a key, before it succeeds."""
        self.listing_error: VectorwrightError | None = None
        """Raised after the first entry was listed."""
        self.before_fetch: Callable[[str], Any] | None = None

    def _data(self, key: str) -> bytes:
        value = self.documents[key]
        if isinstance(value, VectorwrightError):
            return str(value).encode()
        return value.encode() if isinstance(value, str) else value

    async def pin(self) -> str:
        return sha256(b"".join(self._data(key) for key in sorted(self.documents))).hexdigest()[:12]

    async def entries(self) -> AsyncIterator[Entry]:
        for key in sorted(self.documents):
            data = self._data(key)
            token = sha256(data).hexdigest() if self.tokens else None
            yield Entry(key, token, len(data), {"path": key})
            if self.listing_error is not None:
                raise self.listing_error

    async def fetch(self, entries: Sequence[Entry]) -> AsyncIterator[Fetched]:
        for entry in entries:
            self.fetched.append(entry.key)
            if self.before_fetch is not None:
                await self.before_fetch(entry.key)
            value = self.documents[entry.key]
            queued = self.errors.get(entry.key)
            if queued:
                yield Fetched(entry, error=queued.pop(0))
            elif isinstance(value, VectorwrightError):
                yield Fetched(entry, error=value)
            else:
                yield Fetched(entry, data=self._data(entry.key))

    async def close(self) -> None:
        """Nothing is open."""


class DirectParser:
    """The real parsers and chunkers, in this process."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec

    async def parse(self, fetched: Fetched) -> list[Document | Rejected]:
        return parse_bytes(fetched, self._spec.parse, self._spec.chunk, self._spec.precomputed_field)


class HashEmbedder:
    """Vectors from the hash of a text. ``faults`` are raised by the next calls; ``check`` sees every call's texts."""

    def __init__(self, *, dimension: int = DIMENSION, batch_size: int = 8) -> None:
        self.batch_size = batch_size
        self.dimension = dimension
        self.embedded: list[str] = []
        self.calls = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.faults: list[Exception | None] = []
        self.check: Callable[[Sequence[str]], None] | None = None
        self.delay = 0.0

    def vector(self, text: str) -> Vectors:
        if text == "zero":
            return np.zeros(self.dimension, np.float32)
        seed = int.from_bytes(sha256(text.encode()).digest()[:8], "big")
        return np.random.default_rng(seed).standard_normal(self.dimension, dtype=np.float32)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        assert 0 < len(texts) <= self.batch_size
        self.calls += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay)
            fault = self.faults.pop(0) if self.faults else None
            if fault is not None:
                raise fault
            if self.check is not None:
                self.check(texts)
        finally:
            self.in_flight -= 1
        self.embedded.extend(texts)
        return Embedded(np.stack([self.vector(text) for text in texts]), sum(len(text.split()) for text in texts))

    async def close(self) -> None:
        """Nothing is open."""


class ScriptedStore(MemoryStore):
    """The memory store with faults: ``upsert_faults`` are raised by the next writes, ``refuse`` looks at every one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.upsert_faults: list[Exception | None] = []
        self.refuse: Callable[[RecordBatch], None] | None = None
        self.upserts: list[list[str]] = []
        self.deletes: list[list[str]] = []
        self.log: list[tuple[str, tuple[str, ...]]] = []
        """Reads, writes and deletes of ids, in order."""
        self.in_flight: set[str] = set()
        self.collisions: set[str] = set()
        """Ids that were in two writes at a time."""
        self.most_writes = 0
        self._writes = 0
        self.delay = 0.0
        self.lose: set[str] = set()
        """Ids whose writes are acknowledged and dropped."""

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        self.collisions |= self.in_flight & set(batch.ids)
        self.in_flight |= set(batch.ids)
        self._writes += 1
        self.most_writes = max(self.most_writes, self._writes)
        try:
            await asyncio.sleep(self.delay)
            fault = self.upsert_faults.pop(0) if self.upsert_faults else None
            if fault is not None:
                raise fault
            if self.refuse is not None:
                self.refuse(batch)
            await super().upsert(name, batch)
        finally:
            self.in_flight -= set(batch.ids)
            self._writes -= 1
        self.upserts.append(list(batch.ids))
        self.log.append(("upsert", tuple(batch.ids)))
        await super().delete(name, [record_id for record_id in batch.ids if record_id in self.lose])

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        self.log.append(("fetch", tuple(ids)))
        return await super().fetch(name, ids, vectors=vectors, metadata=metadata)

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        self.log.append(("delete", tuple(ids)))
        self.deletes.append(list(ids))
        await super().delete(name, ids)


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


def quick(attempts: int = 3, **options: Any) -> Retrier:
    """A retrier that does not wait."""
    return Retrier(attempts, sleep=no_sleep, rng=random.Random(1), **options)


AnyStore = TypeVar("AnyStore", bound=Store)


@dataclass
class Bench(Generic[AnyStore]):
    """A store with one index, and runs into it."""

    store: AnyStore
    embedder: HashEmbedder
    incarnation: str
    metric: str = "cosine"
    overrides: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    async def make(
        *, metric: str = "cosine", store: ScriptedStore | None = None, **overrides: Any
    ) -> Bench[ScriptedStore]:
        """Over a store in memory, whose faults the test scripts."""
        store = store or ScriptedStore()
        made = await store.create_index(IndexDefinition(INDEX, DIMENSION, metric))
        return Bench(store, HashEmbedder(), made.incarnation, metric, overrides)

    @staticmethod
    async def over(store: AnyStore, incarnation: str, **overrides: Any) -> Bench[AnyStore]:
        """Over any store, which has the index already."""
        return Bench(store, HashEmbedder(), incarnation, "cosine", overrides)

    def spec(self, **overrides: Any) -> RunSpec:
        wanted: dict[str, Any] = {
            "runId": "run-1",
            "job": "team/docs",
            "sourceName": SOURCE,
            "source": {"inline": {"documents": [{"id": "unused", "text": ""}]}},
            "store": {
                "provider": "memory",
                "settings": {},
                "index": INDEX,
                "incarnation": self.incarnation,
                "dimension": DIMENSION,
                "metric": self.metric,
            },
            "embedder": {"spec": {"local": {"model": "wordllama"}}, "fingerprint": "f1"},
        }
        for name, value in (self.overrides | overrides).items():
            if isinstance(value, dict) and isinstance(wanted.get(name), dict):
                wanted[name] = wanted[name] | value
            else:
                wanted[name] = value
        return RunSpec.model_validate(wanted)

    def prepare(self, source: StaticSource, *, ledger_limit: int = 1_000_000, **overrides: Any) -> Run:
        spec = self.spec(**overrides)
        run = Run(
            spec,
            store=self.store,
            source=source,
            parser=DirectParser(spec),
            embedder=self.embedder if spec.embedder is not None else None,
            limits=Limits.of(spec),
            looks=quick(),
            ledger_limit=ledger_limit,
        )
        run._retrier._sleep = no_sleep
        return run

    async def run(self, documents: Mapping[str, Any] | StaticSource, **overrides: Any) -> RunState:
        source = documents if isinstance(documents, StaticSource) else StaticSource(documents)
        return await self.prepare(source, **overrides).execute()

    async def records(self) -> dict[str, Record]:
        found: dict[str, Record] = {}
        async for page in self.store.scroll(INDEX, vectors=True):
            found |= {record.id: record for record in page}
        return found

    async def texts(self) -> dict[str, list[str]]:
        """Document → texts of its chunks, in their order."""
        chunks: dict[str, dict[int, str]] = {}
        for record in (await self.records()).values():
            numbers = chunks.setdefault(str(record.metadata["vw_doc"]), {})
            number = int(str(record.metadata["vw_n"]))
            assert number not in numbers, "two versions of one chunk"
            numbers[number] = record.text or ""
        return {key: [numbers[number] for number in sorted(numbers)] for key, numbers in chunks.items()}


def paragraphs(count: int, *, word: str = "alpha", length: int = 60) -> str:
    """A text that chunks of 80 characters cut into ``count`` pieces."""
    return "\n\n".join(f"{word} {number} " + re.sub(r"\s+$", "", "lorem " * (length // 6)) for number in range(count))
