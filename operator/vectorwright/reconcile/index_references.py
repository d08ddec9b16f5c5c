"""What a VectorIndex refers to, resolved: its store, its embedding model, its name, and who else claims it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vectorwright.api.v1alpha1.vectorindex import AdoptionPolicy, Metric, OnLost, UpdatePolicy, VectorIndex
from vectorwright.errors import Retryable, Terminal
from vectorwright.kube.status import condition, is_true
from vectorwright.stores.base import FieldDefinition, IndexDefinition, OwnershipMark, Setting

from .cache import Key
from .context import Context
from .index_plan import DesiredIndex
from .sessions import StoreSession


@dataclass(frozen=True, slots=True)
class References:
    """What the spec refers to, resolved."""

    session: StoreSession
    provider: str
    dimension: int
    model: str | None = None
    fingerprint: str | None = None


class StoreNotOpened(Retryable):
    """The store was ready to the process before this one, which has not asked it yet: nothing new is known."""

    default_reason = "StoreNotReady"


def snake(name: str) -> str:
    """camelCase → snake_case, as store settings are named."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def flat_settings(block: Mapping[str, Any], prefix: str = "") -> dict[str, Setting]:
    """A tuning block as dotted settings: ``{"hnsw": {"efSearch": 10}}`` → ``{"hnsw.ef_search": 10}``."""
    flat: dict[str, Setting] = {}
    for name, value in block.items():
        path = f"{prefix}{snake(name)}"
        flat.update(flat_settings(value, f"{path}.") if isinstance(value, Mapping) else {path: value})
    return flat


def _settings(index: VectorIndex, provider: str) -> dict[str, Setting]:
    """The tuning of the index. Raises Terminal when the block is another provider's."""
    blocks = index.spec.tuning.dump() if index.spec.tuning else {}
    foreign = sorted(set(blocks) - {provider})
    if foreign:
        raise Terminal(
            f"spec.tuning.{foreign[0]} is set, but the store is {provider}: use spec.tuning.{provider} or leave it out",
            reason="InvalidTuning",
        )
    return flat_settings(blocks.get(provider, {}))


def resolve_store(context: Context, index: VectorIndex) -> tuple[str, StoreSession]:
    """Provider and session of the store. Raises Retryable when it is not ready yet: its arrival wakes the index."""
    key = Key("VectorStore", index.metadata.namespace, index.spec.store_ref.name)
    body = context.cache.get(*key)
    if body is None:
        raise Retryable(
            f"VectorStore {key.name} does not exist in namespace {key.namespace}: create it", reason="StoreNotFound"
        )
    status = body.get("status") or {}
    session = context.sessions.get(key)
    if session is None and is_true(status, "Ready"):
        raise StoreNotOpened(f"VectorStore {key.name} is not ready: the operator has just started")
    if session is None or not is_true(status, "Ready"):
        why = (condition(status, "Ready") or {}).get("message") or "it was not reached yet"
        raise Retryable(f"VectorStore {key.name} is not ready: {why}", reason="StoreNotReady")
    return str(status.get("provider")), session


def resolve(context: Context, index: VectorIndex) -> References:
    """All that the spec refers to. Raises Retryable for what can still come, Terminal for what contradicts the spec."""
    provider, session = resolve_store(context, index)
    spec = index.spec
    if spec.embedding_model_ref is None:
        if spec.dimension is None:
            raise Terminal("spec: set dimension, or embeddingModelRef to take the model's", reason="InvalidSpec")
        return References(session, provider, spec.dimension)
    name = spec.embedding_model_ref.name
    model = context.cache.get("EmbeddingModel", index.metadata.namespace, name)
    if model is None:
        raise Retryable(
            f"EmbeddingModel {name} does not exist in namespace {index.metadata.namespace}: create it",
            reason="ModelNotFound",
        )
    status = model.get("status") or {}
    if not is_true(status, "Ready"):
        why = (condition(status, "Ready") or {}).get("message") or "it was not reached yet"
        raise Retryable(f"EmbeddingModel {name} is not ready: {why}", reason="ModelNotReady")
    dimension = status.get("dimension")
    if spec.dimension is not None and dimension != spec.dimension:
        raise Terminal(
            f"spec.dimension is {spec.dimension}, but EmbeddingModel {name} makes vectors of dimension {dimension}: "
            "leave spec.dimension out, or use a model of that dimension",
            reason="DimensionMismatch",
        )
    return References(session, provider, int(dimension or 0), name, status.get("fingerprint"))


def client_name(index: VectorIndex) -> str:
    """The name in the store that clients use."""
    return index.spec.index_name or index.metadata.name


def physical_name(index: VectorIndex, session: StoreSession) -> str:
    """The index behind the name: recorded, or what the alias points at, or one of that very name, or a first one."""
    name = client_name(index)
    if index.status.physical_name and index.status.incarnation:
        return index.status.physical_name
    if not session.info.capabilities.aliases:
        return name
    return session.aliases.get(name) or (name if name in session.listing else f"{name}-g1")


def claimant(context: Context, index: VectorIndex, session: StoreSession) -> str | None:
    """Another managing resource with an older claim on the same name of the same backend."""
    mine = (index.metadata.creation_timestamp, index.metadata.namespace, index.metadata.name)
    stores = context.sessions.backends().get(session.info.backend_id, [])
    for store in stores:
        for body in context.cache.all("VectorIndex", store.namespace):
            spec = body.get("spec", {})
            if spec.get("storeRef", {}).get("name") != store.name or spec.get("managementPolicy") == "Observe":
                continue
            metadata = body["metadata"]
            if metadata.get("uid") == index.metadata.uid:
                continue
            if (spec.get("indexName") or metadata["name"]) != client_name(index):
                continue
            created = datetime.fromisoformat(metadata["creationTimestamp"])
            if mine[0] is None or (created, metadata["namespace"], metadata["name"]) < mine:
                return f"VectorIndex {metadata['namespace']}/{metadata['name']}"
    return None


def desired_index(context: Context, index: VectorIndex, references: References, name: str) -> DesiredIndex:
    """The spec with references and defaults resolved. Raises Terminal when its tuning is another provider's."""
    spec = index.spec
    return DesiredIndex(
        name=client_name(index),
        definition=IndexDefinition(
            name=name,
            dimension=references.dimension,
            metric=(spec.metric or Metric.COSINE).value,
            fields=tuple(FieldDefinition(item.name, item.type.value) for item in spec.metadata_fields or ()),
            settings=_settings(index, references.provider),
            mark=OwnershipMark(context.installation, index.metadata.namespace, index.metadata.name),
            model_fingerprint=references.fingerprint,
        ),
        manages=spec.manages,
        update_policy=spec.update_policy or UpdatePolicy.SAFE,
        adoption_policy=spec.adoption_policy or AdoptionPolicy.NEVER,
        on_lost=spec.on_lost or OnLost.REPORT,
        read_only=context.settings.read_only,
    )
