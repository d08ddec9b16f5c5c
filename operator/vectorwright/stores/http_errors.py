"""HTTP answers and failures of httpx as our errors, for every store that is spoken to over HTTP."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from vectorwright.errors import (
    BatchRejected,
    BatchTooLarge,
    Conflict,
    NotFound,
    Retryable,
    Terminal,
    VectorwrightError,
)

from .tls import VERIFICATION_FAILED, tls_error

MAX_RETRY_AFTER = 3600.0
"""Seconds. Longer waits that a server asks for are cut: it may have recovered, and a clock may be wrong."""

THROTTLED = "Throttled"
"""Reason of a Retryable: the server asked to be left alone (429, 503)."""
UNEXPECTED_ANSWER = "UnexpectedAnswer"
"""Reason of a Retryable: what answers does not speak the protocol, such as a proxy with an error page."""


def retry_after(headers: httpx.Headers, now: datetime | None = None) -> float | None:
    """Seconds that ``Retry-After`` asks for, as a number or as a date (RFC 9110, 10.2.3); None where it does not."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max((until - (now or datetime.now(UTC))).total_seconds(), 0.0), MAX_RETRY_AFTER)


def transport_error(error: httpx.HTTPError, endpoint: str) -> VectorwrightError:
    """What a request that got no answer means. ``endpoint`` is shown, so it holds no credentials.

    Only the kind of the failure is told, never its text: that may quote the request.
    """
    if isinstance(error, httpx.TimeoutException):
        return Retryable(f"{endpoint} did not answer in time", reason="Timeout")
    handshake = tls_error(error)
    if isinstance(handshake, ssl.SSLCertVerificationError):
        return Terminal(
            f"the certificate of {endpoint} is not trusted ({handshake.verify_message or 'verification failed'}): "
            "set the CA bundle or the server name in spec.tls",
            reason=VERIFICATION_FAILED,
        )
    if handshake is not None:
        return Retryable(
            f"the TLS handshake with {endpoint} failed ({handshake.reason or 'no reason given'}): check that it speaks "
            "TLS on that port",
            reason="TLSHandshakeFailed",
        )
    if isinstance(error, httpx.UnsupportedProtocol):
        return Terminal(f"{endpoint} is not an address that can be asked: it must begin with http:// or https://")
    what = "cannot be reached" if isinstance(error, httpx.ConnectError) else "broke off the connection"
    return Retryable(f"{endpoint} {what} ({type(error).__name__})", reason="Unreachable")


def status_error(response: httpx.Response, endpoint: str, detail: str = "") -> VectorwrightError:  # noqa: PLR0911
    """What an answer that is no success means.

    ``detail`` is what the server said, already made safe to show; without it the status code alone is told. 404 becomes
    NotFound, 409 Conflict, 400 and 422 BatchRejected: a caller for which they mean something else looks at the status
    first.
    """
    status = response.status_code
    said = f": {detail}" if detail else ""
    if status in {401, 403}:
        return Terminal(
            f"{endpoint} refused the credentials (HTTP {status}){said}: check the Secret", reason="AccessDenied"
        )
    if status == 404:
        return NotFound(f"{endpoint} does not know it (HTTP 404){said}")
    if status == 409:
        return Conflict(f"{endpoint} has it already (HTTP 409){said}")
    if status == 413:
        return BatchTooLarge(f"{endpoint} refused the request for its size (HTTP 413){said}")
    if status in {429, 503}:
        return Retryable(
            f"{endpoint} is busy (HTTP {status}){said}", reason=THROTTLED, after=retry_after(response.headers)
        )
    if status in {408, 425} or status >= 500:
        return Retryable(f"{endpoint} failed (HTTP {status}){said}", after=retry_after(response.headers))
    if status in {400, 422}:
        return BatchRejected(f"{endpoint} refused the request (HTTP {status}){said}")
    if 300 <= status < 400:
        return Terminal(
            f"{endpoint} redirects elsewhere (HTTP {status}), which is not followed: set the final address",
            reason="UnexpectedRedirect",
        )
    return Terminal(f"{endpoint} refused the request (HTTP {status}){said}", reason="RequestRefused")
