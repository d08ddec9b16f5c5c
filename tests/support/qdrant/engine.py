"""The requests of Qdrant's gRPC API, answered from memory. Its REST API comes here, too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from qdrant_client import grpc
from tests.support.double_clock import DoubleClock
from tests.support.qdrant.access import Access
from tests.support.qdrant.collection import MAX_SIZE, StoredCollection
from tests.support.qdrant.conditions import point_key
from tests.support.qdrant.errors import (
    QdrantError,
    already_exists,
    bad_request,
    not_found,
    unavailable,
)
from tests.support.qdrant.values import path

VERSION = "1.18.0"
_SCHEMA = {
    grpc.FieldType.FieldTypeKeyword: grpc.PayloadSchemaType.Keyword,
    grpc.FieldType.FieldTypeInteger: grpc.PayloadSchemaType.Integer,
    grpc.FieldType.FieldTypeFloat: grpc.PayloadSchemaType.Float,
    grpc.FieldType.FieldTypeGeo: grpc.PayloadSchemaType.Geo,
    grpc.FieldType.FieldTypeText: grpc.PayloadSchemaType.Text,
    grpc.FieldType.FieldTypeBool: grpc.PayloadSchemaType.Bool,
    grpc.FieldType.FieldTypeDatetime: grpc.PayloadSchemaType.Datetime,
    grpc.FieldType.FieldTypeUuid: grpc.PayloadSchemaType.Uuid,
}
_NAME_FORBIDS = frozenset('<>:"/\\|?*\0\x1f')

Answer = Callable[[Any, Access], Any]


class QdrantEngine:
    """What a server knows. ``version`` is what it says of itself; before 1.16 there is no metadata of collections."""

    def __init__(self, version: str = VERSION) -> None:
        self.version = version
        self.clock = DoubleClock()
        self.not_ready_for = 0.0
        """Seconds that a new collection takes no writes."""
        self.collections: dict[str, StoredCollection] = {}
        self.aliases: dict[str, str] = {}
        self._guard = threading.RLock()
        self.methods: Mapping[str, tuple[type[Any], Answer]] = {
            "Qdrant/HealthCheck": (grpc.HealthCheckRequest, self._health),
            "Collections/List": (grpc.ListCollectionsRequest, self._list),
            "Collections/Get": (grpc.GetCollectionInfoRequest, self._get),
            "Collections/CollectionExists": (grpc.CollectionExistsRequest, self._exists),
            "Collections/Create": (grpc.CreateCollection, self._create),
            "Collections/Update": (grpc.UpdateCollection, self._update),
            "Collections/Delete": (grpc.DeleteCollection, self._drop),
            "Collections/ListAliases": (grpc.ListAliasesRequest, self._list_aliases),
            "Collections/ListCollectionAliases": (grpc.ListCollectionAliasesRequest, self._list_aliases),
            "Collections/UpdateAliases": (grpc.ChangeAliases, self._change_aliases),
            "Points/CreateFieldIndex": (grpc.CreateFieldIndexCollection, self._create_index),
            "Points/DeleteFieldIndex": (grpc.DeleteFieldIndexCollection, self._delete_index),
            "Points/Upsert": (grpc.UpsertPoints, self._upsert),
            "Points/Delete": (grpc.DeletePoints, self._delete),
            "Points/Get": (grpc.GetPoints, self._retrieve),
            "Points/Count": (grpc.CountPoints, self._count),
            "Points/Scroll": (grpc.ScrollPoints, self._scroll),
            "Points/Query": (grpc.QueryPoints, self._query),
        }

    def answer(self, method: str, request: Any, access: Access) -> Any:
        """Raises QdrantError."""
        if method not in self.methods:
            raise QdrantError(grpc_code="UNIMPLEMENTED", http=404, said=f"the double does not know {method}")
        with self._guard:
            return self.methods[method][1](request, access)

    def value_exists(self, collection: str, matches: list[tuple[str, Any]]) -> bool:
        """Whether a point has all the values, each given with its key. Raises QdrantError without the collection."""
        where = grpc.Filter(must=[_equals(key, value) for key, value in matches])
        with self._guard:
            real = self.aliases.get(collection, collection)
            if real not in self.collections:
                raise not_found(collection)
            return any(True for _ in self.collections[real].matching(where))

    def empty(self) -> None:
        """Drop everything."""
        with self._guard:
            self.collections.clear()
            self.aliases.clear()
            self.not_ready_for = 0.0

    def _collection(self, request: Any, access: Access, *, writes: bool) -> StoredCollection:
        name = str(request.collection_name)
        real = self.aliases.get(name, name)
        access.check(real, writes=writes)
        if real not in self.collections:
            raise not_found(name)
        collection = self.collections[real]
        if writes and self.clock.monotonic() < collection.ready_at:
            raise unavailable("The replica set for shard 0 on peer 0 has no active replica")
        return collection

    def _health(self, _: grpc.HealthCheckRequest, __: Access) -> grpc.HealthCheckReply:
        return grpc.HealthCheckReply(title="qdrant - vector search engine", version=self.version)

    def _list(self, _: grpc.ListCollectionsRequest, access: Access) -> grpc.ListCollectionsResponse:
        names = [name for name in self.collections if access.sees(name)]
        return grpc.ListCollectionsResponse(collections=[grpc.CollectionDescription(name=name) for name in names])

    def _get(self, request: grpc.GetCollectionInfoRequest, access: Access) -> grpc.GetCollectionInfoResponse:
        collection = self._collection(request, access, writes=False)
        ready = self.clock.monotonic() >= collection.ready_at
        status = grpc.CollectionStatus.Green if ready else grpc.CollectionStatus.Red
        return grpc.GetCollectionInfoResponse(result=collection.info(status))

    def _exists(self, request: grpc.CollectionExistsRequest, access: Access) -> grpc.CollectionExistsResponse:
        access.check(request.collection_name, writes=False)
        exists = self.aliases.get(request.collection_name, request.collection_name) in self.collections
        return grpc.CollectionExistsResponse(result=grpc.CollectionExists(exists=exists))

    def _create(self, request: grpc.CreateCollection, access: Access) -> grpc.CollectionOperationResponse:
        access.check(None, writes=True)
        name = request.collection_name
        if not 1 <= len(name) <= 255 or _NAME_FORBIDS & set(name):
            raise bad_request(f"Validation error in body: [collection_name: {name!r} is no name]")
        if name in self.collections:
            raise already_exists(name)
        if name in self.aliases:
            raise bad_request(
                f"Wrong input: Can't create collection with name {name}. Alias with the same name already exists"
            )
        config = grpc.CollectionConfig()
        vectors = request.vectors_config
        each = [vectors.params] if vectors.HasField("params") else list(vectors.params_map.map.values())
        for parameters in each:
            if not 1 <= parameters.size <= MAX_SIZE or parameters.distance == grpc.Distance.UnknownDistance:
                raise bad_request(f"Validation error in body: [vectors.size: value {parameters.size} invalid]")
        config.params.shard_number = request.shard_number or 1
        config.params.replication_factor = request.replication_factor or 1
        config.params.write_consistency_factor = request.write_consistency_factor or 1
        config.params.on_disk_payload = request.on_disk_payload if request.HasField("on_disk_payload") else True
        config.params.vectors_config.CopyFrom(vectors)
        config.hnsw_config.MergeFrom(
            grpc.HnswConfigDiff(
                m=16, ef_construct=100, full_scan_threshold=10_000, max_indexing_threads=0, on_disk=False
            )
        )
        config.hnsw_config.MergeFrom(request.hnsw_config)
        config.optimizer_config.MergeFrom(
            grpc.OptimizersConfigDiff(
                deleted_threshold=0.2,
                vacuum_min_vector_number=1000,
                default_segment_number=0,
                indexing_threshold=10_000,
                flush_interval_sec=5,
            )
        )
        config.optimizer_config.MergeFrom(request.optimizers_config)
        config.wal_config.MergeFrom(grpc.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0))
        if request.HasField("quantization_config"):
            config.quantization_config.CopyFrom(request.quantization_config)
        self._merge_metadata(config, request.metadata)
        self.collections[name] = StoredCollection(config, ready_at=self.clock.monotonic() + self.not_ready_for)
        return grpc.CollectionOperationResponse(result=True)

    def _merge_metadata(self, config: grpc.CollectionConfig, given: Mapping[str, grpc.Value]) -> None:
        if tuple(map(int, self.version.split(".")[:2])) < (1, 16):
            return
        for key, value in given.items():
            if value.WhichOneof("kind") == "null_value":
                config.metadata.pop(key, None)
            else:
                config.metadata[key].CopyFrom(value)

    def _update(self, request: grpc.UpdateCollection, access: Access) -> grpc.CollectionOperationResponse:
        if request.collection_name in self.aliases:
            raise not_found(request.collection_name)  # changes take the name itself
        access.check(request.collection_name, writes=True, manages=True)
        config = self._collection(request, access, writes=True).config
        config.optimizer_config.MergeFrom(request.optimizers_config)
        config.hnsw_config.MergeFrom(request.hnsw_config)
        config.params.MergeFrom(grpc.CollectionParams.FromString(b""))
        for name in ("replication_factor", "write_consistency_factor", "on_disk_payload"):
            if request.params.HasField(name):
                setattr(config.params, name, getattr(request.params, name))
        _change_quantization(config, request.quantization_config)
        diffs = request.vectors_config
        each = {"": diffs.params} if diffs.HasField("params") else dict(diffs.params_map.map)
        for name, diff in each.items():
            present = config.params.vectors_config
            parameters = present.params if present.HasField("params") else present.params_map.map[name]
            if diff.HasField("on_disk"):
                parameters.on_disk = diff.on_disk
            if diff.HasField("hnsw_config"):
                parameters.hnsw_config.MergeFrom(diff.hnsw_config)
            _change_quantization(parameters, diff.quantization_config)
        self._merge_metadata(config, request.metadata)
        return grpc.CollectionOperationResponse(result=True)

    def _drop(self, request: grpc.DeleteCollection, access: Access) -> grpc.CollectionOperationResponse:
        access.check(None, writes=True)
        name = request.collection_name
        self.aliases = {alias: target for alias, target in self.aliases.items() if target != name}
        return grpc.CollectionOperationResponse(result=self.collections.pop(name, None) is not None)

    def _list_aliases(self, request: Any, access: Access) -> grpc.ListAliasesResponse:
        of = getattr(request, "collection_name", None)
        found = [
            grpc.AliasDescription(alias_name=alias, collection_name=target)
            for alias, target in self.aliases.items()
            if access.sees(target) and of in {None, target}
        ]
        return grpc.ListAliasesResponse(aliases=found)

    def _change_aliases(self, request: grpc.ChangeAliases, access: Access) -> grpc.CollectionOperationResponse:
        access.check(None, writes=True)
        changed = dict(self.aliases)
        for action in request.actions:
            match action.WhichOneof("action"):
                case "create_alias":
                    wanted = action.create_alias
                    if wanted.collection_name not in self.collections:
                        raise not_found(wanted.collection_name)
                    if wanted.alias_name in self.collections:
                        raise already_exists(wanted.alias_name)
                    changed[wanted.alias_name] = wanted.collection_name
                case "delete_alias":
                    changed.pop(action.delete_alias.alias_name, None)
                case "rename_alias":
                    old = action.rename_alias.old_alias_name
                    if old not in changed:
                        raise QdrantError(
                            grpc_code="NOT_FOUND", http=404, said=f"Not found: Alias {old} does not exists!"
                        )
                    changed[action.rename_alias.new_alias_name] = changed.pop(old)
        self.aliases = changed
        return grpc.CollectionOperationResponse(result=True)

    def _create_index(self, request: grpc.CreateFieldIndexCollection, access: Access) -> grpc.PointsOperationResponse:
        collection = self._collection(request, access, writes=True)
        try:
            path(request.field_name)
        except ValueError:
            raise bad_request(f"Wrong input: invalid JSON path {request.field_name}") from None
        kind = _SCHEMA[request.field_type]
        collection.schema[request.field_name] = grpc.PayloadSchemaInfo(data_type=kind, points=0)
        return _done(collection)

    def _delete_index(self, request: grpc.DeleteFieldIndexCollection, access: Access) -> grpc.PointsOperationResponse:
        collection = self._collection(request, access, writes=True)
        collection.schema.pop(request.field_name, None)
        return _done(collection)

    def _upsert(self, request: grpc.UpsertPoints, access: Access) -> grpc.PointsOperationResponse:
        collection = self._collection(request, access, writes=True)
        collection.upsert(list(request.points))
        return _done(collection)

    def _delete(self, request: grpc.DeletePoints, access: Access) -> grpc.PointsOperationResponse:
        collection = self._collection(request, access, writes=True)
        match request.points.WhichOneof("points_selector_one_of"):
            case "points":
                keys = [point_key(point) for point in request.points.points.ids]
            case "filter":
                keys = list(collection.matching(request.points.filter))
            case _:
                raise bad_request("PointsSelector is missing")
        for key in keys:
            collection.points.pop(key, None)
        collection.operations += 1
        return _done(collection)

    def _retrieve(self, request: grpc.GetPoints, access: Access) -> grpc.GetResponse:
        collection = self._collection(request, access, writes=False)
        keys = [key for key in map(point_key, request.ids) if key in collection.points]
        found = [collection.retrieved(key, request.with_payload, request.with_vectors) for key in keys]
        return grpc.GetResponse(result=found)

    def _count(self, request: grpc.CountPoints, access: Access) -> grpc.CountResponse:
        collection = self._collection(request, access, writes=False)
        return grpc.CountResponse(result=grpc.CountResult(count=sum(1 for _ in collection.matching(request.filter))))

    def _scroll(self, request: grpc.ScrollPoints, access: Access) -> grpc.ScrollResponse:
        found, following = self._collection(request, access, writes=False).scroll(request)
        return grpc.ScrollResponse(result=found, next_page_offset=following)

    def _query(self, request: grpc.QueryPoints, access: Access) -> grpc.QueryResponse:
        return grpc.QueryResponse(result=self._collection(request, access, writes=False).search(request))


def _equals(key: str, value: Any) -> grpc.Condition:
    kind = "boolean" if isinstance(value, bool) else "integer" if isinstance(value, int) else "keyword"
    return grpc.Condition(field=grpc.FieldCondition(key=key, match=grpc.Match(**{kind: value})))


def _done(collection: StoredCollection) -> grpc.PointsOperationResponse:
    result = grpc.UpdateResult(operation_id=collection.operations, status=grpc.UpdateStatus.Completed)
    return grpc.PointsOperationResponse(result=result)


def _change_quantization(holder: Any, diff: grpc.QuantizationConfigDiff) -> None:
    kind = diff.WhichOneof("quantization")
    if kind == "disabled":
        holder.ClearField("quantization_config")
    elif kind is not None:
        holder.quantization_config.CopyFrom(grpc.QuantizationConfig(**{kind: getattr(diff, kind)}))
