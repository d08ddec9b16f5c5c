"""A Pinecone project as a store: its records."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import httpx
import numpy as np
import orjson
from pinecone.models.vectors.responses import FetchByMetadataResponse, FetchResponse, ListResponse, UpdateResponse
from pinecone.models.vectors.vector import Vector

from vectorwright.errors import NotFound, Retryable, Terminal

from ..base import IndexStatistics, Match, Record, RecordBatch, Vectors
from ..clauses import Clause, Translated
from ..filters import Filter
from ..registry import Connection
from ..server_checks import check_batch, check_query
from .catalog import PineconeCatalog
from .errors import stranger
from .filters import translate
from .indexes import PineconeIndex
from .records import encode_batch, fetches, possible_id, read_match, read_record
from .sdk import IndexClient

T = TypeVar("T")

DEFAULT_NAMESPACE = "__default__"
IDS_A_DELETE = 1_000
LIST_PAGE = 100
"""Ids a page of a listing, and records a page of those that match a filter: these come with their vectors."""
NUMBERS_A_PAGE = 400_000
"""Numbers of the vectors of a page: some 8 MB as JSON."""
FETCHES_AHEAD = 4
"""Pages that are fetched while the listing goes on, which gives 100 ids a request."""
WHOLE_TOP_K = 1_000
"""Matches that are asked for with their metadata. More are ranked by their ids, then fetched: an answer has 4 MB."""


def open_store(connection: Connection) -> PineconeStore:
    """Open a project. Raises Terminal where there is no usable API key. No request is made yet."""
    return PineconeStore(connection)


class PineconeStore(PineconeCatalog):
    """One Pinecone project. Records are of the namespace that it was opened with."""

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__(connection, transport)
        self._namespace = connection.namespace
        self._freshness = float(connection.settings.get("freshnessTimeoutSeconds") or 0.0)

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds, as far as it shows its writes. Raises NotFound."""
        found = await self._read(name, lambda client: client.index.describe_index_stats())
        if found is None:
            return IndexStatistics(0, exact=False, namespaces={})
        return IndexStatistics(
            count=found.total_vector_count,
            exact=False,
            namespaces={
                "" if namespace == DEFAULT_NAMESPACE else namespace: held.vector_count
                for namespace, held in found.namespaces.items()
            },
            details={"index_fullness": found.index_fullness},
        )

    async def delete_namespace(self, name: str, namespace: str) -> None:
        """Delete a namespace with all its records. Raises NotFound."""
        place = namespace or DEFAULT_NAMESPACE
        gone = await self._on(name, lambda client: _done(client.delete_namespace(place)))
        if gone is None:
            raise NotFound(f"namespace {namespace[:100]!r} of index {name!r} does not exist")

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Number of records, of those that match, as far as the index shows its writes. Raises NotFound, Terminal.

        Those that match are counted by an update that is told to change nothing (and has nothing to change); a key
        that may only read has them counted page by page.
        """
        clause = True if where is None else translate(where)
        if clause is True:
            return ((await self.statistics(name)).namespaces or {}).get(self._namespace, 0)
        if clause is False:
            await self._index(name)
            return 0
        try:
            answer = await self._read(name, lambda client: self._dry_run(client, clause))
        except Terminal:
            return await self._counted(name, clause)
        if answer is None:
            return 0
        return await self._counted(name, clause) if answer.matched_records is None else answer.matched_records

    async def _counted(self, name: str, clause: Clause) -> int:
        return sum([len(page) async for page in self._matching(name, clause, LIST_PAGE)])

    async def _dry_run(self, client: IndexClient, clause: Clause) -> UpdateResponse:
        return await client.index.update(filter=clause, set_metadata={}, dry_run=True, namespace=self._namespace)

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records in one request. Raises BatchRejected, BatchTooLarge, Retryable, NotFound."""
        dimension = batch.vectors.shape[1] if batch.vectors.ndim == 2 else 0
        index, of = await self._dense(name, dimension if len(batch) else None)
        check_batch(batch, index=name, dimension=of, metric=index.metric or "", capabilities=self.capabilities)
        if not len(batch):
            return
        body = encode_batch(batch, name, self._namespace)
        answer = await self._on(name, lambda client: client.post("/vectors/upsert", body), writes=True)
        if answer is None:
            raise Retryable(f"index {name} is there, and does not take records yet", reason="IndexNotReady")
        if answer.get("upsertedCount") != len(batch):
            raise stranger(index.host or self._api.endpoint)

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The records that exist, by id. Raises NotFound for the index."""
        possible = [record_id for record_id in dict.fromkeys(ids) if possible_id(record_id)]
        if not possible:
            await self._index(name)
        found: dict[str, Vector] = {}
        for some in fetches(possible):
            answer = await self._read(name, partial(self._fetch, some))
            found |= answer.vectors if answer else {}
        return {
            record_id: read_record(found[record_id], vectors=vectors, metadata=metadata)
            for record_id in possible
            if record_id in found
        }

    async def _fetch(self, ids: list[str], client: IndexClient) -> FetchResponse:
        return await client.index.fetch(ids=ids, namespace=self._namespace)

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The nearest to ``vector``, shape (d,). Raises NotFound, Terminal."""
        clause = True if where is None else translate(where)
        asked = np.ascontiguousarray(vector, np.float32)
        index, dimension = await self._dense(name, asked.shape[0] if asked.ndim == 1 else None)
        check_query(asked, top_k, index=name, dimension=dimension, metric=index.metric or "")
        if clause is False:
            return []
        whole = top_k <= WHOLE_TOP_K
        found = await self._read(
            name,
            lambda client: client.index.query(
                vector=asked.tolist(),
                top_k=top_k,
                namespace=self._namespace,
                filter=None if clause is True else clause,
                include_values=vectors and whole,
                include_metadata=whole,
            ),
        )
        if found is None:
            return []
        if whole:
            return [read_match(one, index.metric, vectors=vectors) for one in found.matches]
        ranked = [read_match(one, index.metric, vectors=False) for one in found.matches]
        records = await self.fetch(name, [match.record.id for match in ranked], vectors=vectors)
        return [Match(records[one.record.id], one.score) for one in ranked if one.record.id in records]

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete records, a thousand a request. Raises NotFound for the index."""
        possible = [record_id for record_id in dict.fromkeys(ids) if possible_id(record_id)]
        if not possible:
            await self._index(name)
        for at in range(0, len(possible), IDS_A_DELETE):
            await self._delete(name, {"ids": possible[at : at + IDS_A_DELETE]})

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all records that match. Raises NotFound for the index, Terminal (``UnsupportedFilter``)."""
        clause = translate(where)
        if clause is False:
            await self._index(name)
        else:
            await self._delete(name, {"deleteAll": True} if clause is True else {"filter": clause})

    async def _delete(self, name: str, which: Mapping[str, object]) -> None:
        body = orjson.dumps({"namespace": self._namespace, **which})
        await self._on(name, lambda client: client.post("/vectors/delete", body))

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """All records that match, in pages of at most 100. Raises NotFound, Terminal (``UnsupportedFilter``).

        Serverless indexes only: indexes with pods list nothing, and say so.
        """
        clause: Translated = True if where is None else translate(where)
        _, dimension = await self._dense(name)
        size = max(1, min(page, LIST_PAGE, NUMBERS_A_PAGE // dimension))
        if clause is True and not (vectors or metadata):
            async for ids in self._ids(name, size):
                yield [Record(record_id) for record_id in ids]
        elif clause is True:
            calls = (
                partial(self.fetch, name, ids, vectors=vectors, metadata=metadata)
                async for ids in self._ids(name, size)
            )
            async with aclosing(self._ahead(calls)) as pages:
                async for records in pages:
                    if records:  # those that were deleted meanwhile are left out
                        yield list(records.values())
        elif clause is not False:
            async for found in self._matching(name, clause, size):
                yield [read_record(one, vectors=vectors, metadata=metadata) for one in found]

    async def _ahead(self, calls: AsyncIterator[Callable[[], Coroutine[Any, Any, T]]]) -> AsyncGenerator[T, None]:
        """The results of calls in their order, with a few of them under way."""
        under_way: deque[asyncio.Task[T]] = deque()
        try:
            async for call in calls:
                under_way.append(asyncio.create_task(call()))
                if len(under_way) > FETCHES_AHEAD:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _ids(self, name: str, size: int) -> AsyncIterator[list[str]]:
        token: str | None = None
        while True:
            found = await self._read(name, partial(self._list_page, size, token))
            if found and found.vectors:
                yield [one.id for one in found.vectors if one.id]
            following = found.pagination.next if found and found.pagination else None
            if not following or following == token:
                return
            token = following

    async def _list_page(self, size: int, token: str | None, client: IndexClient) -> ListResponse:
        return await client.index.list_paginated(limit=size, pagination_token=token, namespace=self._namespace)

    async def _matching(self, name: str, clause: Clause, size: int) -> AsyncIterator[list[Vector]]:
        token: str | None = None
        while True:
            found = await self._read(name, partial(self._matching_page, clause, size, token))
            if found and found.vectors:
                yield list(found.vectors.values())
            following = found.pagination.next if found and found.pagination else None
            if not following or following == token:
                return
            token = following

    async def _matching_page(
        self, clause: Clause, size: int, token: str | None, client: IndexClient
    ) -> FetchByMetadataResponse:
        return await client.index.fetch_by_metadata(
            filter=clause, limit=size, pagination_token=token, namespace=self._namespace
        )

    async def _index(self, name: str, dimension: int | None = None) -> PineconeIndex:
        """The index as it is known. One that is known with another dimension is looked up: it may be made again."""
        known = self._known.get(name)
        if known is None or not known.host or (dimension is not None and known.dimension not in (None, dimension)):
            known = await self._resolve(name)
        return known

    async def _dense(self, name: str, dimension: int | None = None) -> tuple[PineconeIndex, int]:
        """The index and its dimension. Raises Terminal (``UnsupportedIndex``) where it holds no dense vectors."""
        index = await self._index(name, dimension)
        if index.dimension is None:
            raise Terminal(
                f"index {name} is no index of dense vectors (it holds documents, or sparse vectors): make one by a "
                "VectorIndex, or use another name",
                reason="UnsupportedIndex",
            )
        return index, index.dimension

    async def _read(self, name: str, call: Callable[[IndexClient], Awaitable[T]]) -> T | None:
        """Like :meth:`_on`, after the index shows what this process wrote, where that was asked for."""
        known = await self._index(name) if self._freshness else None
        if known and known.dimension:
            place, dimension = known.place, known.dimension
            await self._api.freshness(place).wait(
                self._freshness, lambda: self._api.data(place, lambda client: self._nearest(client, dimension))
            )
        return await self._on(name, call)

    async def _nearest(self, client: IndexClient, dimension: int) -> object:
        return await client.index.query(vector=[1.0] * dimension, top_k=1, namespace=self._namespace)

    async def _on(self, name: str, call: Callable[[IndexClient], Awaitable[T]], *, writes: bool = False) -> T | None:
        """Ask the data plane of the index, and once more where it is elsewhere by now.

        Where the index is there and the data plane knows nothing of it, the namespace was never written to: that is
        None. Raises NotFound for the index.
        """
        known = await self._index(name)
        try:
            return await self._api.data(known.place, call, writes=writes)
        except NotFound:
            found = await self._resolve(name)
        except Retryable as error:
            # The host of an index goes with it.
            if error.reason == "Unreachable":
                await self._raise_if_gone(name)
            raise
        if (found.host, found.incarnation) == (known.host, known.incarnation):
            return None
        try:
            return await self._api.data(found.place, call, writes=writes)
        except NotFound:
            return None

    async def _raise_if_gone(self, name: str) -> None:
        try:
            await self._resolve(name)
        except (Retryable, Terminal):
            return  # the first error says more


async def _done(call: Awaitable[object]) -> bool:
    await call
    return True
