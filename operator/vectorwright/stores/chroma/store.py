"""Chroma over its HTTP API, version 2: no SDK, so nothing to install and 11 µs of CPU a vector in place of 41.

What a collection's metadata holds of ours is said in :mod:`.collection_ids`; how records are replaced, in
:mod:`.records`; how writes are joined, in :mod:`.writer`; what filters cannot say, in
:mod:`.filters`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
import orjson

from ..base import IndexStatistics, Match, Record, RecordBatch, Store, Vectors
from ..clauses import Translated
from ..filters import Filter
from ..registry import Connection
from ..server_checks import check_batch, check_query
from .catalog import ChromaCatalog
from .collection_ids import Collection
from .filters import EVERYTHING, translate
from .listing import snapshot
from .records import (
    EncodedBatch,
    check_names,
    decode_ids,
    decode_matches,
    decode_records,
    encode_batch,
)
from .writer import CombiningWriter

IDS_PAGE = 50_000
RECORDS_PAGE = 2_000
"""Ids in one ``get`` with what belongs to them."""
VALUES_PAGE = 1_000_000
"""Numbers in one ``get`` of vectors: the server writes them as text, about 10 bytes each."""
DELETE_PAGE = 10_000
"""Records in one delete: 12,000 took 1.4 s on 2 cores, and a request has a timeout."""


class ChromaStore(ChromaCatalog):
    """One database of a Chroma server, 1.0 or newer."""

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__(connection, transport)
        self._writers: dict[str, CombiningWriter] = {}
        self._write_gate = asyncio.Lock()

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds, exactly. Raises NotFound."""
        return IndexStatistics(await self.count(name))

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of records; with a filter their ids are listed. Raises NotFound."""
        clause = True if where is None else translate(where)
        if clause is True:
            return int(await self._on(name, lambda found: self._api.call("GET", f"/collections/{found.id}/count")))
        return len(await self._ids(name, clause))

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records, replacing what is there. Raises BatchRejected, BatchTooLarge, Retryable, NotFound.

        A text is removed only together with its record, which is then missing for the time of one request.
        """
        if batch.vectors.ndim == 2:
            self._forget_unless(name, batch.vectors.shape[1])
        await self._on(name, lambda collection: self._upsert(collection, batch))

    async def _upsert(self, collection: Collection, batch: RecordBatch) -> None:
        as_base64 = await self._learn_limits() if self._as_base64 is None else self._as_base64
        encoded = check_batch(
            batch,
            index=collection.name,
            dimension=collection.dimension or (batch.vectors.shape[1] if batch.vectors.ndim == 2 else 0),
            metric=collection.metric or "",
            capabilities=self.capabilities,
        )
        check_names(batch, collection.name)
        if not batch.ids:
            return
        texts_end = any(text is None for text in batch.texts)
        include = ["metadatas", "documents"] if texts_end else ["metadatas"]
        answer = await self._get(collection, {"ids": batch.ids, "include": include})
        existing = {record.id: record for record in decode_records(answer, metadata=True)}
        if texts_end and existing:
            ending = [
                record_id
                for record_id, text in zip(batch.ids, batch.texts, strict=True)
                if text is None and record_id in existing and existing[record_id].text is not None
            ]
            if ending:
                await self._delete(collection, {"ids": ending})
                existing = {record_id: record for record_id, record in existing.items() if record_id not in set(ending)}
        await self._writer(collection).write(encode_batch(batch, encoded, existing, as_base64=as_base64))

    def _writer(self, collection: Collection) -> CombiningWriter:
        writer = self._writers.get(collection.id)
        if writer is None:

            async def send(batch: EncodedBatch) -> None:
                path = f"/collections/{collection.id}/upsert"
                await self._api.call("POST", path, body=batch.body(), writes=True)

            limits = self.capabilities
            writer = CombiningWriter(send, limits.max_batch_records, limits.max_batch_bytes, self._write_gate)
            self._writers[collection.id] = writer
        return writer

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The records that exist, by id. Raises NotFound for the index."""

        async def fetch(collection: Collection) -> dict[str, Record]:
            found: dict[str, Record] = {}
            size = (
                RECORDS_PAGE if not vectors else max(1, min(RECORDS_PAGE, VALUES_PAGE // (collection.dimension or 1)))
            )
            include = _include(vectors=vectors, metadata=metadata)
            for start in range(0, len(ids), size):
                part = list(ids[start : start + size])
                answer = await self._get(collection, {"ids": part, "include": include})
                found |= {record.id: record for record in decode_records(answer, metadata=metadata)}
            return found

        return await self._on(name, fetch)

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The nearest, by Chroma's own index: approximate in a large collection. Raises NotFound, Terminal."""
        clause = True if where is None else translate(where)
        import numpy as np  # noqa: PLC0415 - the operator never searches, and its memory is budgeted

        asked = np.ascontiguousarray(vector, np.float32)

        async def query(collection: Collection) -> list[Match]:
            check_query(
                asked,
                top_k,
                index=name,
                dimension=collection.dimension or len(asked),
                metric=collection.metric or "",
            )
            if clause is False:
                return []
            body = {
                "query_embeddings": [asked],
                "n_results": top_k,
                "include": ["distances", *_include(vectors=vectors, metadata=True)],
                **_where(clause),
            }
            answer = await self._api.call(
                "POST",
                f"/collections/{collection.id}/query",
                body=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY),
            )
            return decode_matches(answer, collection.metric)

        self._forget_unless(name, len(asked))
        return await self._on(name, query)

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete records. Raises NotFound for the index."""

        async def delete(collection: Collection) -> None:
            for start in range(0, len(ids), DELETE_PAGE):
                await self._delete(collection, {"ids": list(ids[start : start + DELETE_PAGE])})

        await self._on(name, delete)

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all records that match, 10,000 at a time. Raises NotFound for the index, Terminal."""
        clause = translate(where)

        async def delete(collection: Collection) -> None:
            if clause is False:
                return
            body = {"where": EVERYTHING if clause is True else clause, "limit": DELETE_PAGE}
            while await self._delete(collection, body) >= DELETE_PAGE:
                pass

        await self._on(name, delete)

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """Records that match now, in pages; one that is deleted meanwhile is left out. Raises NotFound, Terminal.

        The ids are listed first: Chroma pages by position, and what is deleted meanwhile would shift the rest.
        """
        ids = await self._ids(name, True if where is None else translate(where))
        size = max(1, min(page, RECORDS_PAGE))
        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            if vectors or metadata:
                found = await self.fetch(name, part, vectors=vectors, metadata=metadata)
                records = [found[record_id] for record_id in part if record_id in found]
            else:
                records = [Record(record_id) for record_id in part]
            if records:
                yield records

    async def _ids(self, name: str, clause: Translated) -> list[str]:
        async def listed(collection: Collection) -> list[str]:
            if clause is False:
                return []

            async def page(limit: int, offset: int) -> list[str]:
                body = {"include": [], "limit": limit, "offset": offset, **_where(clause)}
                return decode_ids(await self._get(collection, body))

            return await snapshot(page, IDS_PAGE, key=lambda record_id: record_id)

        return await self._on(name, listed)

    async def _get(self, collection: Collection, body: Mapping[str, Any]) -> Any:
        return await self._api.call("POST", f"/collections/{collection.id}/get", body=orjson.dumps(body))

    async def _delete(self, collection: Collection, body: Mapping[str, Any]) -> int:
        """Records deleted, as far as the server tells."""
        answer = await self._api.call("POST", f"/collections/{collection.id}/delete", body=orjson.dumps(body))
        deleted = answer.get("deleted") if isinstance(answer, dict) else None
        return deleted if isinstance(deleted, int) else 0


def _where(clause: Translated) -> dict[str, Any]:
    """The part of a request that filters."""
    return {"where": clause} if isinstance(clause, dict) else {}


def _include(*, vectors: bool, metadata: bool) -> list[str]:
    return [*(["metadatas", "documents"] if metadata else []), *(["embeddings"] if vectors else [])]


def open_store(connection: Connection) -> Store:
    """A Chroma database; no request is made yet. Raises Terminal where the CA bundle or a credential is unusable."""
    return ChromaStore(connection)
