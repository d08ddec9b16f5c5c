"""A collection in which each valid token has a point: Qdrant looks for it whenever the token is shown.

The point of a token has its name and a random mark. A token that is made again under a name has another mark, so that
the one before it is no longer valid. What is deleted is deleted by name: whoever may write to the collection can copy a
point, but not keep a token alive with the copy.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.message import Message

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal
from vectorwright.kube.tenure import process_tenure
from vectorwright.stores.base import OwnershipMark
from vectorwright.stores.qdrant.messages import grpc
from vectorwright.stores.qdrant.transport import QdrantApi

NAME = "key_id"
MARK = "mark"
OWNER = "owner"
EXPIRES = "expires_at"
_INDEXED = (NAME, MARK, OWNER)
"""Servers in strict mode filter by indexed fields only."""
REPLICAS = 3
"""Of a collection that is made here, so that tokens are taken while a node is away. A server that is alone has one."""
_POINTS = uuid.UUID("5b1f3a0e-9a53-4d0b-9d6e-6f1d7d1c2f80")
"""Namespace of the ids of points (RFC 9562, version 5)."""
_PAGE = 1_000

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True)
class Entry:
    """A token that is valid, as its point tells."""

    name: str
    mark: str
    expires: datetime


def conditions(name: str, mark: str) -> list[dict[str, str]]:
    """What a token's point has, as the ``matches`` of ``value_exists``."""
    return [{"key": NAME, "value": name}, {"key": MARK, "value": mark}]


class RevocationList:
    """The collection, as one resource uses it. Several may share it."""

    def __init__(self, api: QdrantApi, timeout: float, collection: str, owner: OwnershipMark) -> None:
        self._api = api
        self._timeout = timeout
        self.collection = collection
        self._owner = str(owner)

    async def check(self) -> None:
        """Raise Terminal (``InvalidSpec``) where the collection exists and cannot hold such points."""
        with contextlib.suppress(NotFound):
            await self._shape()

    async def add(self, entry: Entry) -> None:
        """Write the point of a token, in place of what was there under its name. Makes the collection when missing.

        Raises Terminal, Retryable.
        """
        point = grpc.PointStruct(
            id=grpc.PointId(uuid=str(uuid.uuid5(_POINTS, entry.name))),
            vectors=grpc.Vectors(
                vector=grpc.Vector(dense=grpc.DenseVector(data=[1.0] + [0.0] * (await self._ready() - 1)))
            ),
            payload={
                NAME: _text(entry.name),
                MARK: _text(entry.mark),
                OWNER: _text(self._owner),
                EXPIRES: _text(entry.expires.astimezone(UTC).isoformat()),
            },
        )
        request = grpc.UpsertPoints(
            collection_name=self.collection, wait=True, points=[point], timeout=self._api.server_timeout
        )
        await self._change_points("Points/Upsert", request)

    async def remove(self, name: str) -> None:
        """Delete every point of that name; fine when there is none, or no collection. Raises Terminal, Retryable."""
        request = grpc.DeletePoints(
            collection_name=self.collection,
            points=grpc.PointsSelector(filter=_having(NAME, name)),
            wait=True,
            timeout=self._api.server_timeout,
        )
        with contextlib.suppress(NotFound):
            await self._change_points("Points/Delete", request)

    async def names(self) -> list[str]:
        """Names of this resource's tokens, each once; none where there is no collection. Raises Terminal, Retryable."""
        request = grpc.ScrollPoints(
            collection_name=self.collection,
            filter=_having(OWNER, self._owner),
            limit=_PAGE,
            with_payload=grpc.WithPayloadSelector(include=grpc.PayloadIncludeSelector(fields=[NAME])),
            with_vectors=grpc.WithVectorsSelector(enable=False),
            timeout=self._api.server_timeout,
        )
        found: dict[str, None] = {}
        more = True
        while more:
            try:
                answer = await self._api.call("Points/Scroll", request, grpc.ScrollResponse)
            except NotFound:
                return []
            found |= {point.payload[NAME].string_value: None for point in answer.result if NAME in point.payload}
            more = answer.HasField("next_page_offset")
            request.offset.CopyFrom(answer.next_page_offset)
        return list(found)

    async def _ready(self) -> int:
        """Numbers in a vector of the collection, which is there and indexed afterwards."""
        try:
            dimension, indexed = await self._shape()
        except NotFound:
            await self._make()
            dimension, indexed = await self._shape()
        for field in set(_INDEXED) - set(indexed):
            request = grpc.CreateFieldIndexCollection(
                collection_name=self.collection,
                field_name=field,
                field_type=grpc.FieldType.FieldTypeKeyword,
                wait=True,
                timeout=self._api.server_timeout,
            )
            await self._change("Points/CreateFieldIndex", request, grpc.PointsOperationResponse)
        return dimension

    async def _shape(self) -> tuple[int, Sequence[str]]:
        """Numbers in a vector, and the fields that are indexed. Raises NotFound, Terminal, Retryable."""
        request = grpc.GetCollectionInfoRequest(collection_name=self.collection)
        info = (await self._api.call("Collections/Get", request, grpc.GetCollectionInfoResponse)).result
        vectors = info.config.params.vectors_config
        if not vectors.HasField("params"):
            raise Terminal(
                f"collection {self.collection} has named vectors, or none: choose another name for "
                "spec.identity.qdrantToken.revocationCollection, and it is made",
                reason="InvalidSpec",
            )
        return int(vectors.params.size), list(info.payload_schema)

    async def _make(self) -> None:
        smallest = grpc.VectorParams(size=1, distance=grpc.Distance.Dot)
        request = grpc.CreateCollection(
            collection_name=self.collection,
            vectors_config=grpc.VectorsConfig(params=smallest),
            hnsw_config=grpc.HnswConfigDiff(m=0),
            shard_number=1,
            replication_factor=REPLICAS,
            timeout=self._api.server_timeout,
        )
        with contextlib.suppress(Conflict):  # another resource was faster
            await self._change("Collections/Create", request, grpc.CollectionOperationResponse)

    async def _change_points(self, method: str, request: Any) -> None:
        answer = await self._change(method, request, grpc.PointsOperationResponse)
        if answer.result.status != grpc.UpdateStatus.Completed:
            raise Retryable(
                f"collection {self.collection}: Qdrant did not confirm in time that a change is stored",
                reason="Timeout",
            )

    async def _change(self, method: str, request: Any, answer: type[Answer]) -> Answer:
        """A call that changes something: it ends within the tenure."""
        left = process_tenure().require()
        shorter = 0.0 if left is None else min(0.0, left - self._timeout)
        return await self._api.call(method, request, answer, longer=shorter)


def _text(value: str) -> grpc.Value:
    return grpc.Value(string_value=value)


def _having(field: str, value: str) -> grpc.Filter:
    return grpc.Filter(must=[grpc.Condition(field=grpc.FieldCondition(key=field, match=grpc.Match(keyword=value)))])
