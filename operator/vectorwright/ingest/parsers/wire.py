"""What goes over the pipes between a worker and its parser: frames of JSON, with the document's bytes as they are.

Never pickle: the child handles hostile documents, and whoever has taken it over must not get further than wrong text.

::

    settings   u32 length, JSON                      once
    request    u32 length, u32 bytes, JSON, bytes    worker → parser
    answer     u32 length, JSON                      parser → worker; the first one, empty, says that it is ready
"""

from __future__ import annotations

import base64
import struct
from array import array
from collections.abc import Sequence
from typing import Any

import orjson

from vectorwright.ingest.contracts import Chunk, Document, Entry, Rejected

LENGTH = struct.Struct("!I")
REQUEST = struct.Struct("!II")


def encode_frame(value: object) -> bytes:
    """One frame of JSON."""
    body = orjson.dumps(value)
    return LENGTH.pack(len(body)) + body


def encode_request(entry: Entry, data: bytes) -> bytes:
    """The head of a request; ``data`` is sent after it."""
    head = orjson.dumps([entry.key, entry.token, entry.media_type, entry.metadata])
    return REQUEST.pack(len(head), len(data)) + head


def decode_entry(head: bytes) -> Entry:
    """The entry of a request."""
    key, token, media_type, metadata = orjson.loads(head)
    return Entry(key=key, token=token, media_type=media_type, metadata=metadata)


def _pack(item: Document | Rejected) -> list[Any]:
    if isinstance(item, Rejected):
        return [item.key, item.reason, item.message]
    vector = None
    if item.vector is not None:
        vector = base64.b64encode(array("d", item.vector).tobytes()).decode("ascii")
    chunks = [[chunk.text, chunk.start_line, chunk.end_line, chunk.heading] for chunk in item.chunks]
    return [item.key, item.content_hash, chunks, item.metadata, item.record_id, vector]


def _unpack(item: Sequence[Any]) -> Document | Rejected:
    if len(item) == 3:
        return Rejected(*item)
    key, content_hash, chunks, metadata, record_id, packed = item
    vector = None
    if packed is not None:
        vector = array("d")
        vector.frombytes(base64.b64decode(packed))
    return Document(
        key=key,
        content_hash=content_hash,
        chunks=tuple(Chunk(*chunk) for chunk in chunks),
        metadata=metadata,
        record_id=record_id,
        vector=vector,
    )


def encode_answer(items: Sequence[Document | Rejected]) -> bytes:
    """An answer frame."""
    return encode_frame([_pack(item) for item in items])


def decode_answer(body: bytes) -> list[Document | Rejected]:
    """The documents of an answer. Raises ``ValueError`` or ``TypeError`` for anything that is none."""
    return [_unpack(item) for item in orjson.loads(body)]
