"""Identity of what is written: versions of documents and ids of records.

The version of a document is a hash of everything that its vectors depend on: its content, how it is parsed, chunked and
embedded. The id of a record is a hash of (source, document, version, number of the chunk). So a run that is repeated
writes the same ids, a new version never overwrites the old one, and an old version is deleted by computed ids.

All hashes are BLAKE2b of 128 bits: 10^9 records collide with a probability of 10^-21.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import orjson

from vectorwright.api.v1alpha1.ingestionjob import Chunk, Parse
from vectorwright.stores.base import Capabilities

from .runspec import RunSpec

_SCHEME = 1
"""Changes when what a version means changes: everything is then embedded once more."""

_FOREIGN_IDS = uuid.UUID("6f5d3a52-6b0f-5c55-9d0e-0d7c1b7f6a11")
"""Namespace of ids that a store cannot hold as they are."""


def _effective_parse(parse: Parse) -> dict[str, Any]:
    """What of the parser's settings changes its output, defaults filled in."""
    return {
        "type": parse.type or "auto",
        "id": parse.id_field,
        "text": parse.text_fields or ["text"],
        "metadata": sorted(parse.metadata_fields or []),
    }


def _effective_chunk(chunk: Chunk) -> dict[str, Any]:
    """The chunker's settings, defaults filled in: writing a default down changes no version."""
    unit = chunk.unit or "characters"
    return {
        "strategy": chunk.strategy or "auto",
        "unit": unit,
        "size": chunk.size or (1500 if unit == "characters" else 400),
        "overlap": chunk.overlap or 0,
    }


def embedding_identity(spec: RunSpec) -> str:
    """The fingerprint of the embedding model, or ``precomputed:<field>`` where vectors come with the records."""
    if spec.embedder is not None:
        return spec.embedder.fingerprint
    return f"precomputed:{spec.precomputed_field or ''}"


class Identity:
    """Computes versions and ids of one run."""

    def __init__(self, spec: RunSpec) -> None:
        config = {
            "scheme": _SCHEME,
            "parse": _effective_parse(spec.parse),
            "chunk": _effective_chunk(spec.chunk),
            "embedding": embedding_identity(spec),
            "dimension": spec.store.dimension,
        }
        self.source = spec.source_name
        self._version = blake2b(orjson.dumps(config, option=orjson.OPT_SORT_KEYS), digest_size=16)
        self._record = blake2b(_framed(spec.source_name), digest_size=16)

    def version(self, content_hash: str) -> str:
        """``vw_ver`` of a document with this content: 32 hex digits."""
        state = self._version.copy()
        state.update(content_hash.encode())
        return state.hexdigest()

    def record_ids(self, document: str, version: str, numbers: Iterable[int]) -> list[str]:
        """Ids of chunks of one version of a document, as UUIDs."""
        base = self._record.copy()
        base.update(_framed(document))
        base.update(_framed(version))
        ids = []
        for number in numbers:
            state = base.copy()
            state.update(b"%d" % number)
            ids.append(uuid_text(state.digest()))
        return ids


def _framed(text: str) -> bytes:
    """The text with its length in front: no two lists of texts give the same bytes."""
    data = text.encode()
    return b"%d:%b" % (len(data), data)


def uuid_text(digest: bytes) -> str:
    """16 bytes in the form of a UUID. Every store takes such an id."""
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid_bytes(record_id: str) -> bytes | None:
    """The 16 bytes that :func:`uuid_text` showed, or None where the id is no such text."""
    if len(record_id) != 36:
        return None
    try:
        data = bytes.fromhex(record_id.replace("-", ""))
    except ValueError:
        return None
    return data if len(data) == 16 and uuid_text(data) == record_id else None


def digest(text: str) -> bytes:
    """16 bytes that stand for a text of any length."""
    return blake2b(text.encode(), digest_size=16).digest()


def id_digest(record_id: str) -> bytes:
    """16 bytes that stand for the id of a record: those of the UUID itself, or a hash of any other id."""
    return uuid_bytes(record_id) or digest(record_id)


def own_id(record_id: str, capabilities: Capabilities) -> str:
    """The id under which a store keeps a record that came with an id: the same, where the store can hold it."""
    return record_id if holds_id(capabilities.id_pattern, record_id) else foreign_id(record_id)


def holds_id(pattern: str | None, record_id: str) -> bool:
    """Whether a store with this pattern of ids (:attr:`Capabilities.id_pattern`) can hold the id."""
    return pattern is None or re.fullmatch(pattern, record_id) is not None


def foreign_id(record_id: str) -> str:
    """The id that stands for one that a store cannot hold."""
    return str(uuid.uuid5(_FOREIGN_IDS, record_id))
