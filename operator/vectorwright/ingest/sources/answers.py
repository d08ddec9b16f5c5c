"""What answers and failures of a source's HTTP server mean. Nothing that the server wrote reaches a message."""

from __future__ import annotations

import ssl

import httpx

from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.stores import http_errors
from vectorwright.stores.tls import VERIFICATION_FAILED, tls_error


def transport_error(error: httpx.HTTPError, shown: str, spec: str) -> VectorwrightError:
    """What a request without an answer means. ``shown`` is the address, ``spec`` the source's place in the resource."""
    handshake = tls_error(error)
    if isinstance(handshake, ssl.SSLCertVerificationError):
        return Terminal(
            f"the certificate of {shown} is not trusted ({handshake.verify_message or 'verification failed'}): set "
            f"the certificate authorities or the server name in {spec}.tls",
            reason=VERIFICATION_FAILED,
        )
    return http_errors.transport_error(error, shown)


def status_error(response: httpx.Response, shown: str, spec: str, *, credentials: bool) -> VectorwrightError:
    """What an answer that is neither success nor redirect means. ``credentials`` tells whether some were sent."""
    status = response.status_code
    if status in {401, 403}:
        hint = "check the Secret" if credentials else f"it may need {spec}.credentials"
        return Terminal(f"{shown} refused access (HTTP {status}): {hint}", reason="AccessDenied")
    if status in {404, 410}:
        return Terminal(f"{shown} does not exist (HTTP {status}): check the address", reason="DocumentNotFound")
    if status in {429, 503}:
        return Retryable(
            f"{shown} is busy (HTTP {status})", reason="Throttled", after=http_errors.retry_after(response.headers)
        )
    if status in {408, 425} or status >= 500:
        return Retryable(f"{shown} failed (HTTP {status})", after=http_errors.retry_after(response.headers))
    return Terminal(f"{shown} answered HTTP {status}, which is no document", reason="RequestRefused")
