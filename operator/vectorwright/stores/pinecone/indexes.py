"""Indexes of Pinecone: what is read of one, and what is sent to make or change one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pinecone.models.indexes.deployment import ByocDeployment, ManagedDeployment, PodDeployment
from pinecone.models.indexes.index import IndexModel
from pinecone.models.indexes.read_capacity import ReadCapacityDedicatedResponse
from pinecone.models.indexes.schema import DenseVectorField

from vectorwright.errors import Retryable, Terminal

from ..base import ChangeClass, IndexDescription, Setting
from . import tags as tagging
from .freshness import Place

DENSE_FIELD = "_values"
"""The field that the vectors API addresses; an index with this one alone is a vector index."""

MUTABLE: Mapping[str, ChangeClass] = {
    "deletion_protection": ChangeClass.SAFE,
    # No traffic is interrupted, but each is paid for, and a larger pod type cannot be made smaller again.
    "pods.replicas": ChangeClass.COSTLY,
    "pods.pod_type": ChangeClass.COSTLY,
    "read_capacity.mode": ChangeClass.COSTLY,
    "read_capacity.node_type": ChangeClass.COSTLY,
    "read_capacity.replicas": ChangeClass.COSTLY,
    "read_capacity.shards": ChangeClass.COSTLY,
}
IMMUTABLE = ("serverless.cloud", "serverless.region", "pods.environment", "pods.shards")
KNOWN_SETTINGS = (*MUTABLE, *IMMUTABLE)


@dataclass(frozen=True, slots=True)
class PineconeIndex:
    """An index as the control plane tells it."""

    name: str
    host: str | None
    """Where its data plane is, with the scheme; None while there is none yet."""
    ready: bool
    state: str
    dimension: int | None
    """None where it is no index of dense vectors."""
    metric: str | None
    tags: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @classmethod
    def read(cls, model: IndexModel, *, plain_http: bool) -> PineconeIndex:
        """The index that the SDK read. The SDK takes a host without a scheme for one behind TLS, ``plain_http`` not."""
        dense = _dense_field(model)
        host = model.host
        if host and plain_http:
            host = f"http://{host.removeprefix('https://').removeprefix('http://')}"
        return cls(
            name=model.name,
            host=host.rstrip("/") if host else None,
            ready=model.status.ready,
            state=model.status.state,
            dimension=dense.dimension if dense else None,
            metric=dense.metric if dense else None,
            tags=dict(model.tags or {}),
            settings=_settings(model),
        )

    @property
    def incarnation(self) -> str:
        """Written at creation. An index that others made has but its host, which its successor may have again."""
        return tagging.read_incarnation(self.tags) or f"host:{self.host or self.name}"

    @property
    def place(self) -> Place:
        """Where its data plane is. Raises Retryable (``IndexNotReady``) while there is none."""
        if not self.host:
            raise Retryable(f"index {self.name} is not ready (state {self.state})", reason="IndexNotReady")
        return Place(self.host, self.incarnation)

    @property
    def protected(self) -> bool:
        """Whether it cannot be deleted."""
        return self.settings.get("deletion_protection") == "enabled"

    def describe(self) -> IndexDescription:
        """The index in the protocol's words."""
        return IndexDescription(
            name=self.name,
            dimension=self.dimension,
            metric=self.metric,
            incarnation=self.incarnation,
            fields=tagging.read_fields(self.tags),
            settings=dict(self.settings),
            mark=tagging.read_mark(self.tags),
            model_fingerprint=tagging.read_fingerprint(self.tags),
        )


def _dense_field(model: IndexModel) -> DenseVectorField | None:
    """The field that the vectors API reads and writes; None of an index of documents, and of a sparse one."""
    fields = model.schema.fields
    found = fields.get(DENSE_FIELD) or (next(iter(fields.values())) if len(fields) == 1 else None)
    return found if isinstance(found, DenseVectorField) else None


def _settings(model: IndexModel) -> dict[str, Setting]:
    settings: dict[str, Setting] = {"deletion_protection": model.deletion_protection}
    match model.deployment:
        case ManagedDeployment(cloud=cloud, region=region):
            settings |= {"serverless.cloud": cloud, "serverless.region": region}
        case PodDeployment() as pods:
            settings |= {
                "pods.environment": pods.environment,
                "pods.pod_type": pods.pod_type,
                "pods.replicas": pods.replicas,
                "pods.shards": pods.shards,
            }
        case ByocDeployment(environment=environment):
            settings["byoc.environment"] = environment
    capacity = model.read_capacity
    if isinstance(capacity, ReadCapacityDedicatedResponse):
        settings |= {"read_capacity.mode": "Dedicated", "read_capacity.node_type": capacity.dedicated.node_type}
        if capacity.dedicated.manual is not None:
            settings["read_capacity.replicas"] = capacity.dedicated.manual.replicas
            settings["read_capacity.shards"] = capacity.dedicated.manual.shards
    elif capacity is not None:
        settings["read_capacity.mode"] = "OnDemand"
    return settings


def _block(settings: Mapping[str, Setting], name: str) -> dict[str, Setting]:
    return {key.removeprefix(f"{name}."): value for key, value in settings.items() if key.startswith(f"{name}.")}


def deployment(settings: Mapping[str, Setting]) -> dict[str, Any] | None:
    """``deployment`` of a create call; None leaves the choice to Pinecone. Raises Terminal (``InvalidTuning``)."""
    serverless, pods = _block(settings, "serverless"), _block(settings, "pods")
    if serverless and pods:
        raise Terminal("spec.tuning.pinecone: an index is serverless or has pods, not both", reason="InvalidTuning")
    if serverless:
        _needs(serverless, "serverless", ("cloud", "region"))
        return {"deployment_type": "managed", **serverless}
    if pods:
        _needs(pods, "pods", ("environment", "pod_type"))
        # The API wants both numbers at creation.
        return {"deployment_type": "pod", "replicas": 1, "shards": 1, **pods}
    return None


def read_capacity(settings: Mapping[str, Setting]) -> dict[str, Any] | None:
    """``read_capacity`` of a create or configure call, None where nothing is said. Raises Terminal."""
    block = _block(settings, "read_capacity")
    if not block:
        return None
    if block.get("mode") == "OnDemand":
        return {"mode": "OnDemand"}
    _needs(block, "readCapacity", ("mode", "node_type", "replicas", "shards"))
    return {
        "mode": "Dedicated",
        "dedicated": {
            "node_type": block["node_type"],
            "scaling": "Manual",
            "manual": {"replicas": block["replicas"], "shards": block["shards"]},
        },
    }


def _needs(block: Mapping[str, Setting], name: str, keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if key not in block]
    if missing:
        raise Terminal(
            f"spec.tuning.pinecone.{name} needs {', '.join(_camel(key) for key in missing)}", reason="InvalidTuning"
        )


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def configuration(settings: Mapping[str, Setting], current: PineconeIndex) -> dict[str, Any]:
    """Arguments of a configure call that changes ``settings`` and nothing else. Raises Terminal."""
    for setting in settings.keys() - MUTABLE.keys():
        raise Terminal(
            f"index {current.name}: Pinecone cannot change {setting} after creation: make a new index",
            reason="ImmutableSetting",
        )
    arguments: dict[str, Any] = {}
    if "deletion_protection" in settings:
        arguments["deletion_protection"] = settings["deletion_protection"]
    pods = _block(settings, "pods")
    if pods:
        arguments["deployment"] = pods
    if _block(settings, "read_capacity"):
        # Capacity is replaced as a whole, so what the index has goes along.
        arguments["read_capacity"] = read_capacity({**current.settings, **settings})
    return arguments
