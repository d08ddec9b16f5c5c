"""kopf, imported without the official client.

kopf imports the package ``kubernetes`` at once where it is installed, only to see whether it could log in through it.
We log in by ourselves, and the package takes 20 MiB of a memory budget of 150.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(*packages: str) -> Iterator[None]:
    """Make imports of packages that are not loaded yet fail for a while."""
    absent = [name for name in packages if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # how Python marks what cannot be imported
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


with _hidden("kubernetes", "kubernetes_asyncio", "pykube"):
    import kopf

__all__ = ["kopf"]
