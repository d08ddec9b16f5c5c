"""Qdrant over its gRPC API, with the messages that its SDK ships and none of the SDK's own layers.

Collections are indexes (:mod:`.catalog`, :mod:`.collection`, :mod:`.settings`); how a record becomes a point is said in
:mod:`.payload` and :mod:`.names`, how a batch becomes bytes in :mod:`.packing`, what filters cannot say in
:mod:`.filters`. Every write waits until it is stored: one that does not is answered before points of a wrong dimension
are dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vectorwright.errors import BatchRejected, BatchTooLarge, Retryable, Terminal

from ..base import IndexStatistics, Match, Record, RecordBatch, Setting, Store, Vectors
from ..filters import Filter
from ..registry import Connection
from ..server_checks import check_batch, check_query
from .catalog import QdrantCatalog
from .collection import Collection
from .filters import Translated, translate
from .messages import grpc
from .names import number_of
from .packing import pack_upsert
from .payload import decode, encode

RECORDS_PAGE = 2_000
"""Points in one answer with what belongs to them."""
IDS_PAGE = 20_000
"""Points in one answer without it."""
VALUES_PAGE = 4_000_000
"""Numbers in one answer of vectors: 16 MB."""
DELETE_PAGE = 10_000
"""Points in one delete."""
MAX_MESSAGE = 32 * 2**20
"""Bytes of a request: the server's default for its REST API."""


class QdrantStore(QdrantCatalog):
    """One Qdrant server or cluster, 1.13 or newer."""

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds, exactly, and what the server tells of its segments. Raises NotFound."""
        info = (await self._look_up(name)).info
        details: dict[str, Setting] = {
            "status": grpc.CollectionStatus.Name(info.status).lower(),
            "optimizer": "ok" if info.optimizer_status.ok else "failed",
            "segments": info.segments_count,
            "indexed_vectors": info.indexed_vectors_count,
            "points_estimate": info.points_count,
        }
        return IndexStatistics(await self._count(name, None), details=details)

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of records, of those that match. Raises NotFound, Terminal."""
        clause = await self._translated(name, where)
        if clause is False:
            return 0
        return await self._count(name, None if clause is True else clause)

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records, replacing those of the same id. Raises BatchRejected, BatchTooLarge, Retryable, NotFound."""
        collection = await self._recent(name)
        if batch.vectors.ndim == 2 and collection.dimension != batch.vectors.shape[1]:
            collection = await self._resolve(name)  # it may have been made again
        _check_single(collection)
        check_batch(
            batch,
            index=name,
            dimension=collection.dimension or 0,
            metric=collection.metric or "",
            capabilities=self.capabilities,
        )
        for record_id in batch.ids:
            _check_id(record_id, name)
        if not batch.ids:
            return
        integers = collection.integers
        payloads = [
            encode(metadata, text, integers, f"index {name}, record {record_id!r}")
            for record_id, metadata, text in zip(batch.ids, batch.metadata, batch.texts, strict=True)
        ]
        request = pack_upsert(
            name,
            batch.ids,
            batch.vectors,
            payloads,
            vector_name=collection.vector_name,
            timeout=self._api.server_timeout,
        )
        if len(request) > MAX_MESSAGE:
            raise BatchTooLarge(f"index {name}: {len(request)} bytes in one write; this store takes {MAX_MESSAGE}")
        answer = await self._on_server("Points/Upsert", request, grpc.PointsOperationResponse, name=name, writes=True)
        _check_stored(answer, name)

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The records that exist, by id. Raises NotFound for the index."""
        found: dict[str, Record] = {}
        points = _point_ids(ids)
        size = await self._page(name, RECORDS_PAGE, vectors=vectors)
        for start in range(0, len(points), size):
            request = grpc.GetPoints(
                collection_name=name,
                ids=points[start : start + size],
                with_payload=grpc.WithPayloadSelector(enable=metadata),
                with_vectors=grpc.WithVectorsSelector(enable=vectors),
                timeout=self._api.server_timeout,
            )
            answer = await self._on_server("Points/Get", request, grpc.GetResponse)
            for point in answer.result:
                record = _record(point, vectors=vectors, metadata=metadata)
                found[record.id] = record
        return {record_id: found[record_id] for record_id in dict.fromkeys(ids) if record_id in found}

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The nearest, by the collection's graph where it has one. Raises NotFound, Terminal."""
        asked = np.ascontiguousarray(vector, np.float32)
        collection = await self._recent(name)
        if collection.dimension != len(asked):
            collection = await self._resolve(name)
        _check_single(collection)
        check_query(asked, top_k, index=name, dimension=collection.dimension or 0, metric=collection.metric or "")
        clause = await self._translated(name, where)
        if clause is False:
            return []
        request = grpc.QueryPoints(
            collection_name=name,
            query=grpc.Query(nearest=grpc.VectorInput(dense=grpc.DenseVector(data=asked.tolist()))),
            using=collection.vector_name,
            filter=None if clause is True else clause,
            limit=top_k,
            with_payload=grpc.WithPayloadSelector(enable=True),
            with_vectors=grpc.WithVectorsSelector(enable=vectors),
            timeout=self._api.server_timeout,
        )
        answer = await self._on_server("Points/Query", request, grpc.QueryResponse)
        # The server gives distances as they are, nearest first; here higher is nearer.
        sign = 1.0 if collection.metric in {"cosine", "dotproduct"} else -1.0
        return [Match(_record(point, vectors=vectors), sign * point.score) for point in answer.result]

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete records; ids that no point can have are fine. Raises NotFound for the index."""
        points = _point_ids(ids)
        if not points:
            await self._recent(name)
        for start in range(0, len(points), DELETE_PAGE):
            await self._delete(name, points=grpc.PointsIdsList(ids=points[start : start + DELETE_PAGE]))

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all records that match. Raises NotFound for the index, Terminal."""
        clause = await self._translated(name, where)
        if clause is not False:
            await self._delete(name, filter=grpc.Filter() if clause is True else clause)

    async def _delete(self, name: str, **selector: Any) -> None:
        request = grpc.DeletePoints(
            collection_name=name,
            points=grpc.PointsSelector(**selector),
            wait=True,
            timeout=self._api.server_timeout,
        )
        _check_stored(await self._on_server("Points/Delete", request, grpc.PointsOperationResponse), name)

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """Records in pages, in the order of their ids, as they are when read. Raises NotFound, Terminal."""
        clause = await self._translated(name, where)
        size = await self._page(name, RECORDS_PAGE if metadata else IDS_PAGE, vectors=vectors)
        request = grpc.ScrollPoints(
            collection_name=name,
            filter=clause if isinstance(clause, grpc.Filter) else None,
            limit=max(1, min(page, size)),
            with_payload=grpc.WithPayloadSelector(enable=metadata),
            with_vectors=grpc.WithVectorsSelector(enable=vectors),
            timeout=self._api.server_timeout,
        )
        more = clause is not False
        while more:
            answer = await self._on_server("Points/Scroll", request, grpc.ScrollResponse)
            if answer.result:
                yield [_record(point, vectors=vectors, metadata=metadata) for point in answer.result]
            more = answer.HasField("next_page_offset")
            request.offset.CopyFrom(answer.next_page_offset)

    async def _translated(self, name: str, where: Filter | None) -> Translated:
        """A filter by what is known of the index, and once more by what is true now where that refuses it."""
        known = await self._recent(name)
        if where is None:
            return True
        try:
            return translate(where, known.types)
        except Terminal:
            fresh = await self._resolve(name)
            return translate(where, fresh.types)

    async def _page(self, name: str, most: int, *, vectors: bool) -> int:
        """Points in one answer, so that it stays small with vectors."""
        if not vectors:
            return most
        return max(1, min(most, VALUES_PAGE // ((await self._recent(name)).dimension or 1_024)))


def _check_single(collection: Collection) -> None:
    if collection.vector is None:
        raise Terminal(
            f"index {collection.name}: the collection has several vectors a point, or none; Vectorwright uses those "
            "with one",
            reason="UnsupportedCollection",
        )


def _check_id(record_id: str, index: str) -> None:
    try:
        number_of(record_id)
    except ValueError:
        raise BatchRejected(
            f"index {index}: id {record_id[:64]!r} is neither a UUID (lower case, hyphens) nor an integer of 64 bits"
        ) from None


def _check_stored(answer: grpc.PointsOperationResponse, name: str) -> None:
    """Raise Retryable where a change waits to be done: the server may answer so when its own timeout is over."""
    status = answer.result.status
    if status != grpc.UpdateStatus.Completed:
        raise Retryable(
            f"index {name}: Qdrant did not confirm in time that a change is stored ({grpc.UpdateStatus.Name(status)})",
            reason="Timeout",
        )


def _point_ids(ids: Iterable[str]) -> list[grpc.PointId]:
    """Ids of points; what can be none is left out."""
    found = []
    for record_id in dict.fromkeys(ids):
        try:
            number = number_of(record_id)
        except ValueError:
            continue
        found.append(grpc.PointId(uuid=record_id) if number is None else grpc.PointId(num=number))
    return found


def _record(point: grpc.RetrievedPoint | grpc.ScoredPoint, *, vectors: bool, metadata: bool = True) -> Record:
    record_id = point.id.uuid or str(point.id.num)
    values, text = decode(_plain_map(point.payload)) if metadata else ({}, None)
    return Record(record_id, values, text, _vector(point.vectors) if vectors else None)


def _vector(vectors: grpc.VectorsOutput) -> Vectors | None:
    if vectors.HasField("vector"):
        found = vectors.vector
    elif len(vectors.vectors.vectors) == 1:
        (found,) = vectors.vectors.vectors.values()
    else:
        return None
    # Servers before 1.16 fill the older field only.
    return np.array(found.dense.data if found.HasField("dense") else found.data, np.float32)


def _plain_map(entries: Mapping[str, grpc.Value]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in entries.items()}


def _plain(value: grpc.Value) -> Any:
    kind = value.WhichOneof("kind")
    match kind:
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case "struct_value":
            return _plain_map(value.struct_value.fields)
        case "null_value" | None:
            return None
    return getattr(value, kind)


def open_store(connection: Connection) -> Store:
    """A Qdrant server; no request is made yet. Raises Terminal where the CA bundle or a credential is unusable."""
    return QdrantStore(connection)
