"""A store whose credentials change while it is in use: every call on it may be repeated with other ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from hashlib import blake2b
from typing import TypeVar

from vectorwright.errors import Retryable, Terminal

from .base import Capabilities, Record, Store
from .filters import Filter
from .renewal import Renewal, is_refusal, with_renewal
from .wrapped import WrappedStore

T = TypeVar("T")

RESUMABLE_RECORDS = 200_000
"""Records that a scroll may have given and still be resumed with another key: it remembers 16 bytes of each, and for
the rest of a scroll that was resumed some 100. A longer one is begun anew by whoever reads it."""


class RenewingStore(WrappedStore):
    """The store that a :class:`~.renewal.Renewal` opens. Every method is that of :class:`~.base.Store`.

    A call that is refused because its key died is repeated with the next key. A call that is refused did nothing, so
    repeating it does nothing twice.
    """

    def __init__(self, renewal: Renewal[Store], capabilities: Capabilities) -> None:
        """``capabilities`` are those known so far; a probe may refine them."""
        self._renewal = renewal
        self.capabilities = capabilities

    async def _call(self, operation: str, function: Callable[[Store], Awaitable[T]]) -> T:
        return await with_renewal(self._renewal, function)

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncGenerator[list[Record]]:
        """See :class:`~.base.Store`. A scroll whose key dies is begun anew, and what it gave already is left out.

        Raises Retryable (``CredentialsRenewed``) where it gave more than :data:`RESUMABLE_RECORDS`: there are other
        credentials, and the reader has to begin anew.
        """
        given = _Given()
        handle = await self._renewal.current()
        while True:
            try:
                with handle.used() as store:
                    pages = store.scroll(name, where, vectors=vectors, metadata=metadata, page=page)
                    async with aclosing(pages) as opened:  # type: ignore[type-var]
                        async for records in opened:
                            handle.worked = True
                            if new := given.take(records):
                                yield new
            except Terminal as error:
                if not is_refusal(error):
                    raise
                refused = error
            else:
                return
            handle = await self._renewal.renewed(handle, refused)
            given.resume()

    async def close(self) -> None:
        """See :class:`~.base.Store`."""
        await self._renewal.close()


class _Given:
    """Which records a scroll gave, while there are few enough of them to be remembered."""

    def __init__(self) -> None:
        self._count = 0
        self._digests = bytearray()
        self._skipped: set[bytes] | None = None
        """Of what was given before the scroll was resumed."""

    def take(self, records: list[Record]) -> list[Record]:
        """Those of a page that were not given yet: they are, now."""
        new = records
        if self._skipped is not None:
            new = [record for record in records if _digest(record) not in self._skipped]
        self._count += len(new)
        if self._count > RESUMABLE_RECORDS:
            self._digests.clear()
        else:
            for record in new:
                self._digests += _digest(record)
        return new

    def resume(self) -> None:
        """The scroll is begun anew. Raises Retryable where too much was given to know it again."""
        if self._count > RESUMABLE_RECORDS:
            raise Retryable(
                f"the key was changed after {self._count:,} records of a listing, which has to be begun anew",
                reason="CredentialsRenewed",
            )
        self._skipped = {bytes(self._digests[start : start + 16]) for start in range(0, len(self._digests), 16)}


def _digest(record: Record) -> bytes:
    return blake2b(record.id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
