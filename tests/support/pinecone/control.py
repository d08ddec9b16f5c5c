"""The control plane of the double: indexes are made, listed, told, changed and deleted."""

from __future__ import annotations

import re
from typing import Any

from .holding import Index
from .knobs import Knobs
from .refusals import Refusal

MAX_DIMENSION = 20_000
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?")
_TAG_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TAG_VALUE = re.compile(r"[\x20-\x7e]{0,120}")
_METRICS = {"cosine", "dotproduct", "euclidean"}
_PODS = re.compile(r"(s1|p1|p2)\.x(1|2|4|8)")
_CLOUDS = {"aws", "gcp", "azure"}


class ControlPlane:
    """The indexes of one project. ``at`` of an answer is where data planes are reached, without a scheme."""

    def __init__(self, project: str, knobs: Knobs) -> None:
        self.project = project
        self.indexes: dict[str, Index] = {}
        self._knobs = knobs

    def answer(self, method: str, path: str, body: dict[str, Any], at: str) -> tuple[int, Any]:
        """(status, body). Raises Refusal."""
        self._forget_what_is_gone()
        parts = path.strip("/").split("/")
        if parts[0] != "indexes" or len(parts) > 2:
            raise Refusal(404, f"{method} {path} is not known")
        match (method, len(parts)):
            case ("GET", 1):
                return 200, {"indexes": [self._told(index, at) for index in self.indexes.values()]}
            case ("POST", 1):
                return 201, self._told(self._create(body), at)
        index = self._index(parts[1])
        match method:
            case "GET":
                return 200, self._told(index, at)
            case "PATCH":
                return 200, self._told(self._configure(index, body), at)
            case "DELETE":
                self._delete(index)
                return 202, {}
        raise Refusal(404, f"{method} {path} is not known")

    def _forget_what_is_gone(self) -> None:
        now = self._knobs.clock.monotonic()
        for name, index in list(self.indexes.items()):
            if index.gone_at is not None and now >= index.gone_at:
                del self.indexes[name]

    def _index(self, name: str) -> Index:
        if name not in self.indexes:
            raise Refusal(404, f"Resource {name} not found")
        return self.indexes[name]

    def host(self, index: Index, at: str) -> str:
        """Where the data plane of an index is."""
        scheme = "" if self._knobs.bare_hosts else "http://"
        return f"{scheme}{at}/{index.name}-{self.project}.svc.double"

    def _told(self, index: Index, at: str) -> dict[str, Any]:
        dense = {"type": "dense_vector", "dimension": index.dimension, "metric": index.metric}
        return {
            "name": index.name,
            "host": self.host(index, at) if index.state != "Initializing" else None,
            "status": {"ready": index.ready, "state": index.state},
            "schema": {"fields": {"_values": dense}},
            "deployment": index.deployment,
            "read_capacity": index.read_capacity,
            "deletion_protection": index.deletion_protection,
            "tags": index.tags or None,
        }

    def _create(self, body: dict[str, Any]) -> Index:
        name = body.get("name") or ""
        if not _NAME.fullmatch(name):
            raise Refusal(400, "Name must consist of lower case alphanumeric characters or '-'")
        if name in self.indexes:
            raise Refusal(409, "Resource  already exists")
        dense = (body.get("schema", {}).get("fields") or {}).get("_values") or {}
        dimension, metric = dense.get("dimension"), dense.get("metric")
        if dense.get("type") != "dense_vector" or not isinstance(dimension, int):
            raise Refusal(400, "schema.fields._values must be a dense_vector with a dimension")
        if not 1 <= dimension <= MAX_DIMENSION:
            raise Refusal(400, f"Dimension must be between 1 and {MAX_DIMENSION}")
        if metric not in _METRICS:
            raise Refusal(400, f"Invalid metric {metric}")
        deployment = _deployment(body.get("deployment"))
        if len(self.indexes) >= self._knobs.max_indexes:
            raise Refusal(
                403,
                f"Request failed. You've reached the max serverless indexes allowed in project {self.project}.",
                code="QUOTA_EXCEEDED",
            )
        index = Index(
            name=name,
            dimension=dimension,
            metric=metric,
            deployment=deployment,
            read_capacity=_capacity(body.get("read_capacity"), deployment),
            deletion_protection=_protection(body.get("deletion_protection", "disabled")),
            tags=_merged_tags({}, body.get("tags")),
            ready_at=self._knobs.clock.monotonic() + self._knobs.ready_after,
            clock=self._knobs.clock,
        )
        self.indexes[name] = index
        return index

    def _configure(self, index: Index, body: dict[str, Any]) -> Index:
        if index.gone_at is not None:
            raise Refusal(409, f"index {index.name} is terminating")
        deployment, capacity, protection = index.deployment, index.read_capacity, index.deletion_protection
        if "deployment" in body:
            deployment = _scaled(deployment, body["deployment"])
        if "read_capacity" in body:
            capacity = _capacity(body["read_capacity"], deployment)
        if "deletion_protection" in body:
            protection = _protection(body["deletion_protection"])
        index.tags = _merged_tags(index.tags, body.get("tags"))
        index.deployment, index.read_capacity, index.deletion_protection = deployment, capacity, protection
        return index

    def _delete(self, index: Index) -> None:
        if index.deletion_protection == "enabled":
            raise Refusal(
                403,
                f"Deletion protection is enabled for index {index.name}. Disable deletion protection before retrying.",
            )
        index.gone_at = self._knobs.clock.monotonic() + self._knobs.gone_after
        self._forget_what_is_gone()


def _protection(value: Any) -> str:
    if value not in {"enabled", "disabled"}:
        raise Refusal(400, "deletion_protection must be enabled or disabled")
    return str(value)


def _deployment(asked: dict[str, Any] | None) -> dict[str, Any]:
    asked = asked or {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"}
    match asked.get("deployment_type"):
        case "managed":
            if asked.get("cloud") not in _CLOUDS or not asked.get("region"):
                raise Refusal(404, f"cloud {asked.get('cloud')} and region {asked.get('region')} not found")
            return {**asked, "environment": f"cell-{asked['cloud']}-{asked['region']}"}
        case "pod":
            if not asked.get("environment") or not _PODS.fullmatch(str(asked.get("pod_type"))):
                raise Refusal(400, "deployment: environment and a pod_type such as p1.x1 are needed")
            if not all(isinstance(asked.get(key), int) and asked[key] >= 1 for key in ("replicas", "shards")):
                raise Refusal(400, "deployment: replicas and shards are needed")
            return dict(asked)
        case "byoc":
            return dict(asked)
    raise Refusal(400, "unknown deployment_type")


def _scaled(current: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    if current["deployment_type"] != "pod":
        raise Refusal(400, "only indexes with pods are scaled")
    if asked.keys() - {"replicas", "pod_type"}:
        raise Refusal(400, "only replicas and pod_type can be changed")
    if "pod_type" in asked:
        family, size = current["pod_type"].split(".x")
        new_family, new_size = str(asked["pod_type"]).split(".x")
        if family != new_family or int(new_size) < int(size):
            raise Refusal(400, "a pod type can only become larger, within its family")
    return {**current, **asked}


def _capacity(asked: dict[str, Any] | None, deployment: dict[str, Any]) -> dict[str, Any] | None:
    if deployment["deployment_type"] == "pod":
        if asked:
            raise Refusal(400, "read_capacity is for serverless indexes")
        return None
    if asked is None or asked.get("mode") == "OnDemand":
        return {"mode": "OnDemand", "status": {"state": "Ready"}}
    manual = asked.get("dedicated", {}).get("manual", {})
    if asked.get("mode") != "Dedicated" or not {"replicas", "shards"} <= manual.keys():
        raise Refusal(400, "read_capacity: a mode, and with Dedicated the numbers of shards and replicas")
    return {
        **asked,
        "status": {"state": "Ready", "current_shards": manual["shards"], "current_replicas": manual["replicas"]},
    }


def _merged_tags(current: dict[str, str], asked: dict[str, str] | None) -> dict[str, str]:
    for key, value in (asked or {}).items():
        if not _TAG_KEY.fullmatch(key) or not _TAG_VALUE.fullmatch(value):
            raise Refusal(400, f"tag {key} has a key or value that is not allowed")
    tags = {key: value for key, value in {**current, **(asked or {})}.items() if value}
    if len(tags) > 20:
        raise Refusal(400, "an index has at most 20 tags")
    return tags
