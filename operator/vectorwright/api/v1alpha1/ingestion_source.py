"""Where an IngestionJob's documents come from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .common import ApiModel, Credentials, ResourceName, Tls, VectorIndexReference, exactly_one, rules

IndexNamespace = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
"""Name of a namespace (tenant, partition) within an index. What a store takes of it the store decides."""


class GitSource(ApiModel):
    """Files of a git repository at one commit."""

    url: str = Field(
        min_length=1, max_length=2048, pattern=r"^((https?|git)://|ssh://([A-Za-z0-9._-]+@)?)[^/\s@]+(/\S*)?$"
    )
    """Address without credentials: https, http, ssh or git. Private and local addresses are refused, unless the
    installer allows them."""
    ref: str | None = Field(default=None, min_length=1, max_length=256, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    """Branch, tag or commit. The remote's default branch when left out. A run pins it to a commit."""
    include: list[str] | None = Field(default=None, max_length=100)
    """Globs of paths to take, such as `docs/**/*.md`. Everything when left out."""
    exclude: list[str] | None = Field(default=None, max_length=100)
    """Globs of paths to leave out. They win over `include`."""
    credentials: Credentials | None = None
    """Secret with `username` and `password` (or `token`) for https."""
    tls: Tls | None = None
    """How the server is verified."""


class HttpSource(ApiModel):
    """Documents at a list of addresses."""

    urls: list[Annotated[str, Field(max_length=2048, pattern=r"^https?://[^/\s@]+([/?#]\S*)?$")]] = Field(
        min_length=1, max_length=1000
    )
    """http and https addresses without credentials. Private and local ones are refused, unless the installer allows
    them."""
    credentials: Credentials | None = None
    """Secret with a `token` (sent as a bearer token) or `username` and `password`."""
    tls: Tls | None = None
    """How the servers are verified."""


class ConfigMapSource(ApiModel):
    """The keys of a ConfigMap in the same namespace, one document a key."""

    name: ResourceName
    """Name of the ConfigMap."""
    keys: list[str] | None = Field(default=None, max_length=500)
    """Keys to take. All when left out."""


class InlineDocument(ApiModel):
    """A document written in the resource itself."""

    id: str = Field(min_length=1, max_length=512)
    """Id of the document. Its extension picks the parser, where the job does not."""
    text: str = Field(max_length=65536)
    """Text of the document."""
    metadata: dict[str, str] | None = Field(default=None, max_length=32)
    """Metadata of the document."""


class InlineSource(ApiModel):
    """Documents written in the resource itself, 64 KiB in all."""

    model_config = rules(
        (
            "self.documents.map(d, d.text.size()).sum() <= 65536",
            (
                "spec.source.inline: documents hold more than 64 KiB: put them into a ConfigMap, a repository or "
                "behind an address"
            ),
        )
    )

    documents: list[InlineDocument] = Field(min_length=1, max_length=1000)
    """The documents."""


class VectorIndexSource(VectorIndexReference):
    """The records of another index in the same namespace, whatever store it is in."""

    index_namespace: IndexNamespace | None = None
    """Namespace (tenant, partition) of that index to read. The default one when left out."""


class Source(ApiModel):
    """Where the documents come from: exactly one key."""

    model_config = rules(exactly_one("git", "http", "configMap", "inline", "vectorIndex", where="spec.source"))

    git: GitSource | None = None
    """A git repository."""
    http: HttpSource | None = None
    """A list of addresses."""
    config_map: ConfigMapSource | None = None
    """A ConfigMap."""
    inline: InlineSource | None = None
    """Documents in this resource."""
    vector_index: VectorIndexSource | None = None
    """Another index: its records are copied as they are, with ids, vectors, texts and metadata."""
