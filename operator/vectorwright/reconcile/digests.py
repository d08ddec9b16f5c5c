"""Digests of what holds secrets: they tell that something changed, and nothing of what it is."""

from __future__ import annotations

import hashlib
import os

_PROCESS_KEY = os.urandom(32)
"""Makes digests useless outside this process: a weak password cannot be guessed from one."""


def secret_digest(content: bytes, size: int = 16) -> str:
    """Changes whenever ``content`` does, within this process: ``2 * size`` hex digits."""
    return hashlib.blake2b(content, digest_size=size, key=_PROCESS_KEY).hexdigest()
