"""What stores without aliases have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import NoReturn, Self

from vectorwright.errors import Terminal


class StoreWithoutAliases(ABC):
    """Answers the alias methods of the protocol, and closes as a context manager."""

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

    @abstractmethod
    async def close(self) -> None:
        """Release connections. Safe to call twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
