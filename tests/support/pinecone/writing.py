"""What the data plane of the double takes: ids, vectors and metadata within the documented limits."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from .holding import Held, Index
from .refusals import Refusal

MAX_RECORDS = 1_000
MAX_REQUEST_BYTES = 2 * 2**20
MAX_METADATA_BYTES = 40 * 2**10
MAX_ID = 512


def check_ids(ids: Any, most: int) -> None:
    """Refuse ids that no record has (400)."""
    if not isinstance(ids, list) or not 1 <= len(ids) <= most:
        raise Refusal(400, f"between 1 and {most} ids are needed")
    for one in ids:
        check_id(one)


def check_id(one: Any) -> None:
    if not isinstance(one, str) or not 1 <= len(one) <= MAX_ID or not one.isascii() or "\0" in one:
        raise Refusal(400, f"Vector ID must be ASCII of 1 to {MAX_ID} characters, but got {str(one)[:64]!r}")


def parse_vectors(vectors: Any, index: Index) -> dict[str, Held]:
    """The records of an upsert, all or none."""
    if not isinstance(vectors, list) or not vectors:
        raise Refusal(400, "vectors must be a nonempty list")
    if len(vectors) > MAX_RECORDS:
        raise Refusal(400, f"Cannot upsert more than {MAX_RECORDS} vectors in a single request")
    return dict(_record(one, index) for one in vectors)


def _record(one: dict[str, Any], index: Index) -> tuple[str, Held]:
    check_id(one.get("id"))
    values = np.asarray(one.get("values") or [], np.float32)
    if len(values) != index.dimension:
        raise Refusal(
            400, f"Vector dimension {len(values)} does not match the dimension of the index {index.dimension}"
        )
    if not np.isfinite(values).all():
        raise Refusal(400, "Vector values must be finite")
    if not values.any():
        raise Refusal(400, "Dense vectors must contain at least one non-zero value")
    return one["id"], Held(values, kept(one.get("metadata") or {}), one.get("sparseValues"))


def kept(metadata: dict[str, Any]) -> dict[str, Any]:
    """As it is kept: numbers are doubles, nulls are gone."""
    if len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()) > MAX_METADATA_BYTES:
        raise Refusal(400, f"metadata size exceeds the limit of {MAX_METADATA_BYTES} bytes per vector")
    held: dict[str, Any] = {}
    for name, value in metadata.items():
        if name.startswith("$"):
            raise Refusal(400, f"metadata keys may not begin with $, got {name!r}")
        if value is None:
            continue
        if isinstance(value, bool | str):
            held[name] = value
        elif isinstance(value, int | float):
            held[name] = float(value)
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            if value:  # what is not there is never said to be an empty list
                held[name] = list(value)
        else:
            raise Refusal(
                400,
                "Metadata value must be a string, number, boolean or list of strings, "
                f"got {str(value)[:16]!r} for field {name!r}",
            )
    return held
