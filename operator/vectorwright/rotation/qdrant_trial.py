"""Whether a Qdrant server takes a key or token: tried by listing collections, which each of them may do.

A listing shows a token's own collections alone and refuses nothing for want of a right. So a refusal is always one of
the key: 401, or 403 where a token's signature or age is the reason (the server tells no more of them apart).
"""

from __future__ import annotations

import re
from dataclasses import replace

from vectorwright.errors import Retryable, Terminal
from vectorwright.stores.http_errors import UNEXPECTED_ANSWER
from vectorwright.stores.qdrant.messages import grpc
from vectorwright.stores.qdrant.transport import QdrantApi
from vectorwright.stores.registry import Connection, StoreCredentials

_OF_A_PROXY = "http2 header with status"
"""In what gRPC tells of an answer that is none of gRPC: Qdrant refuses with a status of gRPC."""


async def refusal(connection: Connection, key: str | None) -> str | None:
    """None where the server takes the key, else what it said. Every call has a connection of its own.

    Raises Terminal (but for ``AccessDenied``), Retryable.
    """
    api = QdrantApi(replace(connection, credentials=StoreCredentials(token=key or None)), apart=True)
    try:
        await api.call("Collections/List", grpc.ListCollectionsRequest(), grpc.ListCollectionsResponse)
    except Terminal as error:
        if error.reason != "AccessDenied":
            raise
        if _OF_A_PROXY in error.message:
            raise Retryable(
                f"a proxy refuses what is asked of {api.endpoint}: check what stands between",
                reason=UNEXPECTED_ANSWER,
            ) from None
        return error.message
    finally:
        await api.close()
    return None


async def require_version(connection: Connection, least: tuple[int, int], for_what: str) -> None:
    """Raise Terminal (``UnsupportedVersion``) where the server is older than that, Retryable. Asks for no key."""
    api = QdrantApi(replace(connection, credentials=StoreCredentials()), apart=True)
    try:
        found = await api.call("Qdrant/HealthCheck", grpc.HealthCheckRequest(), grpc.HealthCheckReply)
    finally:
        await api.close()
    numbers = re.match(r"(\d+)\.(\d+)", found.version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < least:
        raise Terminal(
            f"{api.endpoint} is Qdrant {found.version[:20]!r}: {for_what} needs {least[0]}.{least[1]} or newer",
            reason="UnsupportedVersion",
        )
