"""Translate the API server's refusals into our errors. Free of any HTTP client: both of ours use it."""

from __future__ import annotations

import json
from typing import Any

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal, VectorwrightError

_MAX_MESSAGE = 1024


class Expired(Retryable):
    """410: the resourceVersion or the continue token is too old. List again."""

    default_reason = "Expired"


def error_for(  # noqa: PLR0911 - one line a status
    status: int, body: bytes, *, doing: str, retry_after: str | None = None
) -> VectorwrightError:
    """The error for an HTTP ``status`` ≥ 400 with a ``metav1.Status`` as ``body``.

    ``doing`` names verb and object ("patch vectorindexes/docs in team-a") and begins the message; the API server's
    own message follows: it names what is missing. ``retry_after`` is the header, in seconds.
    """
    details = _parse(body)
    reason = str(details.get("reason") or "")
    message = f"{doing}: {_message(details, status)}"
    match status:
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message, reason=reason or "Conflict")
        case 410:
            return Expired(message)
        case 401:
            # Not Terminal: the next token may be good, and an authentication webhook may be down.
            return Retryable(f"{doing}: the API server does not accept our credentials (401)", reason="Unauthorized")
        case 408 | 425 | 429:
            return Retryable(message, reason=reason or "Unavailable", after=_after(details, retry_after))
        case _ if status >= 500:
            return Retryable(message, reason=reason or "Unavailable", after=_after(details, retry_after))
        case 403:
            return Terminal(message, reason=_forbidden_reason(details))
        case 422:
            return Terminal(message, reason="Invalid")
    return Terminal(message, reason=reason or "BadRequest")


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _message(details: dict[str, Any], status: int) -> str:
    """Only the message field of a Status: another body may come from a proxy and hold anything."""
    message = details.get("message") if details.get("kind") == "Status" else None
    if not isinstance(message, str) or not message:
        return f"the API server answered {status}"
    return message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "…"


def _forbidden_reason(details: dict[str, Any]) -> str:
    causes = (details.get("details") or {}).get("causes") or []
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes if isinstance(cause, dict)):
        return "NamespaceTerminating"
    return "Forbidden"


def _after(details: dict[str, Any], header: str | None) -> float | None:
    for value in (header, (details.get("details") or {}).get("retryAfterSeconds")):
        try:
            if value is not None:
                return max(0.0, float(value))
        except (TypeError, ValueError):
            continue
    return None
