"""Where Lance tables are: on a volume, behind the store server that owns it, or in a bucket."""

from __future__ import annotations

from ..base import Store
from ..registry import Connection


def open_store(connection: Connection) -> Store:
    """The tables that ``connection.settings`` names. No request is made yet."""
    from ..remote import RemoteStore  # noqa: PLC0415 - what is not asked for is not loaded

    return RemoteStore(connection)
