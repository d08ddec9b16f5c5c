"""What Milvus answers and what gRPC fails with, as our errors: translated here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import grpc

from vectorwright.errors import (
    BatchRejected,
    BatchTooLarge,
    Conflict,
    NotFound,
    Retryable,
    Terminal,
    VectorwrightError,
)

from ..http_errors import MAX_RETRY_AFTER, THROTTLED, UNEXPECTED_ANSWER
from ..safe_text import safe_text
from ..tls import VERIFICATION_FAILED


class NotLoaded(Retryable):
    """The collection is not in memory: it answers no search and no query until it is loaded."""

    default_reason = "CollectionNotLoaded"


class Missing(NotFound):
    """Milvus itself says that there is no such collection, or no such alias."""


class PartitionNotFound(NotFound):
    """There is no such partition: nobody wrote to that namespace yet."""


class Denied(Terminal):
    """Access was refused. ``known`` says whether Milvus knows the user, who lacks a right then; None where it is not
    Milvus that refused.

    It also knows nobody while the part of it that holds the users is down. ``told`` is what it said, and may be shown.
    """

    default_reason = "AccessDenied"

    def __init__(self, message: str, *, known: bool | None, told: str) -> None:
        super().__init__(message)
        self.known, self.told = known, told


class IndexNotFound(NotFound):
    """A field has no index."""


# Codes of pkg/util/merr/errors.go of Milvus 2.4 to 2.6.
_COLLECTION_NOT_FOUND = 100
_NOT_LOADED = {101, 103, 201, 202}
_PARTITION_NOT_FOUND = 200
_INDEX_NOT_FOUND = {700, 11}
"""milvus-lite also gives the code that 2.2 had."""
_DATABASE_NOT_FOUND = 800
_THROTTLED = {4, 8, 9, 1807}
"""Too many requests, rate limit, quota."""
_DENIED = {1400, 1401, 1800}
_NOT_AUTHENTICATED = {1400, 1800}
_TOO_LARGE = 1102
_REFUSED = {6, 105, 107, 701, 802, 1100, 1101, 1700, 1701, 1801, 1802, 1803, 1804, 1806, 2001, 3000}
"""What was asked makes no sense to it. 6 is milvus-lite's: the same meaning under the code that 2.2 had."""
_TIMEOUT = 10001
_ALIAS_NOT_FOUND = {1600, 1603}
_ALIAS_TAKEN = {1601, 1602}
_NO_DATABASE = re.compile(r"database .*(not found|does not exist|not exist)", re.IGNORECASE)
_EXISTS = re.compile(r"already exist|file exists|duplicate collection", re.IGNORECASE)
"""Milvus says it with the code of the unexpected, milvus-lite with that of a server that is not ready."""
_NO_PARTITION = re.compile(r"partition.*(not found|not exist)", re.IGNORECASE)


def status_error(  # noqa: PLR0911, PLR0912 - one a meaning
    status: Any, endpoint: str, *, writes: bool = False, secrets: Iterable[str | None] = ()
) -> VectorwrightError | None:
    """What a status that Milvus answered means; None where it is success. ``writes`` is said of records only."""
    code = int(status.code) or int(status.error_code)
    if code == 0:
        return None
    said = f"{safe_text(status.reason, secrets)} (code {code})"
    if code == _COLLECTION_NOT_FOUND:
        return Missing(f"{endpoint}: {said}")
    if code in _NOT_LOADED:
        return NotLoaded(f"{endpoint}: {said}")
    if code == _PARTITION_NOT_FOUND:
        return PartitionNotFound(f"{endpoint}: {said}")
    if code in _INDEX_NOT_FOUND and "index" in status.reason.lower():
        return IndexNotFound(f"{endpoint}: {said}")
    if code == _DATABASE_NOT_FOUND or _NO_DATABASE.search(status.reason):
        return Terminal(
            f"{endpoint}: {said}: make the database, or correct spec.milvus.database", reason="DatabaseNotFound"
        )
    if code in _DENIED:
        return _denied(endpoint, said, known=code not in _NOT_AUTHENTICATED)
    if code in _THROTTLED:
        return Retryable(f"{endpoint} is busy: {said}", reason=THROTTLED)
    if code == _TIMEOUT:
        return Retryable(f"{endpoint} did not answer in time: {said}", reason="Timeout")
    if code in _ALIAS_NOT_FOUND:
        return Missing(f"{endpoint}: {said}")
    if code in _ALIAS_TAKEN:
        return Conflict(f"{endpoint}: {said}", reason="AlreadyExists")
    if code == _TOO_LARGE and writes:
        return BatchTooLarge(f"{endpoint} refused the write for its size: {said}")
    if code in _REFUSED or code == _TOO_LARGE:
        if _NO_PARTITION.search(status.reason):
            return PartitionNotFound(f"{endpoint}: {said}")
        return _refused(endpoint, said, writes=writes)
    if _EXISTS.search(status.reason):
        return Conflict(f"{endpoint} has it already: {said}", reason="AlreadyExists")
    return Retryable(f"{endpoint} cannot do it now: {said}")


def _denied(endpoint: str, said: str, *, known: bool | None) -> Denied:
    return Denied(
        f"{endpoint} refused access: {said}: check the Secret and what its user may do", known=known, told=said
    )


def _refused(endpoint: str, said: str, *, writes: bool) -> Terminal:
    if writes:
        return BatchRejected(f"{endpoint} refused the records: {said}")
    return Terminal(f"{endpoint} refused the request: {said}", reason="RequestRefused")


_TOO_LONG = re.compile(r"larger than max|message length|too large", re.IGNORECASE)
_BAD_CERTIFICATE = re.compile(r"certificate.verify|Verification Check failed|not in peer certificate", re.IGNORECASE)
_BAD_HANDSHAKE = re.compile(r"handshake|SSL_ERROR|WRONG_VERSION", re.IGNORECASE)
_NOBODYS = re.compile(r"http2 header with status: (\d+)", re.IGNORECASE)


def rpc_error(  # noqa: PLR0911 - one a status
    error: grpc.aio.AioRpcError, endpoint: str, *, writes: bool = False, secrets: Iterable[str | None] = ()
) -> VectorwrightError:
    """What a call without an answer of Milvus' own means."""
    details = error.details() or ""
    said = safe_text(details, secrets)
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Retryable(f"{endpoint} did not answer in time", reason="Timeout")
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            own = _NOBODYS.search(details) is None
            known = error.code() is grpc.StatusCode.PERMISSION_DENIED
            return _denied(endpoint, said, known=known if own else None)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if _TOO_LONG.search(details):
            if writes:
                return BatchTooLarge(f"{endpoint} refused the write for its size: {said}")
            return Terminal(f"{endpoint} refused the request for its size: {said}", reason="RequestRefused")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Retryable(f"{endpoint} is busy: {said}", reason=THROTTLED, after=_after(error))
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(f"{endpoint} does not know it: {said}")
        case grpc.StatusCode.ALREADY_EXISTS:
            return Conflict(f"{endpoint} has it already: {said}", reason="AlreadyExists")
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.FAILED_PRECONDITION:
            return _refused(endpoint, said, writes=writes)
        case grpc.StatusCode.UNIMPLEMENTED if not _NOBODYS.search(details):
            return Terminal(
                f"{endpoint} does not know this call: {said}: Milvus 2.4 or newer is needed", reason="UnsupportedServer"
            )
        case grpc.StatusCode.UNAVAILABLE if _BAD_CERTIFICATE.search(details):
            return Terminal(
                f"the certificate of {endpoint} is not trusted: set the CA bundle or the server name in spec.tls",
                reason=VERIFICATION_FAILED,
            )
        case grpc.StatusCode.UNAVAILABLE if _BAD_HANDSHAKE.search(details):
            return Retryable(
                f"the TLS handshake with {endpoint} failed: check that it speaks TLS on that port",
                reason="TLSHandshakeFailed",
            )
    return _nobodys(error, endpoint, details)


def _nobodys(error: grpc.aio.AioRpcError, endpoint: str, details: str) -> Retryable:
    """An answer that Milvus did not give: of a proxy, or none at all."""
    found = _NOBODYS.search(details)
    if found is not None and found[1] in {"429", "503"}:
        return Retryable(f"{endpoint} is busy (HTTP {found[1]})", reason=THROTTLED, after=_after(error))
    if found is not None and not found[1].startswith("5"):
        return Retryable(
            f"what answers at {endpoint} does not speak Milvus' protocol (HTTP {found[1]})", reason=UNEXPECTED_ANSWER
        )
    if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED} and found is None:
        return Retryable(f"{endpoint} cannot be reached, or broke off the connection", reason="Unreachable")
    return Retryable(f"{endpoint} failed ({error.code().name})")


def _after(error: grpc.aio.AioRpcError) -> float | None:
    """Seconds that the server asks to wait, where a proxy of HTTP passes that on."""
    for key, value in (*(error.trailing_metadata() or ()), *(error.initial_metadata() or ())):
        if key.lower() == "retry-after" and isinstance(value, str) and value.isascii() and value.isdigit():
            return min(float(value), MAX_RETRY_AFTER)
    return None
