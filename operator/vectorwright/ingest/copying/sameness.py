"""Whether a record that is there already is the one that would be written."""

from __future__ import annotations

import numpy as np
import orjson

from vectorwright.stores.base import Metadata, Record, Vectors

UNIT_TOLERANCE = 2e-6
"""How far two numbers of one unit vector may be apart that two stores scaled, in float32: some 30 units of the last
place."""


def canonical(metadata: Metadata) -> bytes:
    """Metadata in one form: 1, 1.0 and true differ, the order of the fields does not matter."""
    return orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)


def same_vector(wanted: Vectors, found: Vectors, *, scaled: bool) -> bool:
    """Whether two vectors of shape (d,) are equal.

    ``scaled``: the store scales what it is given to length 1, at once (Qdrant) or after a while (Chroma).
    """
    if np.array_equal(wanted, found):
        return True
    if not scaled or wanted.shape != found.shape:
        return False
    length = float(np.linalg.norm(wanted.astype(np.float64)))
    if not length:
        return False
    return bool(np.abs(wanted / length - found).max() <= UNIT_TOLERANCE)


def same_record(metadata: Metadata, wanted: Record, found: Record, *, scaled: bool) -> bool:
    """Whether ``found`` holds text and vector of ``wanted``, and this metadata."""
    return (
        wanted.text == found.text
        and wanted.vector is not None
        and found.vector is not None
        and same_vector(wanted.vector, found.vector, scaled=scaled)
        and canonical(metadata) == canonical(found.metadata)
    )
