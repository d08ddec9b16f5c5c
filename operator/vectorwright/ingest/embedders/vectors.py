"""Arithmetic that embedders share."""

from __future__ import annotations

import numpy as np

from vectorwright.stores.base import Vectors


def normalized(vectors: Vectors) -> Vectors:
    """Vectors of shape (n, d) scaled to length 1. A vector of zeros stays one: it has no direction to keep."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    lengths[lengths == 0.0] = 1.0
    return np.ascontiguousarray(vectors / lengths, dtype=np.float32)
