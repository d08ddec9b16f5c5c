"""The methods of the protocol that a store without the capability answers: bases for such stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import NoReturn, Self

from vectorwright.errors import Terminal


class ClosingStore(ABC):
    """Closes as a context manager."""

    @abstractmethod
    async def close(self) -> None:
        """Release connections. Safe to call twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class StoreWithoutNamespaces(ClosingStore):
    """For stores whose indexes are not divided."""

    async def delete_namespace(self, name: str, namespace: str) -> None:
        """Raises Terminal (``UnsupportedNamespace``)."""
        raise Terminal(
            f"namespace {namespace[:100]!r} of index {name[:200]!r}: this store has no namespaces within an index",
            reason="UnsupportedNamespace",
        )


class StoreWithoutAliases(ClosingStore):
    """For stores whose indexes have one name."""

    async def aliases(self) -> dict[str, str]:
        """None: this store has no aliases."""
        return {}

    async def set_alias(self, alias: str, index: str) -> None:
        """Raises Terminal (``UnsupportedAlias``)."""
        self._refuse(alias)

    async def delete_alias(self, alias: str) -> None:
        """Raises Terminal (``UnsupportedAlias``)."""
        self._refuse(alias)

    def _refuse(self, alias: str) -> NoReturn:
        raise Terminal(f"alias {alias[:200]!r}: this store has no aliases", reason="UnsupportedAlias")
