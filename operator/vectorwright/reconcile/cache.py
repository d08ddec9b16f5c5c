"""The latest known state of every watched object, as the watch delivered it or our own writes returned it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Body = Mapping[str, Any]


class Key(NamedTuple):
    """Names one object."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def _version(body: Body) -> int:
    """The resourceVersion as a number: Kubernetes promises that those of one kind can be compared so."""
    text = str(body.get("metadata", {}).get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0


_MOST_SHARED = 32
"""Characters of a value that is worth sharing: reasons, names of fields and kinds, times; not messages."""


def shared(value: Any) -> Any:
    """The same JSON value, whose keys and short strings exist once in this process, however many objects hold them.

    The parser makes them anew for each object: with a thousand objects that is a tenth of the operator's memory.
    """
    if isinstance(value, str):
        return sys.intern(value) if len(value) <= _MOST_SHARED and type(value) is str else value
    if isinstance(value, dict):
        return {sys.intern(name) if type(name) is str else name: shared(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shared(item) for item in value]
    return value


_GONE_REMEMBERED = 4096
"""Objects that are remembered as gone: answers to our own writes can arrive later than the end of what they are of."""
_WRITES_REMEMBERED = 8
"""Versions that are remembered as our own, an object: a pass makes three at most."""


class ObjectCache:
    """Objects by kind, namespace and name. Never goes back: a watch event older than our own last write is dropped."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Body]] = {}
        self._gone: dict[str, None] = {}
        """UIDs, the oldest first."""
        self._written: dict[Key, tuple[str, ...]] = {}

    def put(self, kind: str, body: Body, *, written: bool = False) -> bool:
        """Store an object without its managed fields. False when a newer state is known, or that it is gone.

        ``written`` says that this is the answer to a write of ours, and not an event of the watch.
        """
        metadata = body["metadata"]
        key = (str(metadata.get("namespace", "")), str(metadata["name"]))
        objects = self._objects.setdefault(kind, {})
        known = objects.get(key)
        if metadata.get("uid") in self._gone:
            return False
        if written:
            place = Key(kind, *key)
            versions = (str(metadata.get("resourceVersion")), *self._written.get(place, ()))
            self._written[place] = versions[:_WRITES_REMEMBERED]
        if known is not None and _version(known) > _version(body):
            return False
        kept = {name: value for name, value in metadata.items() if name != "managedFields"}
        objects[key] = shared({**body, "metadata": kept})
        return True

    def was_written(self, key: Key, version: str) -> bool:
        """Whether a version of an object is one that our own last writes made."""
        return version in self._written.get(key, ())

    def drop(self, key: Key, uid: str) -> None:
        """Forget an object that is gone, unless another of the same name took its place."""
        if uid:
            self._gone[uid] = None
            if len(self._gone) > _GONE_REMEMBERED:
                del self._gone[next(iter(self._gone))]
        objects = self._objects.get(key.kind, {})
        known = objects.get((key.namespace, key.name))
        if known is not None and known["metadata"].get("uid") == uid:
            del objects[key.namespace, key.name]
            self._written.pop(key, None)

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        """The object, or None when it does not exist."""
        return self._objects.get(kind, {}).get((namespace, name))

    def all(self, kind: str, namespace: str | None = None) -> Iterator[Body]:
        """All objects of a kind, of one namespace or of all. The cache must not change while this is read."""
        for (place, _), body in self._objects.get(kind, {}).items():
            if namespace is None or place == namespace:
                yield body
