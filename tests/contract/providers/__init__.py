"""The stores that the contract suite runs against. A new one is a module here and a line in ``PROVIDERS``."""

from __future__ import annotations

from collections.abc import Mapping

from tests.contract.providers.base import SECRET, Provider
from tests.contract.providers.chroma import Chroma
from tests.contract.providers.lance_s3 import LanceS3
from tests.contract.providers.milvus import Milvus
from tests.contract.providers.pgvector import Pgvector
from tests.contract.providers.pinecone import Pinecone
from tests.contract.providers.qdrant import Qdrant
from tests.contract.providers.served import Faiss, Lance, Memory
from tests.contract.providers.weaviate import Weaviate

__all__ = ["CREDENTIAL_PROVIDERS", "HTTP_PROVIDERS", "NAMESPACE_PROVIDERS", "PROVIDERS", "SECRET", "Provider"]

PROVIDERS: Mapping[str, type[Provider]] = {
    "chroma": Chroma,
    "pgvector": Pgvector,
    "milvus": Milvus,
    "lance": Lance,
    "faiss": Faiss,
    "lance-s3": LanceS3,
    "memory": Memory,
    "pinecone": Pinecone,
    "qdrant": Qdrant,
    "weaviate": Weaviate,
}
HTTP_PROVIDERS = [name for name, provider in PROVIDERS.items() if provider.speaks_http and not provider.speaks_grpc]
"""Those all of whose calls go over HTTP."""
CREDENTIAL_PROVIDERS = [name for name, provider in PROVIDERS.items() if provider.checks_credentials]
NAMESPACE_PROVIDERS = [name for name, provider in PROVIDERS.items() if provider.has_namespaces]
