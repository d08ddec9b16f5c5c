"""A connection of every kind of store, to servers that need not exist: enough to open one, and to see what it says."""

from __future__ import annotations

from collections.abc import Mapping

from vectorwright.stores.registry import Connection, StoreCredentials

_TOKEN = StoreCredentials(token="no-real-token-of-anything")
_LOGIN = StoreCredentials(username="nobody", password="no-real-password")

SAMPLES: Mapping[str, Connection] = {
    "Pinecone": Connection("pinecone", {"controlUrl": "http://127.0.0.1:1"}, credentials=_TOKEN),
    "Qdrant": Connection("qdrant", {"url": "http://127.0.0.1:1", "grpcPort": 1}, credentials=_TOKEN),
    "Weaviate": Connection("weaviate", {"url": "http://127.0.0.1:1", "grpcPort": 1}, credentials=_TOKEN),
    "Milvus": Connection("milvus", {"url": "http://127.0.0.1:1"}, credentials=_TOKEN),
    "Chroma": Connection("chroma", {"url": "http://127.0.0.1:1"}, credentials=_TOKEN),
    "pgvector": Connection(
        "pgvector", {"host": "127.0.0.1", "port": 1, "database": "none", "sslMode": "disable"}, credentials=_LOGIN
    ),
    "Lance (S3)": Connection(
        "lance",
        {"s3": {"bucket": "none", "endpoint": "http://127.0.0.1:1", "region": "us-east-1"}},
        credentials=_LOGIN,
    ),
    "Lance (volume)": Connection("lance", {"server": "http://127.0.0.1:1"}, credentials=_TOKEN),
    "FAISS": Connection("faiss", {"server": "http://127.0.0.1:1"}, credentials=_TOKEN),
    "memory": Connection("memory", {"server": "http://127.0.0.1:1"}, credentials=_TOKEN),
}
"""Title → connection, in the order of the documents."""
