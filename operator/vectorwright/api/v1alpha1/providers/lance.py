"""Lance: where tables are (a volume, or a bucket), and the settings of a table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..addresses import OptionalHttpUrl, StorePath
from ..common import ApiModel, exactly_one, rules

_BUCKET = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_PREFIX = r"^[A-Za-z0-9_-][A-Za-z0-9._=-]*(/[A-Za-z0-9_-][A-Za-z0-9._=-]*)*$"


class LanceEncryption(ApiModel):
    """Server-side encryption that S3 is asked for with every object."""

    model_config = rules(
        (
            "!has(self.kmsKeyId) || self.algorithm != 'AES256'",
            "spec.lance.s3.serverSideEncryption: kmsKeyId goes with aws:kms",
        )
    )

    algorithm: Literal["AES256", "aws:kms", "aws:kms:dsse"]
    """`AES256` (keys of S3) or one of those with keys of KMS."""
    kms_key_id: str | None = Field(default=None, min_length=1, max_length=2048)
    """Id or ARN of the KMS key. The account's own for S3 when left out."""
    bucket_key: bool | None = None
    """Whether S3 keeps a key for the bucket, which saves requests to KMS. As the bucket says when left out."""


class LanceS3(ApiModel):
    """Tables in an S3 bucket with conditional writes.

    Credentials: `username` is the id of an access key, `password` its secret, `token` a session token. Without a Secret
    the identity of the pods is used (a role for their service account, or the machine's).
    """

    bucket: str = Field(min_length=3, max_length=255, pattern=_BUCKET)
    """Name of the bucket. It has to exist."""
    prefix: str | None = Field(default=None, min_length=1, max_length=512, pattern=_PREFIX)
    """Folder in the bucket. Each VectorStore has one of its own; the whole bucket when left out."""
    region: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[a-z0-9-]+$")
    """Region of the bucket. Needed on AWS where the pods' environment does not say; `us-east-1` for other endpoints."""
    endpoint: str | None = OptionalHttpUrl
    """Address of an S3 server that is not AWS'. `http://` is not encrypted."""
    virtual_hosted: bool | None = None
    """Whether the bucket is part of the host name. It is on AWS, and not at an `endpoint`, when left out."""
    server_side_encryption: LanceEncryption | None = None
    """Server-side encryption of every object. As the bucket says when left out."""


class LanceGcs(ApiModel):
    """Tables in a bucket of Google Cloud Storage.

    Credentials: `token` is the JSON of a service account's key. Without a Secret the identity of the pods is used.
    """

    bucket: str = Field(min_length=3, max_length=222, pattern=_BUCKET)
    """Name of the bucket. It has to exist."""
    prefix: str | None = Field(default=None, min_length=1, max_length=512, pattern=_PREFIX)
    """Folder in the bucket. Each VectorStore has one of its own; the whole bucket when left out."""


class LanceAzure(ApiModel):
    """Tables in a container of Azure Blob Storage.

    Credentials: `password` is a key of the account, or `token` a shared access signature. Without a Secret the identity
    of the pods is used.
    """

    account: str = Field(min_length=3, max_length=24, pattern=r"^[a-z0-9]+$")
    """Name of the storage account."""
    container: str = Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Name of the container. It has to exist."""
    prefix: str | None = Field(default=None, min_length=1, max_length=512, pattern=_PREFIX)
    """Folder in the container. Each VectorStore has one of its own; the whole container when left out."""
    endpoint: str | None = OptionalHttpUrl
    """Address of the blob service, where it is not the account's usual one."""


class LanceProvider(ApiModel):
    """Lance tables: on a volume behind `vectorwright store-server`, their single writer, or in a bucket."""

    model_config = rules(exactly_one("server", "path", "s3", "gcs", "azure", where="spec.lance"))

    server: str | None = OptionalHttpUrl
    """Address of the store server that owns the volume."""
    path: str | None = StorePath
    """For trials: a folder below the operator's `--local-stores` directory; the operator runs its store server."""
    s3: LanceS3 | None = None
    """A bucket of S3, or of a server that speaks its API."""
    gcs: LanceGcs | None = None
    """A bucket of Google Cloud Storage."""
    azure: LanceAzure | None = None
    """A container of Azure Blob Storage."""


class LanceCompaction(ApiModel):
    """When the files of a table in a bucket are merged. Not for a volume, whose server decides by itself."""

    min_commits: int | None = Field(default=None, ge=8, le=512)
    """Commits after which the writer merges small files, once half of the table is new. 64 when left out (Safe)."""


class LanceVersions(ApiModel):
    """How long old versions of a table in a bucket are kept. Not for a volume, whose server knows its readers."""

    keep_seconds: int | None = Field(default=None, ge=300, le=2592000)
    """Seconds that a version is kept for those who still read it, such as a long copy. 3600 when left out (Safe)."""


class LanceTuning(ApiModel):
    """Settings of a Lance table."""

    index_type: Literal["none", "ivfPq", "ivfHnswSq"] | None = None
    """Vector index. Exact search (`none`) when left out. A change rebuilds the index (Costly)."""
    num_partitions: int | None = Field(default=None, ge=1, le=65536)
    """Partitions of the vector index. A change rebuilds the index (Costly)."""
    compaction: LanceCompaction | None = None
    """When small files are merged, in a bucket."""
    versions: LanceVersions | None = None
    """How long old versions are kept, in a bucket."""
