"""Version v1alpha1 of the API, one file a kind."""

from .apikeyrotation import APIKeyRotation, APIKeyRotationSpec, APIKeyRotationStatus
from .common import API_VERSION, CATEGORY, FINALIZER, GROUP, VERSION, Condition, ConditionStatus
from .embeddingmodel import EmbeddingModel, EmbeddingModelSpec, EmbeddingModelStatus
from .ingestionjob import IngestionJob, IngestionJobSpec, IngestionJobStatus
from .vectorindex import VectorIndex, VectorIndexSpec, VectorIndexStatus
from .vectorstore import VectorStore, VectorStoreSpec, VectorStoreStatus

__all__ = [
    "API_VERSION",
    "CATEGORY",
    "FINALIZER",
    "GROUP",
    "VERSION",
    "APIKeyRotation",
    "APIKeyRotationSpec",
    "APIKeyRotationStatus",
    "Condition",
    "ConditionStatus",
    "EmbeddingModel",
    "EmbeddingModelSpec",
    "EmbeddingModelStatus",
    "IngestionJob",
    "IngestionJobSpec",
    "IngestionJobStatus",
    "VectorIndex",
    "VectorIndexSpec",
    "VectorIndexStatus",
    "VectorStore",
    "VectorStoreSpec",
    "VectorStoreStatus",
]
