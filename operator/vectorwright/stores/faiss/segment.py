"""Segments of the log as bytes: what a header and a record look like, and what of a damaged file is intact.

A segment begins with two equal headers (format, key id, salt, incarnation of the index), then come records: a header
of fixed length with a checksum of its own, then the payload, encrypted where the segment is. The checksum of a record
covers its number and the segment's salt, so that a record is of this place or of none.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from .files import digest
from .keys import KEY_ID_BYTES, SALT_BYTES

_MAGIC = b"VWFL"
_FORMAT = 1
_HEADER = struct.Struct(f"<4sBBxx{KEY_ID_BYTES}s{SALT_BYTES}s16s")
_HEADER_BYTES = _HEADER.size + 16
HEADERS_BYTES = 2 * _HEADER_BYTES
_RECORD_MAGIC = b"VWFR"
_RECORD = struct.Struct("<4sIQI16s")
_COVERED = struct.Struct("<IQ")
MAX_PAYLOAD = 2**31
_WINDOW = 2**20


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Of which index a segment is, and how it is encrypted."""

    incarnation: uuid.UUID
    salt: bytes
    key_id: bytes | None
    """None: not encrypted."""

    def encode(self) -> bytes:
        """Both copies."""
        text = _HEADER.pack(
            _MAGIC, _FORMAT, self.key_id is not None, self.key_id or b"", self.salt, self.incarnation.bytes
        )
        return 2 * (text + digest(text))


def decode_header(data: bytes | memoryview) -> SegmentHeader | None:
    """The header at the beginning of a file, from whichever of its copies is intact; None where neither is."""
    for start in (0, _HEADER_BYTES):
        text = bytes(data[start : start + _HEADER.size])
        if len(text) < _HEADER.size or bytes(data[start + _HEADER.size : start + _HEADER_BYTES]) != digest(text):
            continue
        magic, version, encrypted, key_id, salt, incarnation = _HEADER.unpack(text)
        if magic == _MAGIC and version == _FORMAT:
            return SegmentHeader(uuid.UUID(bytes=incarnation), salt, key_id if encrypted else None)
    return None


def record_header(sequence: int, payload: bytes, salt: bytes) -> bytes:
    """What comes before a payload."""
    covered = _COVERED.pack(len(payload), sequence)
    return _RECORD.pack(
        _RECORD_MAGIC, len(payload), sequence, zlib.crc32(covered + salt), digest(covered, salt, payload)
    )


@dataclass(frozen=True, slots=True)
class Intact:
    """A record as it was written; the payload may still be encrypted."""

    sequence: int
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Broken:
    """Bytes that are no record."""

    offset: int
    length: int
    torn: bool
    """Whether this is what a write leaves that a crash cut off: it was never acknowledged."""


def scan(data: memoryview, salt: bytes) -> Iterator[Intact | Broken]:
    """The records of a segment in their order. After bytes that are none it goes on at the next that is one."""
    at = HEADERS_BYTES
    while at < len(data):
        found = _record_at(data, at, salt)
        if found is not None:
            at += _RECORD.size + len(found.payload)
            yield found  # whoever asked may let go of the payload
            continue
        following = _next_record(data, at + 1, salt)
        if following is None:
            yield Broken(at, len(data) - at, _is_torn(data, at, salt))
            return
        yield Broken(at, following - at, torn=False)
        at = following


def _declared(data: memoryview, at: int, salt: bytes) -> tuple[int, int, bytes] | None:
    """Length, number and checksum that an intact record header tells."""
    if at + _RECORD.size > len(data):
        return None
    magic, length, sequence, check, checksum = _RECORD.unpack_from(data, at)
    if magic != _RECORD_MAGIC or length > MAX_PAYLOAD or check != zlib.crc32(_COVERED.pack(length, sequence) + salt):
        return None
    return length, sequence, checksum


def _record_at(data: memoryview, at: int, salt: bytes) -> Intact | None:
    declared = _declared(data, at, salt)
    if declared is None:
        return None
    length, sequence, checksum = declared
    start = at + _RECORD.size
    payload = data[start : start + length]
    if len(payload) != length or digest(_COVERED.pack(length, sequence), salt, payload) != checksum:
        return None
    return Intact(sequence, payload)


def _next_record(data: memoryview, start: int, salt: bytes) -> int | None:
    while start < len(data):
        window = bytes(data[start : start + _WINDOW + len(_RECORD_MAGIC) - 1])
        at = window.find(_RECORD_MAGIC)
        while at >= 0:
            if _record_at(data, start + at, salt) is not None:
                return start + at
            at = window.find(_RECORD_MAGIC, at + 1)
        start += _WINDOW
    return None


def _is_torn(data: memoryview, at: int, salt: bytes) -> bool:
    """A write that was cut off left a beginning of what it was to write, or zeros where the disk had no time."""
    if len(data) - at < _RECORD.size:
        return True
    declared = _declared(data, at, salt)
    if declared is not None:
        return at + _RECORD.size + declared[0] > len(data)
    return not any(bytes(data[start : start + _WINDOW]).strip(b"\0") for start in range(at, len(data), _WINDOW))
