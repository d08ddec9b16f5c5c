"""VectorIndex: one index in one store."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from .common import (
    ApiModel,
    EmbeddingModelReference,
    Resource,
    ResourceStatus,
    Timestamp,
    VectorStoreReference,
    at_most_one,
    rules,
    unchangeable,
    unchangeable_reference,
)
from .providers.chroma import ChromaTuning
from .providers.faiss import FaissTuning
from .providers.lance import LanceTuning
from .providers.milvus import MilvusTuning
from .providers.pgvector import PgvectorTuning
from .providers.pinecone import PineconeTuning
from .providers.qdrant import QdrantTuning
from .providers.weaviate import WeaviateTuning


class Metric(StrEnum):
    """How two vectors are compared."""

    COSINE = "cosine"
    DOT_PRODUCT = "dotproduct"
    EUCLIDEAN = "euclidean"


class FieldType(StrEnum):
    """Type of a metadata field that searches filter by."""

    KEYWORD = "keyword"
    INTEGER = "integer"
    FLOAT = "float"
    BOOL = "bool"
    DATETIME = "datetime"


class ManagementPolicy(StrEnum):
    """Whether the operator changes the store."""

    MANAGE = "Manage"
    OBSERVE = "Observe"


class DeletionPolicy(StrEnum):
    """What becomes of the index when its resource is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class UpdatePolicy(StrEnum):
    """The highest class of change that is made without asking."""

    SAFE = "Safe"
    COSTLY = "Costly"
    DISRUPTIVE = "Disruptive"


class AdoptionPolicy(StrEnum):
    """Whether an index that exists already is taken over."""

    NEVER = "Never"
    IF_MATCHING = "IfMatching"


class OnLost(StrEnum):
    """What happens when the index vanished from the store."""

    REPORT = "Report"
    RECREATE = "Recreate"


class MetadataField(ApiModel):
    """A metadata field that searches filter by."""

    model_config = rules(
        ("!self.name.startsWith('vw_')", "spec.metadataFields: names that begin with vw_ are Vectorwright's own")
    )

    name: str = Field(min_length=1, max_length=63, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    """Name of the field. Names that begin with `vw_` are Vectorwright's own."""
    type: FieldType
    """Type of its values."""


MOVE = "make a new VectorIndex and fill it, then delete this one"
"""What to do instead of changing what cannot be changed."""


class Tuning(ApiModel):
    """Settings for the store that the index is in. The block must be that of its provider."""

    pinecone: PineconeTuning | None = None
    """For an index in Pinecone."""
    qdrant: QdrantTuning | None = None
    """For an index in Qdrant."""
    weaviate: WeaviateTuning | None = None
    """For an index in Weaviate."""
    milvus: MilvusTuning | None = None
    """For an index in Milvus."""
    chroma: ChromaTuning | None = None
    """For an index in Chroma."""
    pgvector: PgvectorTuning | None = None
    """For an index in PostgreSQL."""
    lance: LanceTuning | None = None
    """For an index in Lance."""
    faiss: FaissTuning | None = None
    """For an index in FAISS."""


class VectorIndexSpec(ApiModel):
    """One index: store, name, dimension and metric, embedding model, metadata fields, tuning, policies."""

    model_config = rules(
        unchangeable_reference("storeRef", "VectorStore", advice=MOVE),
        unchangeable("indexName", advice=MOVE),
        unchangeable("dimension", advice=MOVE),
        unchangeable("metric", advice=MOVE),
        (
            "has(self.dimension) || has(self.embeddingModelRef)",
            "spec: set dimension, or embeddingModelRef to take the model's",
        ),
        (
            (
                "!(has(self.managementPolicy) && self.managementPolicy == 'Observe' "
                "&& has(self.deletionPolicy) && self.deletionPolicy == 'Delete')"
            ),
            (
                "spec: deletionPolicy Delete cannot go with managementPolicy Observe: an index that is only observed "
                "is never deleted"
            ),
        ),
        at_most_one("tuning", *Tuning.model_fields, advice="that of the store's provider"),
    )

    store_ref: VectorStoreReference
    """The store. Immutable: an index moves by a new VectorIndex that copies from the old one."""
    index_name: str | None = Field(default=None, min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in the store. The resource's own name when left out. Immutable."""
    dimension: int | None = Field(default=None, ge=1, le=65535)
    """Numbers in a vector. The embedding model's when left out. Immutable."""
    metric: Metric | None = None
    """How vectors are compared. `cosine` when left out. Immutable."""
    embedding_model_ref: EmbeddingModelReference | None = None
    """The model that makes this index's vectors. Vectors of another model are never mixed in."""
    metadata_fields: list[MetadataField] | None = Field(
        default=None,
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """Metadata fields that searches filter by; stores that need it index them."""
    tuning: Tuning | None = None
    """Settings for the store that the index is in. What is left out is the store's to choose and never reset."""
    management_policy: ManagementPolicy | None = None
    """`Manage` (the default) makes the store equal to the spec; `Observe` only reports differences."""
    deletion_policy: DeletionPolicy | None = None
    """What becomes of the index when this resource is deleted. `Retain` when left out. `Delete` of an index that holds
    vectors also needs the annotation `vectorwright.dev/confirm-delete: <name in the store>`."""
    update_policy: UpdatePolicy | None = None
    """The highest class of change made without asking: `Safe` (the default), `Costly` (a rebuild) or `Disruptive`.
    What is above is shown in the condition Drifted and never done."""
    adoption_policy: AdoptionPolicy | None = None
    """`Never` (the default) refuses an index that exists already; `IfMatching` takes it over when it fits the spec."""
    on_lost: OnLost | None = None
    """When the index vanished from the store: `Report` (the default) says so; `Recreate` makes an empty one."""

    @property
    def manages(self) -> bool:
        """Whether the operator may change the store for this index."""
        return self.management_policy is not ManagementPolicy.OBSERVE


class DriftedField(ApiModel):
    """One difference between the spec and the store."""

    field: str
    """Path of the field in the spec."""
    desired: str
    """What the spec says."""
    observed: str
    """What the store has."""
    change_class: str = Field(alias="class")
    """Safe, Costly, Disruptive, or Immutable where only a new index can have it."""


class VectorIndexStatus(ResourceStatus):
    """What is known of the index."""

    store: str | None = None
    """Name of the VectorStore."""
    provider: str | None = None
    """Provider of the store."""
    index_name: str | None = None
    """Name in the store that clients use: an alias where the store has aliases."""
    physical_name: str | None = None
    """Name of the index behind the alias; equal to indexName where the store has none."""
    dimension: int | None = None
    """Dimension in effect."""
    metric: str | None = None
    """Metric in effect."""
    model: str | None = None
    """Model that makes the vectors."""
    model_fingerprint: str | None = None
    """Identity of the vectors, as recorded with the index."""
    incarnation: str | None = None
    """Identity of this very index: another one of the same name is another index."""
    backend_id: str | None = None
    """Identity of the store that holds it."""
    vectors: int | None = None
    """Number of vectors, as the store tells it."""
    vectors_exact: bool | None = None
    """Whether that number is exact or the store's estimate."""
    last_ingested_at: Timestamp | None = None
    """When an ingestion into this index last succeeded."""
    drift: list[DriftedField] | None = Field(default=None, max_length=20)
    """Differences between the spec and the store, field by field."""
    drifted_fields: int | None = None
    """Number of differences."""
    adopted: bool | None = None
    """Whether the index existed before this resource took it over. Absent while it is only observed."""


class VectorIndex(Resource):
    """A VectorIndex object."""

    kind: ClassVar[str] = "VectorIndex"
    plural: ClassVar[str] = "vectorindexes"

    spec: VectorIndexSpec
    status: VectorIndexStatus = Field(default_factory=VectorIndexStatus)
