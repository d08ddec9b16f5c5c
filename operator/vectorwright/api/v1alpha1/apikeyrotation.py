"""APIKeyRotation: the keys of one identity of one store, published in one Secret and changed again and again."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .common import (
    ApiModel,
    Calendar,
    Duration,
    Resource,
    ResourceName,
    ResourceStatus,
    Timestamp,
    VectorStoreReference,
    exactly_one,
    rules,
    unchangeable,
    unchangeable_reference,
)
from .identities import Identity, identity_rules

RESERVED_PREFIXES = ("vectorwright.dev/", "kubernetes.io/", "argocd.argoproj.io/")
"""Of labels and annotations that make a controller act on a Secret: consent, ServiceAccount tokens, credentials of Argo
CD's clusters and repositories."""
RESERVED_TYPES = ("kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token", "helm.sh/release.v1")
"""Types of Secrets that a controller fills, or reads as its own."""
DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
"""A key of a Secret's data."""


class Strategy(StrEnum):
    """How a key is replaced by the next one."""

    DUAL_KEY = "DualKey"
    TOKEN = "Token"  # noqa: S105 - a name, not a password
    DUAL_IDENTITY = "DualIdentity"
    IN_PLACE = "InPlace"
    GENERATE = "Generate"


class RevokePolicy(StrEnum):
    """When a replaced key is revoked by itself."""

    CONFIRM_FIRST = "ConfirmFirst"
    CONFIRM_EACH = "ConfirmEach"
    AUTOMATIC = "Automatic"


class KeyDeletionPolicy(StrEnum):
    """What becomes of keys and their Secret when the resource is deleted."""

    RETAIN = "Retain"
    REVOKE = "Revoke"


class SecretAdoptionPolicy(StrEnum):
    """What is done with a Secret that exists already."""

    NEVER = "Never"
    IF_UNMANAGED = "IfUnmanaged"


class SecretRepairPolicy(StrEnum):
    """What is done when somebody edited the published Secret."""

    REPAIR = "Repair"
    LEAVE = "Leave"


class AdminCredentials(ApiModel):
    """A Secret with the power to make and revoke keys."""

    name: ResourceName
    """Name of the Secret."""
    namespace: ResourceName | None = None
    """Its namespace; that of this resource when left out. A Secret in another one must consent in its annotation
    `vectorwright.dev/consent-admin`: `namespace/name` of rotations, or `namespace/*`, separated by commas. Whom it
    names may send it to any server."""
    token_key: DataKey | None = None
    """Key that holds an API key or token. `token` when left out."""
    username_key: DataKey | None = None
    """Key that holds the user name or client id. `username` when left out."""
    password_key: DataKey | None = None
    """Key that holds the password or client secret. `password` when left out."""


class PublishedKeys(ApiModel):
    """Under which keys of the Secret the parts of a credential are."""

    token: DataKey | None = None
    """For an API key or token. `token` when left out."""
    username: DataKey | None = None
    """For a user name. `username` when left out."""
    password: DataKey | None = None
    """For a password. `password` when left out."""


def _of_users(field: str) -> tuple[str, str]:
    """CEL rule: labels and annotations by which controllers know what is theirs are not for users to set."""
    others = " && ".join(f"!k.startsWith('{prefix}')" for prefix in RESERVED_PREFIXES)
    return (
        f"!has(self.{field}) || self.{field}.all(k, {others})",
        f"spec.secret.{field}: names that begin with {', '.join(RESERVED_PREFIXES)} are not for users to set",
    )


class PublishedSecret(ApiModel):
    """The Secret that consumers use."""

    model_config = rules(
        _of_users("labels"),
        _of_users("annotations"),
        (
            f"!has(self.type) || !(self.type in [{', '.join(repr(kind) for kind in RESERVED_TYPES)}])",
            f"spec.secret.type: {', '.join(RESERVED_TYPES)} are made by Kubernetes and others",
        ),
        (
            "!has(self.data) || self.data.all(k, k.matches('^[-._a-zA-Z0-9]{1,253}$'))",
            "spec.secret.data: a key of a Secret has letters, digits, dashes, dots and underscores",
        ),
    )

    name: ResourceName
    """Name of the Secret. It must not exist yet, unless `adoptionPolicy` says otherwise."""
    namespace: ResourceName | None = None
    """Its namespace; that of this resource when left out. In another one a Secret of this name must exist and consent
    in its annotation `vectorwright.dev/consent-publish`; it may be empty."""
    keys: PublishedKeys | None = None
    """Under which keys the parts of the credential are."""
    data: dict[str, Annotated[str, Field(max_length=4096)]] | None = Field(default=None, max_length=32)
    """Further fields, such as an endpoint or a connection string. `${token}`, `${username}`, `${password}`,
    `${endpoint}`, `${host}`, `${port}`, `${keyId}` and `${revision}` are filled in, and `${previousToken}` with the
    token before, until it is revoked; `$$` is a dollar sign. What is made here needs no quoting in a URL."""
    labels: dict[str, Annotated[str, Field(max_length=63)]] | None = Field(default=None, max_length=32)
    """Labels of the Secret, besides our own."""
    annotations: dict[str, Annotated[str, Field(max_length=4096)]] | None = Field(default=None, max_length=32)
    """Annotations of the Secret, besides our own."""
    type: str | None = Field(default=None, min_length=1, max_length=253)
    """Type of the Secret, fixed at its creation. `Opaque` when left out."""
    adoption_policy: SecretAdoptionPolicy | None = None
    """`IfUnmanaged` takes over a Secret that exists and that no other controller manages. `Never` when left out."""
    repair_policy: SecretRepairPolicy | None = None
    """`Repair` puts back what somebody edited, `Leave` only says so. `Repair` when left out. A deleted Secret is always
    made again."""


class LabelSelector(ApiModel):
    """Selects objects by their labels."""

    match_labels: dict[str, str] = Field(min_length=1, max_length=16)
    """Labels that they all have."""


class RestartTarget(ApiModel):
    """Workloads whose pods use the Secret: they are restarted after each publication."""

    model_config = rules(exactly_one("name", "selector", where="rolloutRestartTargets"))

    kind: Literal["Deployment", "StatefulSet", "DaemonSet"]
    """Kind of the workload."""
    name: ResourceName | None = None
    """Name of one workload in the Secret's namespace."""
    selector: LabelSelector | None = None
    """Labels of workloads in the Secret's namespace."""


_LEFT_BEHIND = "keys would be left behind; make a new resource"
_NEW_RESOURCE = "consumers would keep the old Secret; make a new resource"


class APIKeyRotationSpec(ApiModel):
    """Which store's key goes into which Secret, how often, with what overlap, and who is restarted."""

    model_config = rules(
        (
            "!(has(self.rotationInterval) && has(self.schedule))",
            "spec: set rotationInterval or schedule, not both",
        ),
        (
            "has(self.overlap) || (has(self.rolloutRestartTargets) && size(self.rolloutRestartTargets) > 0)",
            (
                "spec.overlap is required where no rolloutRestartTargets are named: it is the time in which consumers "
                "read the new key"
            ),
        ),
        unchangeable_reference("storeRef", "VectorStore", advice=_LEFT_BEHIND),
        ("self.secret.name == oldSelf.secret.name", f"spec.secret.name is immutable: {_NEW_RESOURCE}"),
        *identity_rules(),
        unchangeable("strategy", advice=_LEFT_BEHIND),
        unchangeable("secret.type", advice=_NEW_RESOURCE),
        # `namespace` is a reserved word of CEL, and written so.
        (
            unchangeable("secret.__namespace__", advice="")[0],
            f"spec.secret.namespace is immutable: {_NEW_RESOURCE}",
        ),
    )

    store_ref: VectorStoreReference
    """The store. Its address and certificates are used; it need not be Ready."""
    admin_credentials: AdminCredentials | None = None
    """Secret with the power to make and revoke keys. Not the one that consumers use."""
    identity: Identity
    """Whose keys are made."""
    strategy: Strategy | None = None
    """How a key is replaced. What goes with the identity when left out; never InPlace."""
    secret: PublishedSecret
    """The Secret that consumers use."""
    rotation_interval: Duration | None = None
    """How often the key is replaced, from its issue. Only on request, when this and `schedule` are left out; keys that
    expire are replaced before."""
    schedule: Calendar | None = None
    """When the key is replaced. Of several missed times only one counts."""
    renew_before: Duration | None = None
    """How long before its expiry a key that expires is replaced at the latest. A third of its life when left out."""
    key_lifetime: Duration | None = None
    """Life of a key that expires (Token, and Qdrant Cloud where `expires` is set). When left out: the rotation
    interval, the overlap and half of the interval on top; 30 days without an interval."""
    overlap: Duration | None = None
    """How long the replaced key stays valid after the new one was published, at least. Consumers read the Secret anew
    within this time, unless they are restarted. No time when left out."""
    rollout_restart_targets: list[RestartTarget] | None = Field(default=None, max_length=20)
    """Workloads in the Secret's namespace that are restarted after each publication, by a rolling update."""
    rollout_timeout: Duration | None = None
    """After so long a restart that is not through is reported as failed. Nothing is revoked meanwhile, however long it
    takes. `15m` when left out."""
    refusal_timeout: Duration | None = None
    """Within this time of its revocation the store must refuse the replaced key. `5m` when left out."""
    revoke_policy: RevokePolicy | None = None
    """`ConfirmFirst` (when left out): the first revocation waits for a person, who sets the annotation
    `vectorwright.dev/confirm-revoke` to what `status.blockedBy` says: the id of the key, with `@` and its revision
    where identities take turns. `ConfirmEach`: every one does. `Automatic`: none."""
    deletion_policy: KeyDeletionPolicy | None = None
    """`Retain` (when left out): keys and Secret outlive this resource. `Revoke`: they go with it."""
    history_limit: int | None = Field(default=None, ge=0, le=20)
    """Past rotations that the status tells. 5 when left out."""


class KeyStatus(ApiModel):
    """One key; never its value."""

    id: str | None = None
    """Id of the key, or name of the user, at the store."""
    revision: int | None = None
    """Number of the key, counted from 1."""
    issued_at: Timestamp | None = None
    """When it was made."""
    not_after: Timestamp | None = None
    """When it expires, where it does."""


class VerificationStatus(ApiModel):
    """The last proof by a real call."""

    time: Timestamp
    """When."""
    key_id: str
    """Which key was shown to the store."""
    result: Literal["Accepted", "Refused", "StillAccepted", "NotProvable"]
    """What the store did. `NotProvable`: the value of the key is not known, only that the store no longer lists it."""


class RotationRecord(ApiModel):
    """One past rotation."""

    revision: int
    """Number of the key that was issued."""
    key_id: str
    """Its id."""
    reason: str
    """Why it was issued: Initial, Interval, Schedule, Expiry, Requested, SpecChanged, KeyLost, KeyRefused; Recovered
    where nothing was remembered."""
    started_at: Timestamp
    """When the rotation began."""
    published_at: Timestamp | None = None
    """When the Secret held the new key."""
    revoked_key_id: str | None = None
    """Id of the key that was revoked."""
    revoked_at: Timestamp | None = None
    """When it was revoked."""
    refused_at: Timestamp | None = None
    """When the store was seen to refuse it."""
    finished_at: Timestamp | None = None
    """When the rotation was through."""


class APIKeyRotationStatus(ResourceStatus):
    """What is known of the keys."""

    strategy: str | None = None
    """Strategy in effect."""
    step: str | None = None
    """Idle, Create, Verify, Publish, Restart, Wait, Grace, Revoke or VerifyRefused."""
    secret: str | None = None
    """`namespace/name` of the published Secret."""
    revision: int | None = None
    """Number of the key that is published."""
    current: KeyStatus | None = None
    """The key that is published."""
    pending: KeyStatus | None = None
    """The key that is being issued."""
    previous: KeyStatus | None = None
    """The key before it, until it was seen to be refused."""
    issued_at: Timestamp | None = None
    """When the published key was made."""
    not_after: Timestamp | None = None
    """When the published key expires, where it does."""
    renewal_time: Timestamp | None = None
    """When it is to be replaced."""
    revoke_not_before: Timestamp | None = None
    """Until when the replaced key stays valid."""
    blocked_by: str | None = None
    """What the rotation waits for."""
    failed_attempts: int | None = None
    """Attempts of the present step that failed, one after the other."""
    last_failure_time: Timestamp | None = None
    """When the last of them failed."""
    last_verification: VerificationStatus | None = None
    """The last proof by a real call."""
    handled_request: str | None = None
    """The last value of the `vectorwright.dev/rotate-requested-at` annotation that was acted on."""
    history: list[RotationRecord] | None = Field(default=None, max_length=20)
    """Past rotations, the newest first."""


def confirmation(key_id: str, revision: int) -> str:
    """The word about one key of one time, as the annotation `vectorwright.dev/confirm-revoke` takes it of any key."""
    return f"{key_id}@{revision}"


class APIKeyRotation(Resource):
    """An APIKeyRotation object."""

    kind: ClassVar[str] = "APIKeyRotation"
    plural: ClassVar[str] = "apikeyrotations"

    spec: APIKeyRotationSpec
    status: APIKeyRotationStatus = Field(default_factory=APIKeyRotationStatus)
