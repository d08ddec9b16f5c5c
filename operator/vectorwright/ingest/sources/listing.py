"""A fingerprint of what a source lists, for sources that have no revision of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def listing_hash(items: Iterable[tuple[str, ...]]) -> str:
    """``sha256:<hex>`` of the items, whatever their order. No two different lists of items are encoded alike."""
    digest = hashlib.sha256()
    for item in sorted(items):
        for part in item:
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(f"{len(encoded)}:".encode())
            digest.update(encoded)
        digest.update(b"\n")
    return f"sha256:{digest.hexdigest()}"
