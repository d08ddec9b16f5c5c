"""Whose keys a rotation makes: one block a kind of identity, as the stores know them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .addresses import OptionalHttpUrl
from .common import ApiModel, ResourceName, exactly_one, rules, unchangeable

IDENTITIES = ("pinecone", "qdrantToken", "qdrantCloud", "qdrantServer", "weaviate", "milvus", "postgres", "generated")
"""The identity keys of an APIKeyRotation. Exactly one is set."""

_UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


_FIXED = {
    "pinecone": ("projectId",),
    "qdrantCloud": ("accountId", "clusterId"),
    "qdrantServer": ("secretName",),
    "weaviate": ("user",),
    "milvus": ("user",),
    "postgres": ("role",),
}
"""Required fields of identities that tell whose keys they are."""
_FIXED_OPTIONAL = {"qdrantServer": ("apiKeyField", "altApiKeyField")}
"""Optional ones: which key is where must not be mistaken in the middle of a rotation."""
_LEFT_BEHIND = "keys would be left behind; make a new resource"


def identity_rules() -> list[tuple[str, str]]:
    """CEL rules for a spec: whose keys they are cannot be changed."""
    kept = " && ".join(f"has(self.identity.{kind}) == has(oldSelf.identity.{kind})" for kind in IDENTITIES)
    found = [(kept, f"spec.identity keeps its kind: {_LEFT_BEHIND}")]
    for kind, fields in _FIXED.items():
        both = f"!has(self.identity.{kind}) || !has(oldSelf.identity.{kind})"
        for field in fields:
            path = f"identity.{kind}.{field}"
            found.append((f"{both} || self.{path} == oldSelf.{path}", f"spec.{path} is immutable: {_LEFT_BEHIND}"))
    for kind, fields in _FIXED_OPTIONAL.items():
        both = f"!has(self.identity.{kind}) || !has(oldSelf.identity.{kind})"
        for field in fields:
            rule, message = unchangeable(f"identity.{kind}.{field}", advice=_LEFT_BEHIND)
            found.append((f"{both} || ({rule})", message))
    return found


RoleName = Annotated[str, Field(min_length=1, max_length=128)]
"""Name of a role, as the store has it."""


class PineconeIdentity(ApiModel):
    """API keys of a Pinecone project. `adminCredentials` are a service account: `username` is its client id, `password`
    its client secret."""

    project_id: str = Field(pattern=_UUID)
    """Id of the project, a UUID."""
    roles: list[
        Literal[
            "ProjectEditor",
            "ProjectViewer",
            "ControlPlaneEditor",
            "ControlPlaneViewer",
            "DataPlaneEditor",
            "DataPlaneViewer",
        ]
    ] = Field(min_length=1, max_length=6)
    """Roles that a key has."""
    admin_url: str | None = OptionalHttpUrl
    """Address of the Admin API. `https://api.pinecone.io` when left out."""
    login_url: str | None = OptionalHttpUrl
    """Address of the login host that gives access tokens. `https://login.pinecone.io` when left out."""


class QdrantCollectionAccess(ApiModel):
    """What a key may do with one collection."""

    collection: str = Field(min_length=1, max_length=255)
    """Name of the collection."""
    access: Literal["r", "rw"]
    """`r` to read, `rw` to read and write."""


class QdrantTokenIdentity(ApiModel):
    """JSON web tokens signed with the API key of a Qdrant server, which is the `token` of `adminCredentials`. The
    server must have `service.jwt_rbac` enabled."""

    model_config = rules(exactly_one("access", "collections", where="spec.identity.qdrantToken"))

    access: Literal["r", "m"] | None = None
    """Access to everything: `r` to read, `m` to manage."""
    collections: list[QdrantCollectionAccess] | None = Field(default=None, min_length=1, max_length=100)
    """Access to these collections only."""
    subject: str | None = Field(default=None, min_length=1, max_length=128)
    """Name of the user in the server's audit log. `namespace/name` of this resource when left out."""
    revocation_collection: str | None = Field(default=None, min_length=1, max_length=255)
    """Collection in which each token has a point that the server looks for when the token is shown: with it a token can
    be revoked at once. It is made when it is missing. Without it a token is valid until it expires."""


class QdrantCloudIdentity(ApiModel):
    """Database API keys of a Qdrant Cloud cluster. `adminCredentials` hold a management key as `token`, with the
    permissions `read:api_keys`, `write:api_keys` and `delete:api_keys`."""

    model_config = rules(
        (
            "!(has(self.access) && has(self.collections))",
            "spec.identity.qdrantCloud: set access or collections, not both",
        ),
    )

    account_id: str = Field(pattern=_UUID)
    """Id of the account, a UUID."""
    cluster_id: str = Field(pattern=_UUID)
    """Id of the cluster, a UUID."""
    access: Literal["r", "m"] | None = None
    """Access to everything: `r` to read, `m` to manage. `m` when neither this nor `collections` is set."""
    collections: list[QdrantCollectionAccess] | None = Field(default=None, min_length=1, max_length=20)
    """Access to these collections only."""
    expires: bool | None = None
    """Give keys an expiry at Qdrant Cloud: `keyLifetime` from their creation. They do not expire when left out."""
    api_url: str | None = OptionalHttpUrl
    """Address of the Cloud API. `https://api.cloud.qdrant.io` when left out."""


class WorkloadReference(ApiModel):
    """A workload in the resource's own namespace."""

    kind: Literal["Deployment", "StatefulSet"]
    """Kind of the workload."""
    name: ResourceName
    """Name of the workload."""


class QdrantServerIdentity(ApiModel):
    """The two keys of a self-hosted Qdrant server (1.17 or newer), `service.api_key` and `service.alt_api_key`, which
    it reads from a Secret when it starts. Both keys are handed over to this resource. Each rotation restarts the server
    twice, one replica after the other: it needs two of them and a readiness probe."""

    workload: WorkloadReference
    """The workload that runs the server."""
    secret_name: ResourceName
    """Secret in the same namespace that the server takes its keys from."""
    api_key_field: str | None = Field(default=None, min_length=1, max_length=253)
    """Key in that Secret that becomes `service.api_key`. `api-key` when left out."""
    alt_api_key_field: str | None = Field(default=None, min_length=1, max_length=253)
    """Key in that Secret that becomes `service.alt_api_key`. `alt-api-key` when left out. Between rotations it holds
    the same as the other: some servers take an empty key for one."""
    allow_single_replica: bool | None = None
    """Rotate also where nobody may answer while the workload restarts: requests are refused meanwhile."""


class WeaviateIdentity(ApiModel):
    """A user of a Weaviate server with dynamic users (1.30 or newer, AUTHENTICATION_DB_USERS_ENABLED).
    `adminCredentials` hold the key of another user, as `token`, who has the permissions create, read, delete and
    assign_and_revoke on users of these names (InPlace: read and update)."""

    user: str = Field(min_length=1, max_length=117, pattern=r"^[A-Za-z][A-Za-z0-9_@.-]*$")
    """Name of the user. The two that take turns (DualIdentity) have it as a prefix: `search` becomes
    `search-3f2a91c4-a`. InPlace: the user itself."""
    roles: list[RoleName] | None = Field(default=None, min_length=1, max_length=20)
    """Roles that the users have, exactly. They must exist. DualIdentity asks for them, unless the server runs without
    RBAC; InPlace leaves roles as they are."""


class MilvusIdentity(ApiModel):
    """A user of a Milvus server (2.4 or newer) with `common.security.authorizationEnabled`. `adminCredentials` are
    another user, `username` and `password`, with the privileges CreateOwnership, DropOwnership, SelectOwnership and
    ManageOwnership (InPlace: SelectOwnership and UpdateUser, and named in `common.security.superUsers`)."""

    user: str = Field(min_length=1, max_length=32, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    """Name of the user. The two that take turns (DualIdentity) have it as a prefix, of 20 characters at most: `search`
    becomes `search_3f2a91c4_a`. InPlace: the user itself."""
    roles: list[RoleName] | None = Field(default=None, min_length=1, max_length=20)
    """Roles that the users have, exactly, besides `public`. They must exist. DualIdentity asks for them; InPlace leaves
    roles as they are."""


class PostgresIdentity(ApiModel):
    """Login roles of a PostgreSQL server. `adminCredentials` are a role with CREATEROLE and the ADMIN option on
    `role`."""

    role: str = Field(min_length=1, max_length=40, pattern=r"^[a-z_][a-z0-9_]*$")
    """The role that owns tables and rights. The two login roles that take turns (DualIdentity) inherit it, act as it
    and have it as a prefix; InPlace: the login role itself."""
    connection_limit: int | None = Field(default=None, ge=1, le=10000)
    """Connections that one login role may have. No limit when left out."""
    terminate_sessions: bool | None = None
    """End the sessions of a login role when it is revoked: a session outlives its password. `true` when left out.
    InPlace: `true` ends them when the password is changed; they go on when left out."""


class GeneratedIdentity(ApiModel):
    """A random token, for a proxy in front of a store that knows no keys itself. The proxy reads it from the Secret;
    what it accepts besides during the overlap is `${previousToken}` in `spec.secret.data`."""

    bytes: int | None = Field(default=None, ge=16, le=128)
    """Random bytes in it; written as base64url. 32 when left out."""
    prefix: str | None = Field(default=None, min_length=1, max_length=32, pattern=r"^[A-Za-z0-9_-]+$")
    """What it begins with, so that scanners recognise it."""
    verify_through_store: bool | None = None
    """Whether the address of the VectorStore is that of the proxy, so that calls prove which token is accepted. Without
    it nothing is proved."""


class Identity(ApiModel):
    """Whose keys are made. Exactly one block, which goes with the store's provider and the strategy."""

    model_config = rules(exactly_one(*IDENTITIES, where="spec.identity"))

    pinecone: PineconeIdentity | None = None
    """API keys of a Pinecone project (DualKey)."""
    qdrant_token: QdrantTokenIdentity | None = None
    """Tokens for a self-hosted Qdrant server (Token)."""
    qdrant_cloud: QdrantCloudIdentity | None = None
    """Database keys of a Qdrant Cloud cluster (DualKey)."""
    qdrant_server: QdrantServerIdentity | None = None
    """The two keys of a self-hosted Qdrant server (DualKey, only when asked for)."""
    weaviate: WeaviateIdentity | None = None
    """Users of a Weaviate server (DualIdentity; InPlace when asked for)."""
    milvus: MilvusIdentity | None = None
    """Users of a Milvus server (DualIdentity; InPlace when asked for)."""
    postgres: PostgresIdentity | None = None
    """Login roles of PostgreSQL (DualIdentity; InPlace when asked for)."""
    generated: GeneratedIdentity | None = None
    """A random token for a proxy in front of the store (Generate)."""

    @property
    def kind(self) -> str:
        """The one identity key that is set. Raises ``ValueError`` when none or several are."""
        found = sorted(self.dump())
        if len(found) != 1:
            raise ValueError(
                f"spec.identity: exactly one of {', '.join(IDENTITIES)} must be set, found {', '.join(found) or 'none'}"
            )
        return found[0]
