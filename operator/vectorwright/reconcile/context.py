"""What every reconciler is handed: the API server, the cache, credentials, stores, events, and a way to be woken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from vectorwright.ingest.embedders.registry import EmbedderInfo
from vectorwright.ingest.runspec import RunSpec
from vectorwright.kube.client import KubeClient
from vectorwright.kube.events import EventRecorder
from vectorwright.kube.watched import WatchedObjects
from vectorwright.rotation.base import KeyIssuer
from vectorwright.settings import Settings
from vectorwright.stores.base import IndexDescription

from .cache import Key, ObjectCache
from .runners import Runners
from .sessions import StoreSessions

if TYPE_CHECKING:
    from vectorwright.stores.local_server import LocalStoreServers


@dataclass(slots=True)
class Context:
    """The operator's working parts. One instance a process, used from one event loop."""

    settings: Settings
    installation: str
    """Id of this installation, part of every ownership mark."""
    client: KubeClient
    cache: ObjectCache
    secrets: WatchedObjects
    config_maps: WatchedObjects
    events: EventRecorder
    sessions: StoreSessions
    local_stores: LocalStoreServers | None
    runners: Runners
    enqueue: Callable[[Key], None]
    enqueue_after: Callable[[Key, float], None]
    last_seen: dict[Key, IndexDescription | None] = field(default_factory=dict)
    """What each VectorIndex last saw in its store: the store's listing wakes only those that differ."""
    probed: dict[Key, tuple[str, EmbedderInfo]] = field(default_factory=dict)
    """What each EmbeddingModel was found to be, under the digest of what it was asked with."""
    uses: dict[Key, frozenset[tuple[str, str, str]]] = field(default_factory=dict)
    """(kind, namespace, name) of the Secrets and ConfigMaps that each object reads: who is woken when one changes."""
    runs: dict[Key, tuple[str, RunSpec]] = field(default_factory=dict)
    """Backend id and specification of the runs that go on, for sharing out limits."""
    retry_at: dict[Key, float] = field(default_factory=dict)
    """``time.monotonic()`` before which a failed run does not start again."""
    progress_written: dict[Key, float] = field(default_factory=dict)
    """``time.monotonic()`` of the last write of an IngestionJob's progress."""
    counted_at: dict[Key, float] = field(default_factory=dict)
    """``time.monotonic()`` of the last counting of a VectorStore's indexes, where it asks for that."""
    issuers: dict[Key, tuple[str, KeyIssuer]] = field(default_factory=dict)
    """The open issuer of each APIKeyRotation, under the digest of what it was opened with."""
    keys_seen: dict[Key, tuple[str, datetime]] = field(default_factory=dict)
    """The label of the key that each APIKeyRotation's store was last seen to accept, and when."""
    keys_refused: dict[Key, tuple[str, datetime, int]] = field(default_factory=dict)
    """The label of a published key that its store refuses, since when, and how often."""
    handed: dict[Key, str] = field(default_factory=dict)
    """Digest of what an IngestionJob's last worker was handed: where that failed, another one is worth another run."""
