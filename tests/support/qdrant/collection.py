"""One collection of the double: its configuration, and its points compared one by one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import grpc
from tests.support.qdrant.conditions import Conditions, point_id, point_key
from tests.support.qdrant.errors import bad_request
from tests.support.qdrant.values import message, plain

Array = npt.NDArray[np.float32]
Key = tuple[int, int]
MAX_SIZE = 65_535


@dataclass(slots=True)
class Point:
    """``vectors`` by name; the vector without one is ""."""

    vectors: dict[str, Array]
    payload: dict[str, Any]
    version: int


@dataclass(slots=True)
class StoredCollection:
    """A collection as the server holds it."""

    config: grpc.CollectionConfig
    schema: dict[str, grpc.PayloadSchemaInfo] = field(default_factory=dict)
    points: dict[Key, Point] = field(default_factory=dict)
    operations: int = 0
    ready_at: float = 0.0
    """Monotonic time from which on it takes writes."""
    told_count: int | None = None
    """What ``points_count`` says; None is the truth."""

    @property
    def vectors(self) -> Mapping[str, grpc.VectorParams]:
        """Parameters by name; the vector without one is ""."""
        given = self.config.params.vectors_config
        return {"": given.params} if given.WhichOneof("config") == "params" else given.params_map.map

    @property
    def conditions(self) -> Conditions:
        """What evaluates filters here."""
        kinds = {key: grpc.PayloadSchemaType.Name(info.data_type) for key, info in self.schema.items()}
        return Conditions(kinds)

    def matching(self, where: grpc.Filter) -> Iterator[Key]:
        """Points that fulfil a filter, in no order."""
        conditions = self.conditions
        return (key for key, point in self.points.items() if conditions.matches(where, key, point.payload))

    def upsert(self, points: list[grpc.PointStruct]) -> None:
        """All or none."""
        self.operations += 1
        new = {point_key(point.id): self._read(point) for point in points}
        self.points |= new

    def _read(self, point: grpc.PointStruct) -> Point:
        given = point.vectors
        named = {"": given.vector} if given.HasField("vector") else dict(given.vectors.vectors)
        vectors = {name: self._vector(name, vector) for name, vector in named.items()}
        payload = {key: plain(value) for key, value in point.payload.items()}
        return Point(vectors, payload, self.operations)

    def _vector(self, name: str, vector: grpc.Vector) -> Array:
        parameters = self.vectors.get(name)
        if parameters is None:
            raise bad_request(f"Wrong input: Not existing vector name error: {name}")
        numbers = np.array(vector.dense.data if vector.HasField("dense") else vector.data, np.float32)
        return self.prepared(numbers, parameters)

    @staticmethod
    def prepared(numbers: Array, parameters: grpc.VectorParams) -> Array:
        """A vector as it is stored or asked for: of unit length where directions are compared."""
        if len(numbers) != parameters.size:
            raise bad_request(
                f"Wrong input: Vector dimension error: expected dim: {parameters.size}, got {len(numbers)}"
            )
        length = float(np.linalg.norm(numbers.astype(np.float64)))
        if parameters.distance == grpc.Distance.Cosine and length > 1e-12:
            return (numbers / np.float32(length)).astype(np.float32)
        return numbers

    def search(self, request: grpc.QueryPoints) -> list[grpc.ScoredPoint]:
        """The nearest to a vector, exactly."""
        name = request.using
        parameters = self.vectors.get(name)
        if parameters is None:
            raise bad_request(f"Wrong input: Not existing vector name error: {name}")
        if request.query.WhichOneof("variant") != "nearest" or request.prefetch:
            raise bad_request("the double answers queries for the nearest to one vector only")
        nearest = request.query.nearest
        if nearest.WhichOneof("variant") != "dense":
            raise bad_request("the double answers queries by dense vectors only")
        asked = self.prepared(np.array(nearest.dense.data, np.float32), parameters)
        keys = [key for key in self.matching(request.filter) if name in self.points[key].vectors]
        if not keys:
            return []
        rows = np.stack([self.points[key].vectors[name] for key in keys])
        match parameters.distance:
            case grpc.Distance.Euclid:
                scores, sign = np.linalg.norm(rows - asked, axis=1), 1.0
            case grpc.Distance.Manhattan:
                scores, sign = np.abs(rows - asked).sum(axis=1), 1.0
            case _:
                scores, sign = rows @ asked, -1.0
        limit = int(request.limit if request.HasField("limit") else 10)
        order = np.argsort(sign * scores, kind="stable")[int(request.offset) : int(request.offset) + limit]
        return [
            grpc.ScoredPoint(
                id=point_id(keys[at]),
                payload=self.payload(keys[at], request.with_payload),
                score=float(scores[at]),
                version=self.points[keys[at]].version,
                vectors=self.output(keys[at], request.with_vectors),
            )
            for at in order
        ]

    def scroll(self, request: grpc.ScrollPoints) -> tuple[list[grpc.RetrievedPoint], grpc.PointId | None]:
        """A page in the order of ids, and the id that the next one begins with."""
        start = point_key(request.offset) if request.HasField("offset") else (0, 0)
        limit = int(request.limit if request.HasField("limit") else 10)
        if limit < 1:
            raise bad_request("Validation error in body: [limit: value 0 invalid, must be 1 or larger]")
        page = heapq.nsmallest(limit + 1, (key for key in self.matching(request.filter) if key >= start))
        found = [self.retrieved(key, request.with_payload, request.with_vectors) for key in page[:limit]]
        return found, point_id(page[limit]) if len(page) > limit else None

    def retrieved(
        self, key: Key, with_payload: grpc.WithPayloadSelector, with_vectors: grpc.WithVectorsSelector
    ) -> grpc.RetrievedPoint:
        """A point as it is read."""
        return grpc.RetrievedPoint(
            id=point_id(key), payload=self.payload(key, with_payload), vectors=self.output(key, with_vectors)
        )

    def payload(self, key: Key, selector: grpc.WithPayloadSelector) -> dict[str, grpc.Value]:
        """What of a payload was asked for."""
        payload = self.points[key].payload
        match selector.WhichOneof("selector_options"):
            case "include":
                kept = {name for name in payload if name in selector.include.fields}
            case "exclude":
                kept = {name for name in payload if name not in selector.exclude.fields}
            case _:
                kept = set(payload) if selector.enable else set()
        return {name: message(payload[name]) for name in payload if name in kept}

    def output(self, key: Key, selector: grpc.WithVectorsSelector) -> grpc.VectorsOutput | None:
        """What of a point's vectors was asked for."""
        vectors = self.points[key].vectors
        if selector.WhichOneof("selector_options") == "include":
            vectors = {name: vector for name, vector in vectors.items() if name in selector.include.names}
        elif not selector.enable:
            return None
        given = {
            name: grpc.VectorOutput(dense=grpc.DenseVector(data=vector.tolist())) for name, vector in vectors.items()
        }
        if list(given) == [""]:
            return grpc.VectorsOutput(vector=given[""])
        return grpc.VectorsOutput(vectors=grpc.NamedVectorsOutput(vectors=given))

    def info(self, status: Any) -> grpc.CollectionInfo:
        """What the server tells of it."""
        for key, info in self.schema.items():
            info.points = sum(key in point.payload for point in self.points.values())
        return grpc.CollectionInfo(
            status=status,
            optimizer_status=grpc.OptimizerStatus(ok=True),
            segments_count=2,
            config=self.config,
            payload_schema=self.schema,
            points_count=len(self.points) if self.told_count is None else self.told_count,
            indexed_vectors_count=0,
        )
