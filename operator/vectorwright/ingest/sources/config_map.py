"""The keys of a ConfigMap, mounted into the run's directory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from vectorwright.api.v1alpha1.ingestion_source import ConfigMapSource
from vectorwright.errors import NotFound, Terminal
from vectorwright.ingest.contracts import Entry, Fetched

from .listing import listing_hash


def _read(mounted: Path) -> dict[str, bytes]:
    """Everything in a mounted ConfigMap.

    The kubelet keeps the content in a dated directory, points ``..data`` at it and swaps that link when the ConfigMap
    changes; the keys are links through ``..data``. So the content is read from what ``..data`` points at now: all keys
    are of one version. Names that begin with ``..`` are the kubelet's own, and a link that leads elsewhere is no key.
    """
    root = (mounted / "..data").resolve() if (mounted / "..data").is_dir() else mounted.resolve()
    found: dict[str, bytes] = {}
    for path in root.iterdir():
        if path.name.startswith("..") or not path.is_file() or path.resolve().parent != root:
            continue
        found[path.name] = path.read_bytes()
    return found


class ConfigMapDocuments:
    """The source of a run over a ConfigMap. It is read whole by ``pin`` (it is 1 MiB at most)."""

    def __init__(self, source: ConfigMapSource, mounted: Path) -> None:
        self._source = source
        self._mounted = mounted
        self._content: dict[str, bytes] = {}

    async def pin(self) -> str:
        """Hash of the chosen keys and their content.

        Raises Terminal ``ConfigMapNotFound`` when nothing is mounted, ``ConfigMapKeyMissing`` when a chosen key is not
        in it.
        """
        try:
            content = await asyncio.to_thread(_read, self._mounted)
        except FileNotFoundError:
            raise Terminal(
                f"ConfigMap {self._source.name} is not there: create it in the job's namespace",
                reason="ConfigMapNotFound",
            ) from None
        if self._source.keys is not None:
            missing = sorted(set(self._source.keys) - set(content))
            if missing:
                named = ", ".join(missing[:5]) + (" and others" if len(missing) > 5 else "")
                raise Terminal(
                    f"ConfigMap {self._source.name} has no key {named}: add it, or take it out of "
                    "spec.source.configMap.keys",
                    reason="ConfigMapKeyMissing",
                )
            content = {key: content[key] for key in self._source.keys}
        self._content = content
        return listing_hash((key, hashlib.sha256(data).hexdigest()) for key, data in content.items())

    async def entries(self) -> AsyncIterator[Entry]:
        """All chosen keys, sorted."""
        for key in sorted(self._content):
            data = self._content[key]
            digest = hashlib.sha256(data).hexdigest()
            yield Entry(
                key=key,
                token=digest,
                size=len(data),
                metadata={"path": key, "checksum": f"sha256:{digest}", "config_map": self._source.name},
            )

    async def fetch(self, entries: Sequence[Entry]) -> AsyncIterator[Fetched]:
        """The content that ``pin`` read."""
        for entry in entries:
            data = self._content.get(entry.key)
            if data is None:
                missing = NotFound(f"ConfigMap {self._source.name} has no key {entry.key}", reason="DocumentNotFound")
                yield Fetched(entry, error=missing)
            else:
                yield Fetched(entry, data=data)

    async def close(self) -> None:
        """Nothing is open."""
