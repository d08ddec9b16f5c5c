"""The servers, and the vendors' own ways to write to them: one file a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from ..contest import Arena
from .chroma import chroma
from .lance import lance
from .milvus import milvus
from .pgvector import pgvector
from .weaviate import weaviate

Opener = Callable[[], AbstractContextManager[Arena]]

ARENAS: Mapping[str, Opener] = {
    "weaviate": weaviate,
    "milvus": milvus,
    "chroma": chroma,
    "pgvector": pgvector,
    "lance": lance,
}
"""By provider. Pinecone and Qdrant are missing where only a double of them runs: it would be what is measured."""
