"""The data plane of the double: records of one index are written, read, searched and deleted."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

from . import filtering
from .holding import Held, Index, Namespace, Records
from .knobs import Knobs
from .refusals import Refusal
from .writing import check_ids, kept, parse_vectors

DEFAULT = "__default__"
MAX_TOP_K = 10_000
MAX_IDS = 1_000
MAX_LIST = 100
Headers = dict[str, str]
Answer = tuple[Any, Headers]


class DataPlane:
    """One index, for the time of one request."""

    def __init__(self, index: Index, knobs: Knobs) -> None:
        self._index = index
        self._knobs = knobs

    def answer(self, method: str, path: str, body: dict[str, Any], parameters: dict[str, list[str]]) -> Answer:
        """(body, headers). Raises Refusal."""
        single = {name: values[0] for name, values in parameters.items()}
        calls: dict[tuple[str, str], Callable[[], Answer]] = {
            ("POST", "/vectors/upsert"): lambda: self._upsert(body),
            ("POST", "/query"): lambda: self._query(body),
            ("GET", "/vectors/fetch"): lambda: self._fetch(parameters.get("ids", []), single),
            ("POST", "/vectors/fetch_by_metadata"): lambda: self._fetch_by_metadata(body),
            ("POST", "/vectors/delete"): lambda: self._delete(body),
            ("POST", "/vectors/update"): lambda: self._update(body),
            ("GET", "/vectors/list"): lambda: self._list(single),
            ("POST", "/describe_index_stats"): self._stats,
        }
        call = calls.get((method, path))
        if call is not None:
            return call()
        if method == "DELETE" and path.startswith("/namespaces/"):
            return self._delete_namespace(path.removeprefix("/namespaces/"))
        raise Refusal(404, f"{method} {path} is not known")

    def _namespace(self, asked: dict[str, Any]) -> tuple[str, Namespace | None]:
        name = asked.get("namespace") or DEFAULT
        return name, self._index.namespaces.get(name)

    def _needed(self, asked: dict[str, Any]) -> Namespace:
        _, namespace = self._namespace(asked)
        if namespace is None:
            raise Refusal(404, "Namespace not found")
        return namespace

    def _written(self, namespace: Namespace, change: Callable[[Records], None]) -> Headers:
        number = namespace.write(change, self._knobs.visible_after)
        return {"x-pinecone-request-lsn": str(number)}

    def _upsert(self, body: dict[str, Any]) -> Answer:
        records = parse_vectors(body.get("vectors"), self._index)
        name, _ = self._namespace(body)
        namespace = self._index.namespaces.setdefault(name, Namespace(self._knobs.clock))
        return {"upsertedCount": len(records)}, self._written(namespace, lambda held: held.update(records))

    def _query(self, body: dict[str, Any]) -> Answer:
        top_k, vector, where = body.get("topK"), body.get("vector"), body.get("filter")
        if not isinstance(top_k, int) or not 1 <= top_k <= MAX_TOP_K:
            raise Refusal(400, f"topK must be between 1 and {MAX_TOP_K}")
        if where is not None:
            filtering.check(where)
        name, namespace = self._namespace(body)
        if vector is None and body.get("id") is not None:
            held = namespace.visible().get(body["id"]) if namespace else None
            vector = None if held is None else held.values
        if vector is None or len(vector) != self._index.dimension:
            told = 0 if vector is None else len(vector)
            raise Refusal(
                400, f"Query vector dimension {told} does not match the dimension of the index {self._index.dimension}"
            )
        matches = [] if namespace is None else self._nearest(namespace, np.asarray(vector, np.float32), top_k, where)
        found = [
            {
                "id": record_id,
                "score": score,
                **self._told(held, values=body.get("includeValues"), metadata=body.get("includeMetadata")),
            }
            for record_id, score, held in matches
        ]
        shown = namespace.shown if namespace else 0
        answer = {"matches": found, "namespace": name, "usage": {"readUnits": 1}}
        return answer, {"x-pinecone-max-indexed-lsn": str(shown)}

    def _nearest(
        self, namespace: Namespace, vector: np.ndarray, top_k: int, where: dict[str, Any] | None
    ) -> list[tuple[str, float, Held]]:
        ids, matrix = namespace.matrix()
        records = namespace.visible()
        rows = np.array(
            [at for at, one in enumerate(ids) if not where or filtering.matches(where, records[one].metadata)]
        )
        if not rows.size:
            return []
        some, asked = matrix[rows].astype(np.float64), vector.astype(np.float64)
        match self._index.metric:
            case "cosine":
                scores = some @ asked / (np.linalg.norm(some, axis=1) * max(np.linalg.norm(asked), 1e-30))
                order = np.argsort(-scores, kind="stable")
            case "dotproduct":
                scores = some @ asked
                order = np.argsort(-scores, kind="stable")
            case _:
                scores = ((some - asked) ** 2).sum(axis=1)
                order = np.argsort(scores, kind="stable")
        return [(ids[rows[at]], float(np.float32(scores[at])), records[ids[rows[at]]]) for at in order[:top_k].tolist()]

    def _told(self, held: Held, *, values: Any = True, metadata: Any = True) -> dict[str, Any]:
        told: dict[str, Any] = {"values": held.values.tolist() if values else []}
        if metadata:
            told["metadata"] = {name: self._number(value) for name, value in held.metadata.items()}
        if values and held.sparse is not None:
            told["sparseValues"] = held.sparse
        return told

    def _number(self, value: Any) -> Any:
        whole = self._knobs.whole_numbers and isinstance(value, float) and value.is_integer() and abs(value) < 2**63
        return int(value) if whole else value

    def _fetch(self, ids: list[str], single: dict[str, str]) -> Answer:
        check_ids(ids, MAX_IDS)
        name, namespace = self._namespace(single)
        records = namespace.visible() if namespace else {}
        vectors = {one: {"id": one, **self._told(records[one])} for one in ids if one in records}
        return {"vectors": vectors, "namespace": name, "usage": {"readUnits": 1}}, {}

    def _fetch_by_metadata(self, body: dict[str, Any]) -> Answer:
        where, limit = body.get("filter"), body.get("limit", 100)
        if not where:
            raise Refusal(400, "Empty filter provided for fetch by metadata request")
        filtering.check(where)
        if not isinstance(limit, int) or not 1 <= limit <= 10_000:
            raise Refusal(400, "limit must be between 1 and 10000")
        name, namespace = self._namespace(body)
        records = namespace.visible() if namespace else {}
        after = _position(body.get("paginationToken"))
        matching = sorted(
            one for one, held in records.items() if one > after and filtering.matches(where, held.metadata)
        )
        page = matching[:limit]
        answer = {
            "vectors": {one: {"id": one, **self._told(records[one])} for one in page},
            "namespace": name,
            "usage": {"readUnits": 1},
        }
        return {**answer, **_following(page, len(matching) > limit)}, {}

    def _list(self, single: dict[str, str]) -> Answer:
        if self._index.deployment["deployment_type"] == "pod":
            raise Refusal(400, "List operation is supported for serverless indexes only")
        limit = int(single.get("limit", str(MAX_LIST)))
        if not 1 <= limit <= MAX_LIST:
            raise Refusal(400, f"limit must be between 1 and {MAX_LIST}")
        name, namespace = self._namespace(single)
        after, prefix = _position(single.get("paginationToken")), single.get("prefix", "")
        records = namespace.visible() if namespace else {}
        ids = sorted(one for one in records if one > after and one.startswith(prefix))
        page = ids[:limit]
        answer = {"vectors": [{"id": one} for one in page], "namespace": name, "usage": {"readUnits": 1}}
        return {**answer, **_following(page, len(ids) > limit)}, {}

    def _delete(self, body: dict[str, Any]) -> Answer:
        ids, where = body.get("ids"), body.get("filter")
        if where is not None:
            if not where:
                raise Refusal(400, "Delete with empty metadata filter is not allowed")
            filtering.check(where)
        elif not body.get("deleteAll"):
            check_ids(ids, MAX_IDS)
        namespace = self._needed(body)

        def change(records: Records) -> None:
            if where is not None:
                gone = [one for one, held in records.items() if filtering.matches(where, held.metadata)]
            else:
                gone = list(records) if body.get("deleteAll") else list(ids or ())
            for one in gone:
                records.pop(one, None)

        return {}, self._written(namespace, change)

    def _update(self, body: dict[str, Any]) -> Answer:
        where = body.get("filter")
        if where is None:
            return self._update_one(body)
        if not where:
            raise Refusal(400, "Update with empty metadata filter is not allowed")
        filtering.check(where)
        namespace = self._needed(body)
        matched = [one for one, held in namespace.visible().items() if filtering.matches(where, held.metadata)]
        if body.get("dryRun"):
            return {"matchedRecords": len(matched)}, {}
        added = kept(body.get("setMetadata") or {})

        def change(records: Records) -> None:
            for one in matched:
                held = records[one]
                records[one] = Held(held.values, {**held.metadata, **added}, held.sparse)

        return {"matchedRecords": len(matched)}, self._written(namespace, change)

    def _update_one(self, body: dict[str, Any]) -> Answer:
        check_ids([body.get("id")], 1)
        values = None if body.get("values") is None else np.asarray(body["values"], np.float32)
        if values is not None and len(values) != self._index.dimension:
            raise Refusal(400, "Vector dimension does not match the dimension of the index")
        added = kept(body.get("setMetadata") or {})

        def change(records: Records) -> None:
            held = records.get(body["id"])
            if held is not None:  # an id that is not there is no error
                new = held.values if values is None else values
                records[body["id"]] = Held(new, {**held.metadata, **added}, held.sparse)

        return {}, self._written(self._needed(body), change)

    def _stats(self) -> Answer:
        counts = self._index.counts(self._knobs)
        return {
            "namespaces": {name: {"vectorCount": count} for name, count in counts.items()},
            "dimension": self._index.dimension,
            "indexFullness": 0.0,
            "totalVectorCount": sum(counts.values()),
            "metric": self._index.metric,
            "vectorType": "dense",
        }, {}

    def _delete_namespace(self, name: str) -> Answer:
        if self._index.namespaces.pop(name, None) is None:
            raise Refusal(404, "Namespace not found")
        return {}, {}


def _position(token: str | None) -> str:
    try:
        return base64.urlsafe_b64decode(token or "").decode()
    except (ValueError, UnicodeDecodeError):
        raise Refusal(400, "Invalid pagination token") from None


def _following(page: list[str], more: bool) -> dict[str, Any]:
    return {"pagination": {"next": base64.urlsafe_b64encode(page[-1].encode()).decode()}} if more else {}
