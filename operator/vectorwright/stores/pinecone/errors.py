"""Errors of the Pinecone SDK, and answers of Pinecone that are none of success, as ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
from pinecone.errors.exceptions import (
    ApiError,
    PineconeError,
    PineconeTimeoutError,
    PineconeTypeError,
    PineconeValueError,
)

from vectorwright.errors import BatchRejected, BatchTooLarge, Retryable, Terminal, VectorwrightError

from ..http_errors import UNEXPECTED_ANSWER, status_error, transport_error
from ..safe_text import safe_text

_OUT_OF_RANGE = 11
"""gRPC code with which the data plane refuses a message for its length."""
_ABOUT_RECORDS = {400, 422}
_NEEDS_A_BODY = {400, 404, 409, 412, 422}
"""Statuses that mean something only where Pinecone itself says so: a proxy's 404 is no absent index."""


def stranger(endpoint: str, status: int | None = None) -> Retryable:
    """The error for an answer that is not Pinecone's."""
    what = "answered" if status is None else f"answered HTTP {status}"
    return Retryable(
        f"{endpoint} {what} with something that is not Pinecone's: check spec.pinecone.controlUrl and the proxies "
        "before it",
        reason=UNEXPECTED_ANSWER,
    )


def translate(
    error: PineconeError | httpx.HTTPError, endpoint: str, secrets: Iterable[str | None], *, writes: bool = False
) -> VectorwrightError:
    """What an error of the SDK means. ``endpoint`` is shown, so it holds no credentials.

    A refusal (400, 422) of a call that ``writes`` records is BatchRejected, or BatchTooLarge where it is about size,
    and Terminal (``InvalidRequest``) of any other call.
    """
    if isinstance(error, httpx.HTTPError):
        return transport_error(error, endpoint)
    if isinstance(error, PineconeTimeoutError):
        return Retryable(f"{endpoint} did not answer in time", reason="Timeout")
    if isinstance(error, ApiError):
        return _refusal(error, endpoint, tuple(secrets), writes=writes)
    if isinstance(error, PineconeValueError | PineconeTypeError):
        # The SDK looked at the arguments and sent nothing.
        detail = safe_text(error.message, secrets)
        if writes:
            return BatchRejected(f"the Pinecone SDK refused the records: {detail}")
        return Terminal(f"the Pinecone SDK refused the request: {detail}", reason="InvalidRequest")
    if isinstance(error.__cause__, httpx.HTTPError):
        return transport_error(error.__cause__, endpoint)
    return stranger(endpoint)


def _refusal(error: ApiError, endpoint: str, secrets: tuple[str | None, ...], *, writes: bool) -> VectorwrightError:
    status = error.status_code
    code, told = _told(error.body)
    detail = safe_text(told, secrets)
    if not told and status in _NEEDS_A_BODY:
        return stranger(endpoint, status)
    if status == 403 and "QUOTA" in str(code).upper():
        return Terminal(f"{endpoint}: {detail}: raise the quota, or delete what is not needed", reason="QuotaExceeded")
    if status in _ABOUT_RECORDS and not writes:
        return Terminal(f"{endpoint} refused the request: {detail}", reason="InvalidRequest")
    if status in _ABOUT_RECORDS and (code == _OUT_OF_RANGE or "too large" in told or "maximum supported size" in told):
        return BatchTooLarge(f"{endpoint} refused the request for its size: {detail}")
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "retry-after"}
    return status_error(httpx.Response(status, headers=headers), endpoint, detail)


def _told(body: Any) -> tuple[object, str]:
    """(code, message) of an error of Pinecone's own; (None, "") of anything else.

    The control plane says ``{"error": {"code", "message"}, "status"}``, the data plane ``{"code", "message",
    "details"}``.
    """
    if not isinstance(body, dict):
        return None, ""
    error = body.get("error")
    told = error if isinstance(error, dict) else body
    message = told.get("message")
    return told.get("code"), message if isinstance(message, str) else ""
