"""One project at a double of Pinecone, and connections to it: for what is Pinecone's own, in several files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.pinecone import PineconeDouble

from vectorwright.stores.registry import Connection, StoreCredentials

KEY = "pcsk_of_the_tests"
PROJECT = "p1a2b3c"


@contextmanager
def project_double() -> Iterator[PineconeDouble]:
    """A double that knows ``KEY`` of ``PROJECT``, and tells hosts of indexes without a scheme, as the service does."""
    with PineconeDouble({KEY: PROJECT}) as double:
        double.knobs.bare_hosts = True
        yield double


def connection(double: PineconeDouble, key: str | None = KEY, namespace: str = "", **settings: Any) -> Connection:
    """A connection to the double. ``settings`` go into the block."""
    return Connection(
        "pinecone",
        {"controlUrl": double.url, **settings},
        credentials=StoreCredentials(token=key),
        namespace=namespace,
        timeout=10,
    )
