"""What a run reaches others with, read again from its directory whenever the files there change.

A worker asks nobody for credentials: in a pod the kubelet replaces the files of the projected volume, beside the
operator the operator does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vectorwright.stores.base import Store
from vectorwright.stores.registry import Connection, StoreCredentials, open_store
from vectorwright.stores.renewal import PolledRenewal, with_renewal
from vectorwright.stores.renewing import RenewingStore

from .contracts import Embedded, Embedder
from .embedders.registry import PROBE_TEXT, open_embedder
from .run_directory import at_one_moment, origin_connection, read_ca, read_secret, store_connection
from .runspec import EmbedderTarget, RunSpec, StoreOrigin


def open_run_store(spec: RunSpec, directory: Path) -> Store:
    """The store that a run writes to. No request is made yet. Raises what :func:`open_store` raises."""
    return _renewing("the store", directory, lambda place: store_connection(spec, place))


def open_run_origin(spec: RunSpec, origin: StoreOrigin, directory: Path) -> Store:
    """The store that a copy reads from. No request is made yet. Raises what :func:`open_store` raises."""
    return _renewing("the store that is copied", directory, lambda place: origin_connection(spec, origin, place))


def _renewing(what: str, directory: Path, read: Callable[[Path], Connection]) -> Store:
    bare = at_one_moment(directory, read).credentials == StoreCredentials()

    def usable() -> Connection | None:
        found = at_one_moment(directory, read)
        # Files that are gone are no news: the directory is being removed, or the Secret lost its keys.
        return found if bare or found.credentials != StoreCredentials() else None

    async def verify(store: Store) -> None:
        await store.probe()

    renewal = PolledRenewal[Connection, Store](what, usable, open_store, verify)
    return RenewingStore(renewal, renewal.client.capabilities)


class RenewingEmbedder:
    """An embedder whose token, and whose server's certificate authorities, may change: see :class:`Embedder`.

    A new token is tried with one short text before batches go out with it.
    """

    def __init__(self, target: EmbedderTarget, directory: Path) -> None:
        """Open it. No request is made yet. Raises what :func:`open_embedder` raises."""

        def both(place: Path) -> tuple[StoreCredentials, str | None]:
            return read_secret(place, "embedder"), read_ca(place, "embedder")

        bare = at_one_moment(directory, both)[0] == StoreCredentials()

        def usable() -> tuple[StoreCredentials, str | None] | None:
            found = at_one_moment(directory, both)
            return found if bare or found[0] != StoreCredentials() else None

        def opened(found: tuple[StoreCredentials, str | None]) -> Embedder:
            secret, authorities = found
            return open_embedder(target.spec, token=secret.token or secret.password, ca=authorities)

        async def verify(embedder: Embedder) -> None:
            await embedder.embed([PROBE_TEXT])

        self._renewal = PolledRenewal("the embedding endpoint", usable, opened, verify)
        self.batch_size = self._renewal.client.batch_size

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """See :class:`Embedder`."""
        return await with_renewal(self._renewal, lambda embedder: embedder.embed(texts))

    async def close(self) -> None:
        """See :class:`Embedder`."""
        await self._renewal.close()
