"""What every kind shares: names of the API, references, conditions, durations."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

GROUP = "vectorwright.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "vectorwright"

FINALIZER = f"{GROUP}/finalizer"
ANNOTATION_PAUSED = f"{GROUP}/paused"
"""``"true"``: nothing is done for this resource until it is removed."""
ANNOTATION_RECONCILE = f"{GROUP}/reconcile-requested-at"
"""Any new value: reconcile now. Status records the last one handled."""
ANNOTATION_RUN = f"{GROUP}/run-requested-at"
"""Any new value on an IngestionJob: run now. Status records the last one handled."""
ANNOTATION_ROTATE = f"{GROUP}/rotate-requested-at"
"""Any new value on an APIKeyRotation: rotate now. Status records the last one handled."""
ANNOTATION_CONFIRM_REVOKE = f"{GROUP}/confirm-revoke"
"""The id of a replaced key: allows its revocation."""
ANNOTATION_CONSENT_PUBLISH = f"{GROUP}/consent-publish"
"""On a Secret: the rotations of other namespaces that may publish in it, ``namespace/name`` or ``namespace/*``, with
commas."""
ANNOTATION_CONSENT_ADMIN = f"{GROUP}/consent-admin"
"""On a Secret: the rotations of other namespaces that may use it as the admin's credentials: they choose the server
that the credentials are sent to."""
ANNOTATION_CONFIRM_DELETE = f"{GROUP}/confirm-delete"
"""The name of the physical index: allows the deletion of an index that holds vectors."""
ANNOTATION_RELEASE = f"{GROUP}/release"
"""``"true"`` on a resource that is being deleted: let go without touching the store."""
ANNOTATION_ACCEPT_BACKEND = f"{GROUP}/accept-backend"
"""On a VectorStore: the id of the new backend that a person accepts in place of the old one."""

Duration = Annotated[str, Field(pattern=r"^([0-9]+(ms|s|m|h|d))+$", max_length=32)]
"""A length of time such as ``30s``, ``5m`` or ``1h30m``."""

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(duration: str) -> float:
    """Turn a :data:`Duration` into seconds. Raises ``ValueError`` for anything else."""
    parts = re.findall(r"([0-9]+)(ms|s|m|h|d)", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError(f"not a duration such as 30s, 5m or 1h30m: {duration!r}")
    return sum(int(number) * _DURATION_UNITS[unit] for number, unit in parts)


def rules(*checks: tuple[str, str]) -> ConfigDict:
    """Model configuration with CEL rules that the API server enforces: pairs of (expression, message)."""
    return ConfigDict(
        json_schema_extra={"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in checks]}
    )


def exactly_one(*keys: str, where: str) -> tuple[str, str]:
    """CEL rule: exactly one of the optional keys is set."""
    present = ", ".join(f"has(self.{key})" for key in keys)
    return f"[{present}].filter(x, x).size() == 1", f"{where}: exactly one of {', '.join(keys)} must be set"


def at_most_one(path: str, *keys: str, advice: str) -> tuple[str, str]:
    """CEL rule for ``spec``: of the keys of an optional block at most one is set."""
    present = ", ".join(f"has(self.{path}.{key})" for key in keys)
    return f"!has(self.{path}) || [{present}].filter(x, x).size() <= 1", f"spec.{path}: at most one block, {advice}"


def unchangeable(path: str, *, advice: str) -> tuple[str, str]:
    """CEL rule for ``spec``: an optional field, such as ``dimension``, can be neither changed, added nor removed.

    It sits on the spec and compares ``has()``: a rule on an optional field is skipped when the field was absent.
    """
    return (
        f"has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || self.{path} == oldSelf.{path})",
        f"spec.{path} is immutable: {advice}",
    )


def unchangeable_reference(path: str, kind: str, *, advice: str) -> tuple[str, str]:
    """CEL rule for ``spec``: a required reference names one object for ever. To write out its kind is no change."""

    def of(spec: str) -> str:
        return f"(has({spec}.{path}.kind) ? {spec}.{path}.kind : '{kind}')"

    return (
        f"self.{path}.name == oldSelf.{path}.name && {of('self')} == {of('oldSelf')}",
        f"spec.{path} is immutable: {advice}",
    )


class ApiModel(BaseModel):
    """Base of everything inside a resource: camelCase on the wire, unknown fields dropped as the API server does."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", use_attribute_docstrings=True
    )

    def dump(self) -> dict[str, Any]:
        """The JSON form: camelCase, without fields that are absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _whole_seconds(value: object) -> object:
    return value.replace(microsecond=0) if isinstance(value, datetime) else value


Timestamp = Annotated[
    datetime, BeforeValidator(_whole_seconds), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""A point in time, UTC, whole seconds, as Kubernetes writes it."""

ResourceName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
]


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One observation of the state of a resource."""

    type: str = Field(min_length=1, max_length=316)
    """CamelCase name of the condition."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: str = Field(min_length=1, max_length=1024)
    """Stable CamelCase reason for the last transition."""
    message: str = Field(max_length=32768)
    """What is true, and what to do about it."""
    last_transition_time: Timestamp
    """When the status last changed."""
    observed_generation: int | None = Field(default=None, ge=0)
    """The generation of the spec that this condition was set for."""


class SecretReference(ApiModel):
    """A Secret in the resource's own namespace."""

    name: ResourceName
    """Name of the Secret."""


class KeyReference(ApiModel):
    """One key of a Secret or ConfigMap in the resource's own namespace."""

    name: ResourceName
    """Name of the Secret or ConfigMap."""
    key: str | None = Field(default=None, min_length=1, max_length=253)
    """The key in it; which one is used when this is left out is said where the reference stands."""


class VectorStoreReference(ApiModel):
    """A VectorStore in the same namespace."""

    kind: Literal["VectorStore"] = "VectorStore"
    """Kind of the store."""
    name: ResourceName
    """Name of the store."""


class EmbeddingModelReference(ApiModel):
    """An EmbeddingModel in the same namespace."""

    kind: Literal["EmbeddingModel"] = "EmbeddingModel"
    """Kind of the model."""
    name: ResourceName
    """Name of the model."""


class VectorIndexReference(ApiModel):
    """A VectorIndex in the same namespace."""

    kind: Literal["VectorIndex"] = "VectorIndex"
    """Kind of the index."""
    name: ResourceName
    """Name of the index."""


class Credentials(ApiModel):
    """Where the credentials of a store or an endpoint are."""

    name: ResourceName
    """Name of a Secret in the same namespace."""
    token_key: str | None = Field(default=None, min_length=1, max_length=253)
    """Key that holds an API key or token. `token` when left out."""
    username_key: str | None = Field(default=None, min_length=1, max_length=253)
    """Key that holds the user name. `username` when left out."""
    password_key: str | None = Field(default=None, min_length=1, max_length=253)
    """Key that holds the password. `password` when left out."""


class Tls(ApiModel):
    """How the server is verified. Without this block the system's certificate authorities are trusted."""

    model_config = rules(
        ("!(has(self.caSecret) && has(self.caConfigMap))", "tls: set caSecret or caConfigMap, not both")
    )

    ca_secret: KeyReference | None = None
    """Secret with a PEM bundle of certificate authorities to trust. Key `ca.crt` when left out."""
    ca_config_map: KeyReference | None = None
    """ConfigMap with a PEM bundle of certificate authorities to trust. Key `ca.crt` when left out."""
    server_name: str | None = Field(default=None, max_length=253)
    """Name to expect in the server's certificate, where it differs from the host in the address."""
    insecure_skip_verify: bool | None = None
    """Do not verify the server's certificate. For trials: whoever is on the path reads the credentials."""


class Calendar(ApiModel):
    """Times that come again and again."""

    cron: str = Field(min_length=9, max_length=128)
    """Five fields: minute, hour, day of month, month, day of week."""
    time_zone: str | None = Field(default=None, min_length=1, max_length=64)
    """Time zone such as `Europe/Berlin`. UTC when left out."""


class ResourceStatus(ApiModel):
    """What the status of every kind holds."""

    observed_generation: int | None = Field(default=None, ge=0)
    """The generation of the spec that this status was computed from."""
    conditions: list[Condition] | None = Field(
        default=None,
        max_length=20,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    """Ready, Reconciling, Stalled, Synced, Drifted, ReferencesResolved: what is true now."""
    last_handled_reconcile_at: str | None = None
    """The last value of the `vectorwright.dev/reconcile-requested-at` annotation that was acted on."""


class ObjectMeta(BaseModel):
    """The metadata that Vectorwright reads."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)


class Resource(BaseModel):
    """A whole object as the API server serves it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    metadata: ObjectMeta

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)"""
        return self.metadata.namespace, self.metadata.name

    @property
    def paused(self) -> bool:
        """Whether the paused annotation is set."""
        return self.metadata.annotations.get(ANNOTATION_PAUSED, "").lower() == "true"

    @property
    def deleting(self) -> bool:
        """Whether somebody asked for this object's deletion."""
        return self.metadata.deletion_timestamp is not None
