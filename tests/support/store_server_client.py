"""Clients of a store server of the tests, and records for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tests.support.store_server import StoreServer

from vectorwright.stores.base import Metadata, RecordBatch, Store
from vectorwright.stores.registry import Connection, StoreCredentials, open_store

DIMENSION = 8


def connect(server: StoreServer, provider: str = "lance", **changes: Any) -> Store:
    settings = {"server": server.url}
    connection = Connection(provider, settings, credentials=StoreCredentials(token=server.token))
    return open_store(replace(connection, **changes))


def batch(*ids: str, metadata: Metadata | None = None) -> RecordBatch:
    vectors = np.random.default_rng(len(ids)).standard_normal((len(ids), DIMENSION)).astype(np.float32)
    return RecordBatch(list(ids), vectors, [dict(metadata or {}) for _ in ids], [None for _ in ids])
