"""HTTP answers as our errors: what may be tried again, what says something about the records, what is never shown.

- every status code that matters becomes the error whose recovery fits it
- Retry-After is read as seconds and as a date, and has an upper bound
- failures without an answer: time-outs and refusals are retried, an untrusted certificate is not
- secrets are cut out of foreign text before it is shortened
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime

import httpx
import pytest
import trustme

from vectorwright.errors import (
    BatchRejected,
    BatchTooLarge,
    Conflict,
    NotFound,
    Retryable,
    Terminal,
    VectorwrightError,
)
from vectorwright.stores.http_errors import retry_after, status_error, transport_error
from vectorwright.stores.registry import TlsSettings
from vectorwright.stores.safe_text import safe_text
from vectorwright.stores.tls import ssl_context


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (302, Terminal, "UnexpectedRedirect"),
        (400, BatchRejected, "RecordRejected"),
        (401, Terminal, "AccessDenied"),
        (403, Terminal, "AccessDenied"),
        (404, NotFound, "NotFound"),
        (405, Terminal, "RequestRefused"),
        (408, Retryable, "Unavailable"),
        (409, Conflict, "Conflict"),
        (413, BatchTooLarge, "BatchTooLarge"),
        (422, BatchRejected, "RecordRejected"),
        (429, Retryable, "Throttled"),
        (500, Retryable, "Unavailable"),
        (503, Retryable, "Throttled"),
    ],
)
def test_status_codes_by_recovery(status: int, kind: type[VectorwrightError], reason: str) -> None:
    error = status_error(httpx.Response(status), "http://store", "it said so")
    assert type(error) is kind
    assert error.reason == reason
    assert "http://store" in error.message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("999999", 3600.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    now = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
    assert retry_after(httpx.Headers({"Retry-After": value}), now) == seconds


def test_throttling_carries_the_wait() -> None:
    error = status_error(httpx.Response(429, headers={"Retry-After": "12"}), "http://store")
    assert isinstance(error, Retryable)
    assert error.after == 12.0


async def test_failures_without_an_answer(unused_tcp_port: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError) as refused:
            await client.get(f"http://127.0.0.1:{unused_tcp_port}")
    assert isinstance(transport_error(refused.value, "http://store"), Retryable)
    late = transport_error(httpx.ReadTimeout("…"), "http://store")
    assert isinstance(late, Retryable)
    assert late.reason == "Timeout"


async def test_an_untrusted_certificate_is_terminal_and_a_plain_port_is_not() -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").configure_cert(served)
    stranger = trustme.CA().cert_pem.bytes().decode()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def ask(port: int, tls: TlsSettings) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, verify=ssl_context(tls)) as client:
            return await client.get(f"https://127.0.0.1:{port}")

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=served) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await ask(port, TlsSettings(ca=authority.cert_pem.bytes().decode()))).status_code == 200
        assert (await ask(port, TlsSettings(insecure_skip_verify=True))).status_code == 200
        with pytest.raises(httpx.ConnectError) as untrusted:
            await ask(port, TlsSettings(ca=stranger))
    error = transport_error(untrusted.value, "https://store")
    assert isinstance(error, Terminal)
    assert error.reason == "TLSVerificationFailed"

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(httpx.ConnectError) as plain:
            await ask(port, TlsSettings())
    error = transport_error(plain.value, "https://store")
    assert isinstance(error, Retryable)
    assert error.reason == "TLSHandshakeFailed"


@pytest.mark.parametrize("bundle", ["", "not a certificate", "-----BEGIN CERTIFICATE-----\nü\n"])
def test_a_ca_bundle_without_certificates_is_terminal(bundle: str) -> None:
    with pytest.raises(Terminal) as refused:
        ssl_context(TlsSettings(ca=bundle))
    assert refused.value.reason == "InvalidCA"


def test_secrets_never_show_even_where_text_is_cut() -> None:
    secret = "s3cret-" * 10
    assert "s3cret" not in safe_text("x" * 280 + secret, [secret])
    assert safe_text(f"token {secret} and {secret}!", [None, "", secret]) == "token *** and ***!"
    assert safe_text("a\n\tb\x00c  d\u202e") == "a b c d"
    assert len(safe_text("y" * 1000)) == 300
