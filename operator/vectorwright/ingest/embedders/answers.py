"""What an HTTP endpoint's refusal means, told with allow-listed words only."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import orjson

from vectorwright.errors import BatchRejected, BatchTooLarge, Retryable, Terminal, VectorwrightError
from vectorwright.stores.http_errors import THROTTLED, retry_after
from vectorwright.stores.safe_text import safe_text

_LONGEST = 200
"""Characters of a foreign message that are shown."""

_AGAIN = frozenset({408, 409, 425})
_CONTENT = frozenset({400, 422})


def detail(content: bytes, secret: str | None, fields: Sequence[str] = ("type", "code", "message")) -> str:
    """The named fields of an error body, scrubbed of the secret and cut; empty where there are none."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return ""
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return ""
    parts = []
    for name in fields:
        value = error.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            parts.append(safe_text(str(value), [secret], _LONGEST))
    return ": ".join(parts)


def refusal(response: httpx.Response, content: bytes, *, where: str, secret: str | None) -> VectorwrightError:
    """The error that an answer other than 200 stands for.

    401 and 403 are about the credential, 404 about the model; 400, 413 and 422 about the texts; 429 and 5xx pass.
    """
    status = response.status_code
    # Endpoints repeat parts of a refused key in their message.
    told = detail(content, secret, ("type", "code")) if status in (401, 403) else detail(content, secret)
    message = f"{where} answered {status}{': ' + told if told else ''}"
    if status in (401, 403):
        return Terminal(f"{message}: check the credentials of the EmbeddingModel", reason="AccessDenied")
    if status == 404:
        return Terminal(f"{message}: check openAI.baseUrl and openAI.model", reason="ModelNotFound")
    if status == 413:
        return BatchTooLarge(message)
    if status in _CONTENT:
        return BatchRejected(message, reason="EmbeddingRejected")
    if status in {429, 503}:
        return Retryable(message, reason=THROTTLED, after=retry_after(response.headers))
    if status in _AGAIN or status >= 500:
        return Retryable(message, after=retry_after(response.headers))
    return Terminal(f"{message}: check openAI.baseUrl", reason="RequestRefused")
