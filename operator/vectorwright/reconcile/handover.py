"""What a worker is handed: a specification and files. Where they come from is told, for those that a pod mounts."""

from __future__ import annotations

from collections.abc import Iterable
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

    @property
    def renewable(self) -> bool:
        """Whether a worker that runs takes up what it becomes: credentials and certificates, not its documents."""
        return not self.path.startswith("configmap/")


@dataclass(frozen=True, slots=True)
class RunInputs:
    """Everything that one run needs."""

    spec: RunSpec
    files: tuple[RunFile, ...]
    backend_id: str
    incarnation: str

    def digest(self) -> str:
        """Changes when a file or the way to the store does: hex digits that tell nothing of their contents."""
        places = [self.spec.store.settings]
        if self.spec.source_store is not None:
            places.append(self.spec.source_store.settings)
        fixed = (file for file in self.files if not file.renewable)
        return f"{_digest(fixed, *places)}-{_digest(file for file in self.files if file.renewable)}"


def renewed_digest(digest: str, files: Iterable[RunFile]) -> str:
    """The digest of what a worker has that was handed ``digest`` and took up these renewable files since."""
    return f"{digest.partition('-')[0]}-{_digest(files)}"


def _digest(files: Iterable[RunFile], *places: object) -> str:
    content = sorted((file.path, file.content.hex()) for file in files)
    return secret_digest(orjson.dumps([content, *places], option=orjson.OPT_SORT_KEYS), 8)
