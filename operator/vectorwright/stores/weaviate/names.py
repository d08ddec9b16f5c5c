"""Names of indexes as names of Weaviate's collections, and back.

A collection begins with a capital letter and holds letters, digits and ``_`` only. Weaviate's own clients write the
first letter as a capital for whoever did not; so the index ``docs`` is the collection ``Docs``, and ``docs-g1`` is
``Docs__g1``. Every collection has exactly one index name, also those that others made, and is found by it.
"""

from __future__ import annotations

import re

NAME_PATTERN = r"^(?!.*(__|_-))[a-z][A-Za-z0-9_-]{0,119}$"
"""Names that can be told back from their collections: ``__`` stands for a dash there."""

_NAME = re.compile(r"(?!.*(__|_-))[a-z][A-Za-z0-9_-]{0,254}")
_COLLECTION = re.compile(r"[A-Z][A-Za-z0-9_]{0,254}")


def collection_name(index: str) -> str | None:
    """The collection (or alias) of an index's name; None where no collection can have that name."""
    if not _NAME.fullmatch(index):
        return None
    name = index[0].upper() + index[1:].replace("-", "__")
    return name if _COLLECTION.fullmatch(name) else None


def index_name(collection: str) -> str:
    """The index's name of a collection or an alias."""
    return collection[:1].lower() + collection[1:].replace("__", "-")
