"""The API server's refusals as our errors: what waits, what does not, and whose words reach the user."""

from __future__ import annotations

import json

import pytest

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.kube.answers import Expired, error_for


def status(**fields: object) -> bytes:
    return json.dumps({"kind": "Status", "apiVersion": "v1", **fields}).encode()


@pytest.mark.parametrize(
    ("code", "reason", "kind", "ours"),
    [
        (400, "BadRequest", Terminal, "BadRequest"),
        (401, "Unauthorized", Retryable, "Unauthorized"),
        (403, "Forbidden", Terminal, "Forbidden"),
        (404, "NotFound", NotFound, "NotFound"),
        (409, "AlreadyExists", Conflict, "AlreadyExists"),
        (409, "Conflict", Conflict, "Conflict"),
        (410, "Expired", Expired, "Expired"),
        (415, "UnsupportedMediaType", Terminal, "UnsupportedMediaType"),
        (422, "Invalid", Terminal, "Invalid"),
        (429, "TooManyRequests", Retryable, "TooManyRequests"),
        (500, "InternalError", Retryable, "InternalError"),
        (503, "", Retryable, "Unavailable"),
        (504, "Timeout", Retryable, "Timeout"),
    ],
)
def test_each_status_has_its_error(code: int, reason: str, kind: type[VectorwrightError], ours: str) -> None:
    error = error_for(code, status(reason=reason, message="the server's words"), doing="get pods/x in y")
    assert type(error) is kind
    assert error.reason == ours
    assert error.message.startswith("get pods/x in y: ")
    if code != 401:
        assert error.message.endswith("the server's words")


def test_a_namespace_that_ends_is_told_apart() -> None:
    details = {"causes": [{"reason": "NamespaceTerminating", "message": "m"}]}
    assert error_for(403, status(reason="Forbidden", details=details), doing="x").reason == "NamespaceTerminating"


@pytest.mark.parametrize(
    ("header", "details", "after"),
    [
        ("7", None, 7.0),
        (None, {"retryAfterSeconds": 3}, 3.0),
        ("soon", {"retryAfterSeconds": 3}, 3.0),
        (None, None, None),
    ],
)
def test_how_long_to_wait(header: str | None, details: object, after: float | None) -> None:
    error = error_for(429, status(details=details), doing="x", retry_after=header)
    assert isinstance(error, Retryable)
    assert error.after == after


@pytest.mark.parametrize("body", [b"", b"<html>token=abc</html>", b'"text"', b'{"message": "of a proxy"}'])
def test_words_that_are_not_the_api_servers_are_not_repeated(body: bytes) -> None:
    assert error_for(502, body, doing="x").message == "x: the API server answered 502"


def test_long_words_are_cut() -> None:
    assert len(error_for(422, status(message="y" * 100_000), doing="x").message) < 1100
