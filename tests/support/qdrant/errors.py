"""Refusals of a Qdrant server, by what both of its APIs call them."""

from __future__ import annotations


class QdrantError(Exception):
    """``grpc_code`` is the name of a status, ``http`` a status code, ``said`` what the server says.

    ``at_the_door`` is one of the keys alone, which the REST API says in plain text.
    """

    def __init__(self, *, grpc_code: str, http: int, said: str, at_the_door: bool = False) -> None:
        super().__init__(said)
        self.at_the_door = at_the_door
        self.grpc_code = grpc_code
        self.http = http
        self.said = said


def bad_request(said: str) -> QdrantError:
    """A request that cannot be done as it is."""
    return QdrantError(grpc_code="INVALID_ARGUMENT", http=400, said=said)


def not_found(collection: str) -> QdrantError:
    """A collection that does not exist."""
    return QdrantError(grpc_code="NOT_FOUND", http=404, said=f"Not found: Collection `{collection}` doesn't exist!")


def already_exists(collection: str) -> QdrantError:
    """A collection that does."""
    return QdrantError(
        grpc_code="ALREADY_EXISTS", http=409, said=f"Wrong input: Collection `{collection}` already exists!"
    )


def too_large(size: int, limit: int) -> QdrantError:
    """A request above the limit."""
    said = f"Error, decoded message length too large: found {size} bytes, the limit is: {limit} bytes"
    return QdrantError(grpc_code="OUT_OF_RANGE", http=413, said=said)


def unauthenticated(said: str) -> QdrantError:
    """No key, or a wrong one."""
    return QdrantError(grpc_code="UNAUTHENTICATED", http=401, said=said, at_the_door=True)


def rejected(said: str) -> QdrantError:
    """A token that is one, and is not valid."""
    return QdrantError(grpc_code="PERMISSION_DENIED", http=403, said=said, at_the_door=True)


def forbidden(said: str) -> QdrantError:
    """A key that does not allow that."""
    return QdrantError(grpc_code="PERMISSION_DENIED", http=403, said=f"Forbidden: {said}")


def unavailable(said: str) -> QdrantError:
    """Not now."""
    return QdrantError(grpc_code="UNAVAILABLE", http=503, said=f"Service error: {said}")


_STATUSES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ALREADY_EXISTS"}
_STATUSES |= {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}


def on_purpose(status: int) -> QdrantError:
    """What a test asked for."""
    return QdrantError(grpc_code=_STATUSES.get(status, "INTERNAL"), http=status, said="failed on purpose")
