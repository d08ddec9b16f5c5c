"""gRPC statuses as our errors: Qdrant's own, and those that gRPC makes of what stands in its place."""

from __future__ import annotations

import re
from collections.abc import Iterable

import grpc
import grpc.aio

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

_UNTRUSTED = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|Peer name .* is not in peer certificate|Hostname Verification", re.IGNORECASE
)
_HANDSHAKE = re.compile(r"handshake|TSI_|WRONG_VERSION_NUMBER", re.IGNORECASE)
_NOT_QDRANT = re.compile(
    r"http2 header with status|http1\.x server|Exception deserializing|content-type|Failed parsing HTTP/2|"
    r"Error parsing|settings frame|invalid wire|Trying to connect an",
    re.IGNORECASE,
)
_NO_CONNECTION = re.compile(
    r"failed to connect|connection (refused|reset|attempt)|socket closed|broken pipe|recvmsg|sendmsg|goaway|"
    r"no route|name resolution|DNS|transport (is )?clos|connection closed|stream removed|endpoint|unreachable",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(r"too large|larger than|message length|exceeds? (the )?(maximum|max|limit)", re.IGNORECASE)
_TELLING = 600
"""Characters of a status's text that are looked at: what comes later may quote the request."""
_RATE = re.compile(r"rate limit|too many|slow down", re.IGNORECASE)


def retry_after(error: grpc.aio.AioRpcError) -> float | None:
    """Seconds that the metadata of an answer asks for."""
    for key, value in (*(error.trailing_metadata() or ()), *(error.initial_metadata() or ())):
        if str(key).lower() == "retry-after" and isinstance(value, str) and value.isascii() and value.isdigit():
            return min(float(value), MAX_RETRY_AFTER)
    return None


def rpc_error(  # noqa: PLR0911 - one status after the other
    error: grpc.aio.AioRpcError, endpoint: str, secrets: Iterable[str | None], *, writes: bool
) -> VectorwrightError:
    """What an answer that is no success means.

    A refusal of the request is BatchRejected or BatchTooLarge where the call ``writes`` records, else Terminal.
    """
    code, told = error.code(), (error.details() or "")
    detail = safe_text(told, secrets)
    told = told[:_TELLING]
    said = f": {detail}" if detail else ""
    code_of = grpc.StatusCode
    match code:
        case code_of.DEADLINE_EXCEEDED:
            return Retryable(f"{endpoint} did not answer in time", reason="Timeout")
        case code_of.UNAUTHENTICATED | code_of.PERMISSION_DENIED:
            return Terminal(
                f"{endpoint} refused the credentials ({code.name}){said}: check the Secret", reason="AccessDenied"
            )
        case code_of.NOT_FOUND:
            return NotFound(f"{endpoint} does not know it{said}")
        case code_of.ALREADY_EXISTS:
            return Conflict(f"{endpoint} has it already{said}")
        case code_of.UNAVAILABLE:
            return _unavailable(told, endpoint, said, retry_after(error))
        case code_of.OUT_OF_RANGE | code_of.RESOURCE_EXHAUSTED:
            if _TOO_LARGE.search(told) and not _RATE.search(told.split(";", 1)[0]):
                what = f"{endpoint} refused the request for its size{said}"
                return BatchTooLarge(what) if writes else Terminal(what, reason="RequestRefused")
            return Retryable(f"{endpoint} is busy{said}", reason=THROTTLED, after=retry_after(error))
        case code_of.INVALID_ARGUMENT:
            what = f"{endpoint} refused the request{said}"
            return BatchRejected(what) if writes else Terminal(what, reason="InvalidRequest")
        case code_of.UNIMPLEMENTED:
            return stranger(endpoint, said)
        case code_of.CANCELLED | code_of.ABORTED:
            return Retryable(f"{endpoint} broke off the request{said}", reason="Unreachable")
        case code_of.FAILED_PRECONDITION:
            # Writes are locked, such as by a full disk or in recovery mode.
            return Retryable(f"{endpoint} does not do that now{said}", after=retry_after(error))
    if _NOT_QDRANT.search(told):
        return stranger(endpoint, said)
    return Retryable(f"{endpoint} failed ({code.name}){said}", after=retry_after(error))


def stranger(endpoint: str, said: str = "") -> Retryable:
    """The error for an answer that is none of Qdrant's."""
    return Retryable(
        f"{endpoint} does not answer like Qdrant's gRPC API{said}: check spec.qdrant.url, spec.qdrant.grpcPort and the "
        "proxies before it",
        reason=UNEXPECTED_ANSWER,
    )


def _unavailable(told: str, endpoint: str, said: str, after: float | None) -> VectorwrightError:
    if _UNTRUSTED.search(told):
        return Terminal(
            f"the certificate of {endpoint} is not trusted: set the CA bundle or the server name in spec.tls",
            reason=VERIFICATION_FAILED,
        )
    if _HANDSHAKE.search(told):
        return Retryable(
            f"the TLS handshake with {endpoint} failed: check that it speaks TLS on that port",
            reason="TLSHandshakeFailed",
        )
    if re.search(r"http2 header with status: (429|503)", told):
        return Retryable(f"{endpoint} is busy{said}", reason=THROTTLED, after=after)
    if re.search(r"http2 header with status: 50[24]", told):
        return Retryable(f"{endpoint} failed{said}", after=after)
    if _NOT_QDRANT.search(told):
        return stranger(endpoint, said)
    if _NO_CONNECTION.search(told):
        return Retryable(f"{endpoint} cannot be reached", reason="Unreachable")
    return Retryable(f"{endpoint} is busy{said}", reason=THROTTLED, after=after)
