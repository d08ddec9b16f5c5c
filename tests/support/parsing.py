"""What tests of the parsers share."""

from __future__ import annotations

from typing import Any

from vectorwright.api.v1alpha1.ingestionjob import Chunk as ChunkSettings
from vectorwright.api.v1alpha1.ingestionjob import Parse
from vectorwright.ingest.contracts import Document, Entry, Fetched, Rejected
from vectorwright.ingest.parsers.documents import parse_bytes


def parse(
    data: bytes | str,
    key: str = "a.txt",
    *,
    media_type: str | None = None,
    vector: str | None = None,
    entry: Entry | None = None,
    **settings: Any,
) -> list[Document | Rejected]:
    raw = data.encode() if isinstance(data, str) else data
    entry = entry or Entry(key, media_type=media_type)
    return parse_bytes(Fetched(entry, data=raw), Parse.model_validate(settings), ChunkSettings(), vector)


def documents(found: list[Document | Rejected]) -> list[Document]:
    return [item for item in found if isinstance(item, Document)]


def rejected(found: list[Document | Rejected]) -> list[Rejected]:
    return [item for item in found if isinstance(item, Rejected)]


def texts(found: list[Document | Rejected]) -> list[str]:
    return ["\n".join(chunk.text for chunk in item.chunks) for item in documents(found)]
