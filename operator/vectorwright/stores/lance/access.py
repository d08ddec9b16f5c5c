"""Where Lance tables are: on a volume, behind the store server that owns it, or in a bucket, reached directly."""

from __future__ import annotations

from ..base import Store
from ..registry import Connection
from .bucket import bucket_of


def open_store(connection: Connection) -> Store:
    """The tables that ``connection.settings`` names. No request is made yet."""
    bucket = bucket_of(connection)
    if bucket is not None:
        from .bucket_store import open_bucket  # noqa: PLC0415 - what is not asked for is not loaded

        return open_bucket(connection, bucket)
    from ..remote import RemoteStore  # noqa: PLC0415

    return RemoteStore(connection)
