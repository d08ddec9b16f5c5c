"""What an HTTP endpoint's refusal means, told with allow-listed words only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import orjson

from vectorwright.errors import BatchRejected, BatchTooLarge, Retryable, Terminal, VectorwrightError

_LONGEST = 200
"""Characters of a foreign message that are shown."""

_AGAIN = frozenset({408, 409, 425, 429})
_CONTENT = frozenset({400, 422})


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to be left alone for, in any of the forms in use; None where it does not."""
    milliseconds = headers.get("retry-after-ms")
    value = headers.get("retry-after")
    try:
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000.0)
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return float(value)
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp())


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
            text = str(value)
            if secret:
                text = text.replace(secret, "***")
            text = "".join(character if character.isprintable() else " " for character in text)
            parts.append(text[:_LONGEST])
    return ": ".join(parts)


def refusal(
    status: int, headers: Mapping[str, str], content: bytes, *, where: str, secret: str | None
) -> VectorwrightError:
    """The error that an answer other than 200 stands for.

    401 and 403 are about the credential, 404 about the model; 400, 413 and 422 about the texts; 429 and 5xx pass.
    """
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
    if status in _AGAIN or status >= 500:
        reason = "RateLimited" if status == 429 else "Unavailable"
        return Retryable(message, reason=reason, after=retry_after(headers))
    return Terminal(f"{message}: check openAI.baseUrl", reason="EndpointRefused")
