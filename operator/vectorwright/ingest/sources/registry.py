"""Opens the source that a run names."""

from __future__ import annotations

from pathlib import Path

from vectorwright.errors import Terminal
from vectorwright.ingest.contracts import Source
from vectorwright.ingest.network import AddressPolicy
from vectorwright.ingest.parsers.limits import document_limit
from vectorwright.ingest.runspec import RunSpec

from .config_map import ConfigMapDocuments
from .git import GitRepository
from .inline import InlineDocuments
from .web import WebDocuments


def open_source(spec: RunSpec, directory: Path) -> Source:
    """The source of a run. ``directory`` is laid out as :mod:`vectorwright.ingest.runspec` says.

    Reads credentials and certificates, talks to nobody: ``pin`` does. Raises Terminal when the spec names no source or
    several, or when credentials that it names are not there.
    """
    source = spec.source
    limit = document_limit(spec.parse)
    named = [name for name in ("git", "http", "config_map", "inline") if getattr(source, name) is not None]
    if len(named) != 1:
        raise Terminal(
            f"spec.source needs exactly one of git, http, configMap and inline; it has {' and '.join(named) or 'none'}"
        )
    if source.git is not None:
        return GitRepository(spec, source.git, directory, AddressPolicy(spec.network.allow_networks), limit)
    if source.http is not None:
        return WebDocuments(source.http, directory, AddressPolicy(spec.network.allow_networks), limit)
    if source.config_map is not None:
        return ConfigMapDocuments(source.config_map, directory / "configmap")
    if source.inline is not None:
        return InlineDocuments(source.inline)
    raise AssertionError(named)
