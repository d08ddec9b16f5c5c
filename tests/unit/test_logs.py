"""Logs: what a line holds, what it never holds, and that every logger of the process goes through it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vectorwright.observability.logs import configure_logging, log_context, redact, register_name, register_secret

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    sys.excepthook, threading.excepthook = before[2], before[3]
    logging.captureWarnings(capture=False)


@pytest.fixture
def lines(restored: None) -> Lines:
    stream = io.StringIO()
    configure_logging("json", "debug", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def text(restored: None) -> Callable[[], str]:
    stream = io.StringIO()
    configure_logging("text", "info", stream)
    return stream.getvalue


def test_a_line_says_when_how_bad_who_and_what(lines: Lines) -> None:
    logging.getLogger("vectorwright.x").warning("hello %s", "world", extra={"fields": {"vectors": 3, "store": "s"}})
    (line,) = lines()
    assert line["ts"].endswith("Z")
    assert len(line["ts"]) == len("2026-01-01T00:00:00.000Z")
    assert {key: line[key] for key in ("level", "logger", "msg", "vectors", "store")} == {
        "level": "warning",
        "logger": "vectorwright.x",
        "msg": "hello world",
        "vectors": 3,
        "store": "s",
    }


def test_the_resource_and_the_correlation_id_stand_on_every_line_inside(lines: Lines) -> None:
    log = logging.getLogger("x")
    with log_context(kind="VectorIndex", namespace="team", name="docs", correlation_id="c1"):
        log.info("outer")
        with log_context(correlation_id="c2"):
            logging.getLogger("httpcore.of.others").error("inner")
    log.info("after")
    outer, inner, after = lines()
    assert [outer[key] for key in ("kind", "namespace", "name", "correlation_id")] == [
        "VectorIndex",
        "team",
        "docs",
        "c1",
    ]
    assert inner["name"] == "docs"
    assert inner["correlation_id"] == "c2"
    assert "kind" not in after


async def test_each_task_has_its_own_resource(lines: Lines) -> None:
    async def work(name: str) -> None:
        with log_context(kind="VectorIndex", name=name):
            await asyncio.sleep(0.01)
            logging.getLogger("x").info("from %s", name)

    await asyncio.gather(*(work(f"i{number}") for number in range(5)))
    written = [line for line in lines() if line["logger"] == "x"]
    assert len(written) == 5
    assert all(line["msg"] == f"from {line['name']}" for line in written)


def test_the_object_that_kopf_names_is_taken_over(lines: Lines) -> None:
    ref = {"apiVersion": "v", "kind": "VectorStore", "name": "main", "namespace": "team", "uid": "u"}
    logging.getLogger("kopf.reactor").info("handled", extra={"k8s_ref": ref, "settings": object()})
    (line,) = lines()
    assert (line["kind"], line["namespace"], line["name"]) == ("VectorStore", "team", "main")
    assert "settings" not in line


def test_an_exception_is_told_with_its_traceback_and_without_the_secret(lines: Lines) -> None:
    register_secret("sesame-open-1234")
    try:
        int("sesame-open-1234")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (line,) = lines()
    assert "ValueError: invalid literal for int() with base 10: '***'" in line["exception"]
    assert "sesame" not in json.dumps(line)


def test_registered_secrets_are_masked_wherever_they_stand(lines: Lines) -> None:
    register_secret(b"multi\nline-secret\n")
    register_secret("tiny")
    logging.getLogger("x").info(
        "%s and tiny", {"a": "b multi\nline-secret c"}.get("a"), extra={"fields": {"note": "multi\nline-secret"}}
    )
    (line,) = lines()
    assert line["msg"] == "b *** c and tiny"
    assert line["note"] == "***"


def test_names_are_shown_that_secrets_hold_beside_values() -> None:
    for secret in ("user-of-a-key", "value-of-a-key"):
        register_secret(secret)
    assert redact("user-of-a-key: value-of-a-key") == "***: ***"
    register_name("user-of-a-key")
    register_secret("user-of-a-key")  # the Secret was read again
    assert redact("user-of-a-key: value-of-a-key") == "user-of-a-key: ***"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("GET https://user:pa55@host/x?y=1", "GET https://***@host/x?y=1"),
        ("postgres://app:s3cr3t@db:5432/vectors", "postgres://***@db:5432/vectors"),
        ("https://token@host", "https://***@host"),
        ("https://host/a@b", "https://host/a@b"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("{'authorization': 'Basic dXNlcjpwYXNz', 'x': 1}", "{'authorization': '***', 'x': 1}"),
        ("Authorization: ApiKey k-1", "Authorization: ***"),
        ("api-key: abcdef, next", "api-key: ***, next"),
        ('"x-api-key": "abcdef"', '"x-api-key": "***"'),
        ("host=db password=hunter2 user=me", "host=db password=*** user=me"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl end", "jwt *** end"),
        (
            "key -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- end",
            "key *** end",
        ),
        ("the Secret has no key 'password'", "the Secret has no key 'password'"),
        ("basic authentication is used", "basic authentication is used"),
    ],
)
def test_what_looks_like_a_credential_is_masked(given: str, expected: str) -> None:
    assert redact(given) == expected


def test_a_long_text_is_cut_and_masked_in_reasonable_time(lines: Lines) -> None:
    logging.getLogger("x").info("a" * 1_000_000)
    (line,) = lines()
    assert len(line["msg"]) < 40_000
    assert line["msg"].endswith("characters more)")


def test_text_is_for_people_and_cannot_be_forged(text: Callable[[], str]) -> None:
    with log_context(kind="VectorIndex", namespace="team", name="docs", correlation_id="c1"):
        logging.getLogger("vectorwright.reconcile").info("two\nlines", extra={"fields": {"vectors": 2}})
    (line,) = text().splitlines()
    assert line.endswith("INFO    reconcile [VectorIndex/team/docs] two\\nlines correlation_id=c1 vectors=2")


def test_the_level_holds_and_chatty_libraries_are_quiet(text: Callable[[], str]) -> None:
    logging.getLogger("x").debug("debug")
    logging.getLogger("httpx").info("a request")
    logging.getLogger("kopf.activities").info("kopf speaks")
    assert [line.rpartition(" ")[2] for line in text().splitlines()] == ["speaks"]


def test_handlers_of_libraries_are_replaced(restored: None) -> None:
    aside = io.StringIO()
    logging.getLogger("kopf").addHandler(logging.StreamHandler(aside))
    stream = io.StringIO()
    configure_logging("text", "info", stream)
    logging.getLogger("kopf").warning("once")
    assert aside.getvalue() == ""
    assert stream.getvalue().count("once") == 1


def test_uncaught_exceptions_and_warnings_go_the_same_way(lines: Lines) -> None:
    register_secret("sesame-open-1234")
    error = ValueError("sesame-open-1234")
    sys.excepthook(ValueError, error, None)

    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail, name="t1")
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("mind the gap", stacklevel=1)
    written = lines()
    assert [line["level"] for line in written] == ["critical", "critical", "warning"]
    assert "sesame" not in json.dumps(written)
    assert "thread t1" in written[1]["msg"]
    assert "mind the gap" in written[2]["msg"]
