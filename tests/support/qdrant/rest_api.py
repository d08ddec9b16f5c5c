"""The double's REST API: JSON in and out of the messages of the gRPC API, by the SDK's own conversions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter, ValidationError
from qdrant_client import grpc
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.http import models
from tests.support.loopback_http import Request, Response
from tests.support.qdrant.errors import QdrantError
from tests.support.qdrant.values import message

Call = Callable[[str, Any, Mapping[str, str]], Any]
"""(method, message, headers) → answer. Raises QdrantError."""


class RestApi:
    """Answers requests. ``limit`` is the largest body in bytes."""

    def __init__(self, call: Call, version: Callable[[], str], limit: int) -> None:
        self._call = call
        self._version = version
        self._limit = limit

    def answer(self, request: Request) -> Response:
        """One request."""
        path = urlsplit(request.path).path
        if path in {"/healthz", "/livez", "/readyz"}:
            return Response(b"healthz check passed", headers={"Content-Type": "text/plain"})
        try:
            if path == "/":
                return _json({"title": "qdrant - vector search engine", "version": self._version(), "commit": ""})
            if len(request.body) > self._limit:
                return _json({"status": {"error": "Payload error: A payload reached size limit."}, "time": 0.0}, 413)
            for method, pattern, route in _ROUTES:
                found = re.fullmatch(pattern, path)
                if found and method == request.method:
                    names = [unquote(part) for part in found.groups()]
                    return _json({"result": self._answer(route, request, names), "status": "ok", "time": 0.0})
        except QdrantError as error:
            if error.at_the_door:
                return Response(error.said.encode(), error.http, {"Content-Type": "text/plain"})
            return _json({"status": {"error": error.said}, "time": 0.0}, error.http)
        except (ValidationError, ValueError, KeyError, TypeError):
            said = "Format error in JSON body: data did not match the expected form"
            return _json({"status": {"error": said}, "time": 0.0}, 400)
        return Response(b"", 404)

    def _answer(self, route: _Route, request: Request, names: list[str]) -> Any:
        body = json.loads(request.body) if request.body else {}
        method, asked = route(body, *names)
        answer = self._call(method, asked, request.headers)
        return _RESULTS[type(answer)](answer)


_Route = Callable[..., tuple[str, Any]]


def _json(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body).encode(), status, {"Content-Type": "application/json"})


def _read(model: Any, body: Any) -> Any:
    return TypeAdapter(model).validate_python(body)


def _create(body: Any, name: str) -> tuple[str, Any]:
    given = _read(models.CreateCollection, body)
    made = grpc.CreateCollection(collection_name=name, vectors_config=RestToGrpc.convert_vectors_config(given.vectors))
    for key in ("shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload"):
        if (value := getattr(given, key)) is not None:
            setattr(made, key, value)
    if given.hnsw_config is not None:
        made.hnsw_config.CopyFrom(RestToGrpc.convert_hnsw_config_diff(given.hnsw_config))
    if given.optimizers_config is not None:
        made.optimizers_config.CopyFrom(RestToGrpc.convert_optimizers_config_diff(given.optimizers_config))
    if given.quantization_config is not None:
        made.quantization_config.CopyFrom(RestToGrpc.convert_quantization_config(given.quantization_config))
    for key, value in (given.metadata or {}).items():
        made.metadata[key].CopyFrom(message(value))
    return "Collections/Create", made


def _update(body: Any, name: str) -> tuple[str, Any]:
    return "Collections/Update", RestToGrpc.convert_update_collection(_read(models.UpdateCollection, body), name)


def _upsert(body: Any, name: str) -> tuple[str, Any]:
    points = [RestToGrpc.convert_point_struct(one) for one in _read(models.PointsList, body).points]
    return "Points/Upsert", grpc.UpsertPoints(collection_name=name, wait=True, points=points)


def _delete(body: Any, name: str) -> tuple[str, Any]:
    selector = RestToGrpc.convert_points_selector(_read(models.PointsSelector, body))
    return "Points/Delete", grpc.DeletePoints(collection_name=name, wait=True, points=selector)


def _selected(given: Any) -> dict[str, Any]:
    """What of a point is asked for."""
    selected: dict[str, Any] = {}
    if given.with_payload is not None:
        selected["with_payload"] = RestToGrpc.convert_with_payload_interface(given.with_payload)
    if given.with_vector is not None:
        selected["with_vectors"] = RestToGrpc.convert_with_vectors(given.with_vector)
    return selected


def _filter(given: Any) -> Any:
    return None if given.filter is None else RestToGrpc.convert_filter(given.filter)


def _retrieve(body: Any, name: str) -> tuple[str, Any]:
    given = _read(models.PointRequest, body)
    ids = [RestToGrpc.convert_extended_point_id(one) for one in given.ids]
    selected = {"with_payload": grpc.WithPayloadSelector(enable=True), **_selected(given)}
    return "Points/Get", grpc.GetPoints(collection_name=name, ids=ids, **selected)


def _count(body: Any, name: str) -> tuple[str, Any]:
    given = _read(models.CountRequest, body)
    return "Points/Count", grpc.CountPoints(collection_name=name, filter=_filter(given), exact=given.exact)


def _scroll(body: Any, name: str) -> tuple[str, Any]:
    given = _read(models.ScrollRequest, body)
    offset = None if given.offset is None else RestToGrpc.convert_extended_point_id(given.offset)
    selected = {"with_payload": grpc.WithPayloadSelector(enable=True), **_selected(given)}
    made = grpc.ScrollPoints(
        collection_name=name, filter=_filter(given), offset=offset, limit=given.limit or 10, **selected
    )
    return "Points/Scroll", made


def _query(body: Any, name: str) -> tuple[str, Any]:
    given = _read(models.QueryRequest, body)
    asked = given.query
    made = grpc.QueryPoints(
        collection_name=name,
        query=grpc.Query(nearest=RestToGrpc.convert_vector_input(getattr(asked, "nearest", asked))),
        using=given.using,
        filter=_filter(given),
        limit=given.limit,
        offset=given.offset,
        **_selected(given),
    )
    return "Points/Query", made


def _create_index(body: Any, name: str) -> tuple[str, Any]:
    kind = body["field_schema"]
    kind = kind["type"] if isinstance(kind, dict) else kind
    made = grpc.CreateFieldIndexCollection(
        collection_name=name,
        field_name=body["field_name"],
        field_type=grpc.FieldType.Value(f"FieldType{kind.capitalize()}"),
        wait=True,
    )
    return "Points/CreateFieldIndex", made


def _aliases(body: Any) -> tuple[str, Any]:
    actions = [RestToGrpc.convert_alias_operations(one) for one in _read(models.ChangeAliasesOperation, body).actions]
    return "Collections/UpdateAliases", grpc.ChangeAliases(actions=actions)


_COLLECTION = r"/collections/([^/]+)"
_ROUTES: tuple[tuple[str, str, _Route], ...] = (
    ("GET", "/collections", lambda _: ("Collections/List", grpc.ListCollectionsRequest())),
    ("GET", "/aliases", lambda _: ("Collections/ListAliases", grpc.ListAliasesRequest())),
    ("POST", "/collections/aliases", _aliases),
    ("GET", _COLLECTION, lambda _, name: ("Collections/Get", grpc.GetCollectionInfoRequest(collection_name=name))),
    ("PUT", _COLLECTION, _create),
    ("PATCH", _COLLECTION, _update),
    ("DELETE", _COLLECTION, lambda _, name: ("Collections/Delete", grpc.DeleteCollection(collection_name=name))),
    (
        "GET",
        _COLLECTION + "/exists",
        lambda _, name: ("Collections/CollectionExists", grpc.CollectionExistsRequest(collection_name=name)),
    ),
    (
        "GET",
        _COLLECTION + "/aliases",
        lambda _, name: ("Collections/ListCollectionAliases", grpc.ListCollectionAliasesRequest(collection_name=name)),
    ),
    ("PUT", _COLLECTION + "/index", _create_index),
    (
        "DELETE",
        _COLLECTION + "/index/([^/]+)",
        lambda _, name, field: (
            "Points/DeleteFieldIndex",
            grpc.DeleteFieldIndexCollection(collection_name=name, field_name=field),
        ),
    ),
    ("PUT", _COLLECTION + "/points", _upsert),
    ("POST", _COLLECTION + "/points", _retrieve),
    ("POST", _COLLECTION + "/points/delete", _delete),
    ("POST", _COLLECTION + "/points/count", _count),
    ("POST", _COLLECTION + "/points/scroll", _scroll),
    ("POST", _COLLECTION + "/points/query", _query),
)


def _dumped(model: Any) -> Any:
    return model.model_dump(mode="json", exclude_none=True)


_RESULTS: Mapping[type[Any], Callable[[Any], Any]] = {
    grpc.ListCollectionsResponse: lambda one: {"collections": [{"name": each.name} for each in one.collections]},
    grpc.ListAliasesResponse: lambda one: {
        "aliases": [_dumped(GrpcToRest.convert_alias_description(each)) for each in one.aliases]
    },
    grpc.GetCollectionInfoResponse: lambda one: _dumped(GrpcToRest.convert_collection_info(one.result)),
    grpc.CollectionExistsResponse: lambda one: {"exists": one.result.exists},
    grpc.CollectionOperationResponse: lambda one: one.result,
    grpc.PointsOperationResponse: lambda one: _dumped(GrpcToRest.convert_update_result(one.result)),
    grpc.GetResponse: lambda one: [_dumped(GrpcToRest.convert_retrieved_point(each)) for each in one.result],
    grpc.CountResponse: lambda one: {"count": one.result.count},
    grpc.ScrollResponse: lambda one: {
        "points": [_dumped(GrpcToRest.convert_retrieved_point(each)) for each in one.result],
        "next_page_offset": GrpcToRest.convert_point_id(one.next_page_offset)
        if one.HasField("next_page_offset")
        else None,
    },
    grpc.QueryResponse: lambda one: {"points": [_dumped(GrpcToRest.convert_scored_point(each)) for each in one.result]},
}
