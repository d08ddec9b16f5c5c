"""Milvus: an index is a collection, a namespace a partition of it, a record a row.

Columns are described in :mod:`.schema`, filters in :mod:`.filters`, names in :mod:`.names`. Reads ask for strong
consistency, so that they see every write that was acknowledged before them, whoever wrote.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import orjson

from vectorwright.errors import BatchRejected, Conflict, NotFound, Retryable, Terminal, VectorwrightError

from ..base import IndexStatistics, Match, Record, RecordBatch, Store, Vectors
from ..filters import Filter
from ..registry import Connection
from ..server_checks import check_batch, check_query
from .catalog import MilvusCatalog
from .errors import Missing, NotLoaded, PartitionNotFound
from .filters import EVERYTHING, expression, literal, one_of
from .names import from_milvus, to_key, to_milvus
from .records import placeholder, records, upsert_request
from .schema import ID, METADATA, METRICS, TEXT, VECTOR, Collection
from .settings import AUTOINDEX, search_params
from .stubs import milvus_pb2, pairs

DEFAULT_PARTITION = "_default"
RECORDS_PAGE = 4_000
"""Rows of one request that reads; Milvus gives 16,384 at most (its documentation)."""
PAGE_BYTES = 16 * 2**20
"""Bytes of vectors of one answer."""
DELETE_PAGE = 5_000
"""Keys in one expression."""
_STRONG = 0

_MAY_BE_STALE = {"RequestRefused", "RecordRejected", "DimensionMismatch", "InvalidQuery"}
"""Reasons of refusals that may say no more than that what is remembered of a collection is out of date."""

T = TypeVar("T")


class MilvusStore(MilvusCatalog):
    """One database of a Milvus server, 2.4 or newer, and in it one namespace."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._namespace = connection.namespace

    @property
    def _partition(self) -> str:
        return to_milvus(self._namespace) if self._namespace else DEFAULT_PARTITION

    async def _on(self, name: str, action: Callable[[Collection], Awaitable[T]]) -> T:
        """Do it with what is known of a collection, and once more where that is no longer so, or it is not loaded."""
        collection = self._remembered(name) or await self._resolve(name)
        if not collection.ours:
            collection = await self._resolve(name)
            if not collection.ours:
                raise Terminal(
                    f"collection {name!r} has other columns than ours: its records cannot be read or written",
                    reason="UnsupportedCollection",
                )
        try:
            return await action(collection)
        except NotLoaded as error:
            collection = await self._resolve(name)
            await self._building.again(collection, error)
        except (Terminal, NotFound) as error:
            fresh = await self._made_again(name, collection, error)
            if fresh is None:
                raise
            collection = fresh
        return await action(collection)

    async def _made_again(self, name: str, known: Collection, error: VectorwrightError) -> Collection | None:
        """The collection as it is now, where that explains a refusal. Raises NotFound where it is gone."""
        if not (isinstance(error, Missing) or error.reason in _MAY_BE_STALE):
            return None
        try:
            fresh = await self._resolve(name)
        except (Terminal, Retryable):
            return None  # the first refusal is the one to tell
        return None if fresh.same_form(known) else fresh

    async def statistics(self, name: str) -> IndexStatistics:
        """Exact counts of every partition, and whether the collection is loaded. Raises NotFound."""
        return await self._on(name, self._statistics)

    async def _statistics(self, collection: Collection) -> IndexStatistics:
        shown = await self._api.call(
            "ShowPartitions",
            milvus_pb2.ShowPartitionsRequest(collection_name=collection.theirs),
            "ShowPartitionsResponse",
        )
        partitions = list(shown.partition_names)
        counts = await asyncio.gather(*(self._counted(collection, EVERYTHING, one) for one in partitions))
        named = {
            "" if partition == DEFAULT_PARTITION else from_milvus(partition): count
            for partition, count in zip(partitions, counts, strict=True)
        }
        state = await self._building.state(collection.theirs)
        return IndexStatistics(sum(counts), namespaces=named, details={"load_state": state})

    async def delete_namespace(self, name: str, namespace: str) -> None:
        """Drop a partition with its records; the default one is emptied, for it cannot go. Raises NotFound."""
        if not namespace:
            await self._on(name, lambda collection: self._emptied(collection, None, DEFAULT_PARTITION))
            return
        collection, partition = await self._own(name), to_milvus(namespace)
        request = milvus_pb2.HasPartitionRequest(collection_name=collection.theirs, partition_name=partition)
        if not (await self._api.call("HasPartition", request, "BoolResponse")).value:
            raise NotFound(f"namespace {namespace[:100]!r} does not exist in index {name}")
        await self._release(collection, partition)
        await self._api.call(
            "DropPartition",
            milvus_pb2.DropPartitionRequest(collection_name=collection.theirs, partition_name=partition),
        )

    async def _release(self, collection: Collection, partition: str) -> None:
        """Milvus drops a partition only when it is released. milvus-lite knows no such thing."""
        request = milvus_pb2.ReleasePartitionsRequest(collection_name=collection.theirs, partition_names=[partition])
        try:
            await self._api.call("ReleasePartitions", request)
        except Terminal as error:
            if error.reason != "UnsupportedServer":
                raise

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of rows, of those that match. Raises NotFound, Terminal."""
        return await self._on(name, lambda one: self._counted(one, expression(where, one.columns), self._partition))

    async def _counted(self, collection: Collection, expr: str, partition: str) -> int:
        try:
            answer = await self._query(collection, expr, ["count(*)"], partition)
        except PartitionNotFound:
            return 0
        return int(answer.fields_data[0].scalars.long_data.data[0])

    async def _query(
        self,
        collection: Collection,
        expr: str,
        columns: list[str],
        partition: str,
        params: dict[str, str] | None = None,
    ) -> Any:
        request = milvus_pb2.QueryRequest(
            collection_name=collection.theirs,
            expr=expr,
            output_fields=columns,
            partition_names=[partition],
            query_params=pairs(params or {}),
            consistency_level=_STRONG,
        )
        return await self._api.call("Query", request, "QueryResults")

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write rows. Raises BatchRejected, BatchTooLarge, Retryable, NotFound."""
        if batch.vectors.ndim == 2:
            known = self._known.get(name)
            if known is not None and known.dimension != batch.vectors.shape[1]:
                del self._known[name]  # it may have been made again
        await self._on(name, lambda collection: self._written(collection, batch))

    async def _written(self, collection: Collection, batch: RecordBatch) -> None:
        check_batch(
            batch,
            index=collection.name,
            dimension=collection.dimension or 0,
            metric=collection.metric or "",
            capabilities=self.capabilities,
        )
        if not batch.ids:
            return
        body = upsert_request(batch, collection, self._partition, self._namespace)
        try:
            answer = await self._api.call("Upsert", body, "MutationResult", writes=True)
        except PartitionNotFound:
            await self._create_partition(collection)
            answer = await self._api.call("Upsert", body, "MutationResult", writes=True)
        if answer.err_index:
            bad = ", ".join(repr(batch.ids[at]) for at in list(answer.err_index)[:3] if at < len(batch))
            raise BatchRejected(f"index {collection.name}: Milvus did not take the records {bad}")

    async def _create_partition(self, collection: Collection) -> None:
        name = collection.theirs
        request = milvus_pb2.CreatePartitionRequest(collection_name=name, partition_name=self._partition)
        try:
            await self._api.call("CreatePartition", request)
        except (Terminal, Conflict, Retryable):
            # Somebody else may have made it meanwhile: versions say that in different ways.
            asked = milvus_pb2.HasPartitionRequest(collection_name=name, partition_name=self._partition)
            if not (await self._api.call("HasPartition", asked, "BoolResponse")).value:
                raise

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The rows that exist, by id. Raises NotFound for the index."""

        async def fetched(collection: Collection) -> dict[str, Record]:
            found: dict[str, Record] = {}
            size = _page(collection, RECORDS_PAGE, vectors=vectors)
            columns = _columns(vectors=vectors, metadata=metadata)
            keys = [to_key(one, self._namespace) for one in dict.fromkeys(ids) if _sendable(one)]
            for start in range(0, len(keys), size):
                expr = one_of(keys[start : start + size])
                try:
                    answer = await self._query(collection, expr, columns, self._partition)
                except PartitionNotFound:
                    return {}
                found |= {one.id: one for one in records(answer.fields_data, None, self._namespace)}
            return found

        return await self._on(name, fetched)

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The nearest, by the index of the vectors.

        Raises NotFound, Terminal (``InvalidQuery``, ``UnsupportedFilter``).
        """
        asked = np.ascontiguousarray(vector, np.float32)
        known = self._known.get(name)
        if known is not None and asked.shape != (known.dimension,):
            del self._known[name]  # it may have been made again

        async def nearest(collection: Collection) -> list[Match]:
            metric = collection.metric or ""
            check_query(asked, top_k, index=name, dimension=collection.dimension or 0, metric=metric)
            request = milvus_pb2.SearchRequest(
                collection_name=collection.theirs,
                partition_names=[self._partition],
                dsl="" if where is None else expression(where, collection.columns),
                dsl_type=1,  # a boolean expression
                placeholder_group=placeholder(asked),
                nq=1,
                output_fields=_columns(vectors=vectors, metadata=True)[1:],  # ids come anyway
                search_params=pairs(_search(collection, top_k)),
                consistency_level=_STRONG,
            )
            try:
                answer = await self._api.call("Search", request, "SearchResults")
            except PartitionNotFound:
                return []
            found = answer.results
            rows = records(found.fields_data, list(found.ids.str_id.data), self._namespace)
            return [Match(row, _score(score, metric)) for row, score in zip(rows, found.scores, strict=True)]

        return await self._on(name, nearest)

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete rows. Raises NotFound for the index."""
        keys = [to_key(one, self._namespace) for one in ids if _sendable(one)]
        await self._on(name, lambda collection: self._deleted(collection, keys, self._partition))

    async def _deleted(self, collection: Collection, keys: Sequence[str], partition: str) -> None:
        for start in range(0, len(keys), DELETE_PAGE):
            request = milvus_pb2.DeleteRequest(
                collection_name=collection.theirs,
                partition_name=partition,
                expr=one_of(keys[start : start + DELETE_PAGE]),
                consistency_level=_STRONG,
            )
            try:
                await self._api.call("Delete", request, "MutationResult")
            except PartitionNotFound:
                return

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all rows that match, by their ids, 4,000 at a time. Raises NotFound for the index, Terminal."""
        await self._on(name, lambda collection: self._emptied(collection, where, self._partition))

    async def _emptied(self, collection: Collection, where: Filter | None, partition: str) -> None:
        # By ids: milvus-lite deletes what an expression finds in other partitions, too.
        expr, after = expression(where, collection.columns), ""
        while True:
            keys = await self._keys(collection, expr, after, partition)
            if not keys:
                return
            await self._deleted(collection, keys, partition)
            after = keys[-1]

    async def _keys(self, collection: Collection, expr: str, after: str, partition: str) -> list[str]:
        rows = await self._after(collection, expr, after, [ID], RECORDS_PAGE, partition)
        return (
            []
            if rows is None
            else [key for field in rows if field.field_name == ID for key in field.scalars.string_data.data]
        )

    async def _after(
        self, collection: Collection, expr: str, after: str, columns: list[str], size: int, partition: str
    ) -> Any:
        """The rows with the next keys in order, as columns; None where nobody wrote to the partition yet.

        As an iterator asks: rows come in the order of their keys, and a page may be short although more rows follow.
        """
        params = {"limit": str(size), "iterator": "True", "reduce_stop_for_best": "False", "ignore_growing": "False"}
        try:
            answer = await self._query(
                collection, f"{ID} > {literal(after)} and {expr}" if after else expr, columns, partition, params
            )
        except PartitionNotFound:
            return None
        return answer.fields_data

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """Rows that match, in the order of their keys, in pages. Raises NotFound, Terminal."""
        columns = _columns(vectors=vectors, metadata=metadata)

        async def read(after: str) -> tuple[list[Record], bool]:
            """The page behind a key, and whether it is full."""

            async def from_collection(collection: Collection) -> tuple[list[Record], bool]:
                size = max(1, min(page, _page(collection, RECORDS_PAGE, vectors=vectors)))
                expr = expression(where, collection.columns)
                rows = await self._after(collection, expr, after, columns, size, self._partition)
                found = [] if rows is None else records(rows, None, self._namespace)
                return found[:size], len(found) >= size

            return await self._on(name, from_collection)

        found, full = await read("")
        while found:
            after = to_key(found[-1].id, self._namespace)
            # A short page is the last one where nothing follows it now: what is written later need not be seen.
            following = None if full else await read(after)
            yield found
            found, full = following or await read(after)


def _sendable(record_id: str) -> bool:
    """Whether a record can have the id: half of a surrogate pair cannot be sent."""
    try:
        record_id.encode()
    except UnicodeEncodeError:
        return False
    return bool(record_id)


def _columns(*, vectors: bool, metadata: bool) -> list[str]:
    return [ID, *((METADATA, TEXT) if metadata else ()), *((VECTOR,) if vectors else ())]


def _page(collection: Collection, most: int, *, vectors: bool) -> int:
    """Rows of one answer: fewer where vectors are large."""
    return most if not vectors else max(1, min(most, PAGE_BYTES // (4 * (collection.dimension or 1))))


def _search(collection: Collection, top_k: int) -> dict[str, str]:
    kind = collection.index.type if collection.index else AUTOINDEX
    params = search_params(kind, collection.recorded, top_k)
    return {
        "anns_field": VECTOR,
        "topk": str(top_k),
        "metric_type": METRICS.get(collection.metric or "", ""),
        "params": orjson.dumps(params).decode(),
        "round_decimal": "-1",
        "ignore_growing": "False",
    }


def _score(score: float, metric: str) -> float:
    """Milvus gives the similarity, the inner product, or the square of the distance."""
    return -math.sqrt(max(score, 0.0)) if metric == "euclidean" else float(score)


def open_store(connection: Connection) -> Store:
    """A database of a Milvus server; no connection is made yet.

    Raises Terminal where the address, the CA bundle or the database's name make no sense.
    """
    return MilvusStore(connection)
