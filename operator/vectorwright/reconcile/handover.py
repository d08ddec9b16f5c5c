"""What a worker is handed: a specification and files. Where they come from is told, for those that a pod mounts."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from vectorwright.ingest.runspec import RunSpec

from .digests import secret_digest


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file that the worker finds in its directory, and the Secret or ConfigMap key that it comes from."""

    path: str
    kind: str
    """Secret or ConfigMap."""
    name: str
    key: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RunInputs:
    """Everything that one run needs."""

    spec: RunSpec
    files: tuple[RunFile, ...]
    backend_id: str
    incarnation: str

    def digest(self) -> str:
        """Changes when a file or the way to the store does: 16 hex digits that tell nothing of their contents."""
        content = [(file.path, file.content.hex()) for file in self.files]
        places = [self.spec.store.settings]
        if self.spec.source_store is not None:
            places.append(self.spec.source_store.settings)
        parts = orjson.dumps([content, *places], option=orjson.OPT_SORT_KEYS)
        return secret_digest(parts, 8)
