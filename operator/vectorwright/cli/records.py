"""What commands that read or write the records of an index share."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vectorwright.api.v1alpha1 import VectorIndex
from vectorwright.errors import NotFound, Terminal
from vectorwright.kube import resources
from vectorwright.stores.base import Store

from .connecting import Cluster, get_store, open_described

_TELL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class OpenIndex:
    """An index, and its store opened with the credentials for records."""

    resource: VectorIndex
    provider: str
    store: Store

    @property
    def name(self) -> str:
        """Name of the physical index."""
        return self.resource.status.physical_name or self.resource.metadata.name


@asynccontextmanager
async def open_index(cluster: Cluster, name: str, namespace: str | None) -> AsyncIterator[OpenIndex]:
    """The index of a VectorIndex, and one namespace of it. Raises Terminal, Retryable."""
    try:
        body = await cluster.client.get(resources.VECTOR_INDEXES, name, cluster.namespace)
    except NotFound:
        raise Terminal(f"VectorIndex {name} does not exist in namespace {cluster.namespace}") from None
    index = VectorIndex.model_validate(body)
    if index.status.physical_name is None:
        raise Terminal(f"VectorIndex {name} was not reconciled yet", reason="IndexNotReady")
    store = await get_store(cluster, index.spec.store_ref.name)
    async with await open_described(cluster.client, store, data=True, namespace=namespace or "") as opened:
        await opened.probe()
        yield OpenIndex(index, store.spec.provider, opened)


class Ticker:
    """Tells on standard error how far a command is, every other second, where somebody looks."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._begun = self._told = time.monotonic()
        self._watched = sys.stderr.isatty()

    def tell(self, records: int) -> None:
        """So many records are done."""
        now = time.monotonic()
        if self._watched and now - self._told >= _TELL_SECONDS:
            self._told = now
            rate = records / max(0.1, now - self._begun)
            print(f"vectorwright {self._command}: {records:,} records, {rate:,.0f}/s", file=sys.stderr)
