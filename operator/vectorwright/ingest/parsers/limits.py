"""Limits of one document, with the defaults that the resource's reference tells."""

from __future__ import annotations

from vectorwright.api.v1alpha1.common import seconds
from vectorwright.api.v1alpha1.ingestionjob import Parse

DEFAULT_DOCUMENT_BYTES = 8 * 2**20
DEFAULT_TIMEOUT = "60s"


def document_limit(parse: Parse) -> int:
    """Bytes that a document may have."""
    return parse.max_document_bytes or DEFAULT_DOCUMENT_BYTES


def time_limit(parse: Parse) -> float:
    """Seconds that parsing and chunking one document may take."""
    return seconds(parse.timeout or DEFAULT_TIMEOUT)


def too_large(key: str, limit: int, size: int | None = None) -> str:
    """The message of a document that is over the limit. ``size`` is None where reading stopped at the limit."""
    has = f"has {size} bytes, more than" if size is not None else "is larger than"
    return (
        f"{key} {has} the {limit} bytes that a document may have: raise spec.parse.maxDocumentBytes, or leave it out "
        "of the source"
    )
