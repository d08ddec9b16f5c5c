"""What happens when a store is away, slow, or says no: the right kind of error, and never a credential in it.

- nobody listens, nobody answers, the answer breaks off: Retryable, in time
- wrong credentials: Terminal
- over HTTP: every status code by its meaning, Retry-After carried, an error page of a proxy is nobody's answer
- a listing is one request
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.contract.conftest import StoreFactory
from tests.contract.data import batch, definition, record_id, scrolled, vectors
from tests.contract.fault_proxy import FaultProxy
from tests.contract.providers import SECRET, Provider
from tests.support.loopback_http import Request, Response

from vectorwright.errors import BatchRejected, BatchTooLarge, NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.stores.base import Store
from vectorwright.stores.filters import Eq

pytestmark = pytest.mark.server


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A port that takes connections and never says a word."""
    release = asyncio.Event()

    async def listen(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    release.set()
    server.close()
    await server.wait_closed()


async def _calls(store: Store) -> list[VectorwrightError]:
    """The errors of one call of each kind."""
    errors = []
    for call in (
        store.probe(),
        store.list_indexes(),
        store.create_index(definition()),
        store.upsert("docs", batch(2)),
        store.query("docs", vectors(1)[0], 3),
        store.count("docs"),
        scrolled(store),
    ):
        with pytest.raises(VectorwrightError) as raised:
            await call
        errors.append(raised.value)
    return errors


async def test_an_unreachable_store_is_retryable(
    provider: Provider, open_another: StoreFactory, unused_tcp_port: int
) -> None:
    store = open_another(provider.at("127.0.0.1", unused_tcp_port))
    for error in await _calls(store):
        assert isinstance(error, Retryable)
        assert error.reason == "Unreachable"
        assert str(unused_tcp_port) in error.message


async def test_a_silent_store_is_retryable_in_time(
    provider: Provider, open_another: StoreFactory, silent_port: int
) -> None:
    store = open_another(replace(provider.at("127.0.0.1", silent_port), timeout=0.3))
    started = time.monotonic()
    errors = await _calls(store)
    assert time.monotonic() - started < 0.3 * len(errors) + 4
    assert all(isinstance(error, Retryable) and error.reason == "Timeout" for error in errors)


@pytest.mark.needs_server("credentials")
async def test_wrong_credentials_are_terminal(provider: Provider, open_another: StoreFactory) -> None:
    for error in await _calls(open_another(provider.wrong_credentials())):
        assert isinstance(error, Terminal)
        assert error.reason == "AccessDenied"
        assert SECRET not in error.message


async def test_requests_in_flight_are_limited(provider: Provider, open_another: StoreFactory) -> None:
    store = open_another(replace(provider.connection(), max_concurrency=2))
    await store.create_index(definition())
    await asyncio.gather(*(store.upsert("docs", batch(5, start=5 * part)) for part in range(10)))
    counts = await asyncio.gather(*(store.count("docs") for _ in range(10)))
    assert counts == [50] * 10


async def test_a_cancelled_write_leaves_a_store_that_works(docs: Store) -> None:
    for _ in range(5):
        writes = [asyncio.create_task(docs.upsert("docs", batch(200, start=200 * part))) for part in range(4)]
        await asyncio.sleep(0.01)
        writes[0].cancel()
        writes[2].cancel()
        done = await asyncio.gather(*writes, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in done)
        assert done[1] is None
        assert done[3] is None
    await docs.upsert("docs", batch(800))
    assert await docs.count("docs") == 800


async def test_connections_and_errors_show_no_credentials(provider: Provider, store: Store) -> None:
    connection = provider.connection()
    secrets = [one for one in (connection.credentials.token, connection.credentials.password) if one]
    assert secrets
    shown = repr(connection) + repr(store) + str(await store.probe())
    with pytest.raises(NotFound) as absent:
        await store.describe_index("nope")
    assert not any(secret in shown + repr(absent.value) for secret in secrets)


# Over HTTP alone, with a proxy that fails on purpose; what is for every transport is in test_faults.py.


@pytest.fixture
async def behind(
    provider: Provider, store: Store, open_another: StoreFactory
) -> AsyncIterator[tuple[Store, FaultProxy]]:
    """A store behind the proxy, with an index ``docs`` of three records, and the proxy."""
    await store.create_index(definition())
    with FaultProxy(provider.origin()) as proxy:
        through = open_another(replace(provider.at(proxy.host, proxy.port), timeout=4))
        await through.upsert("docs", batch(3))  # so that it knows its index
        proxy.requests.clear()
        yield through, proxy
        await through.close()


over_http = pytest.mark.needs_server("http alone")


def _writes(request: Request) -> bool:
    return len(request.body) > 2_000


@over_http
async def test_a_listing_is_one_request(behind: tuple[Store, FaultProxy]) -> None:
    store, proxy = behind
    for number in range(5):
        await store.create_index(definition(f"more-{number}"))
    proxy.requests.clear()
    assert len(await store.list_indexes()) == 6
    assert len(proxy.requests) == 1


@over_http
async def test_a_write_to_a_known_index_looks_nothing_up(behind: tuple[Store, FaultProxy]) -> None:
    store, proxy = behind
    await store.upsert("docs", batch(50, start=100))
    assert len(proxy.requests) <= 2


@over_http
@pytest.mark.parametrize(
    ("response", "reason", "after"),
    [
        (Response(b"", 429, {"Retry-After": "7"}), "Throttled", 7.0),
        (Response(b"", 429), "Throttled", None),
        (Response(b"<html>busy</html>", 503, {"Retry-After": "3"}), "Throttled", 3.0),
        (Response(b"", 500), "Unavailable", None),
        (Response(b"", 502), "Unavailable", None),
        (Response(b"<html>welcome</html>", 200), "UnexpectedAnswer", None),
        (Response(b"{", 200), "UnexpectedAnswer", None),
        (Response(b'"a string"', 200), "UnexpectedAnswer", None),
        (Response(b"<html>no such site</html>", 404), "UnexpectedAnswer", None),
        (Response(b"x" * 100, 200, cut_after=10), "Unreachable", None),
        (Response(cut_after=0), "Unreachable", None),
        (Response(delay=6), "Timeout", None),
    ],
)
async def test_answers_of_nobody_are_retryable(
    behind: tuple[Store, FaultProxy], response: Response, reason: str, after: float | None
) -> None:
    store, proxy = behind
    for call in (store.list_indexes, lambda: store.describe_index("docs"), lambda: store.fetch("docs", [record_id(0)])):
        proxy.fail(response)
        with pytest.raises(Retryable) as raised:
            await call()
        assert (raised.value.reason, raised.value.after) == (reason, after)
    assert [index.name for index in await store.list_indexes()] == ["docs"]


@over_http
@pytest.mark.parametrize("status", [400, 409, 422])
async def test_an_error_page_says_nothing_about_the_records(behind: tuple[Store, FaultProxy], status: int) -> None:
    store, proxy = behind
    proxy.fail(Response(b"<html>bad gateway config</html>", status), _writes)
    with pytest.raises(VectorwrightError) as raised:
        await store.upsert("docs", batch(50, start=100))
    assert not isinstance(raised.value, BatchRejected)


@over_http
async def test_a_write_that_is_throttled_waits_as_asked(behind: tuple[Store, FaultProxy]) -> None:
    store, proxy = behind
    proxy.fail(Response(b"slow down", 429, {"Retry-After": "11"}), _writes)
    with pytest.raises(Retryable) as raised:
        await store.upsert("docs", batch(50, start=100))
    assert raised.value.after == 11.0
    await store.upsert("docs", batch(50, start=100))
    assert await store.count("docs") == 53


@over_http
async def test_a_refusal_for_size_is_too_large(behind: tuple[Store, FaultProxy]) -> None:
    store, proxy = behind
    proxy.fail(Response(b"Payload too large", 413), _writes)
    with pytest.raises(BatchTooLarge):
        await store.upsert("docs", batch(50, start=100))


@over_http
async def test_a_redirect_is_not_followed(behind: tuple[Store, FaultProxy]) -> None:
    store, proxy = behind
    proxy.fail(Response(b"", 307, {"Location": "http://127.0.0.1:1/"}))
    with pytest.raises(Terminal) as raised:
        await store.list_indexes()
    assert raised.value.reason == "UnexpectedRedirect"


@over_http
async def test_a_refused_token_is_terminal_and_never_shown(behind: tuple[Store, FaultProxy]) -> None:
    store, proxy = behind
    proxy.token = "another token"
    for error in await _calls(store):
        assert type(error) is Terminal
        assert error.reason == "AccessDenied"
        assert SECRET not in error.message
    proxy.token = SECRET
    assert await store.count("docs", Eq("word", "w0")) == 1
