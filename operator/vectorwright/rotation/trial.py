"""Whether a store accepts a key: tried with the store's own client, by a call that every key may make."""

from __future__ import annotations

from dataclasses import replace

from vectorwright.errors import Terminal
from vectorwright.stores.registry import Connection, open_store

from .base import KeyMaterial


async def accepted_by_store(connection: Connection, key: KeyMaterial) -> bool:
    """Lists the store's indexes with the key. For keys that may do so: 401 and 403 both count as refused.

    Raises Terminal (but for ``AccessDenied``), Retryable.
    """
    store = open_store(replace(connection, credentials=key.credentials))
    try:
        await store.list_indexes()
    except Terminal as error:
        if error.reason != "AccessDenied":
            raise
        return False
    finally:
        await store.close()
    return True
