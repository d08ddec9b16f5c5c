"""The store server as an aiohttp application: the store protocol over HTTP (see :mod:`.wire`).

Paths are ``/v1/<provider>/…``; ``/healthz`` tells whether it works, to anybody. Errors are JSON with the kind, reason
and message of ours. Nothing that a client sends is trusted: sizes, forms and names are checked before anything is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

import numpy as np
import orjson
from aiohttp import ClientConnectionResetError, hdrs, web
from aiohttp.typedefs import Handler, Middleware

from vectorwright.errors import BatchTooLarge, Retryable, Terminal, VectorwrightError

from ..base import Record, Store
from ..wire import (
    MEDIA_TYPE,
    WireError,
    decode_batch,
    decode_filter,
    decode_frame,
    decode_json,
    encode_error,
    encode_frame,
    encode_matches,
    encode_records,
    take,
    take_optional,
    take_strings,
)
from ..wire_indexes import (
    decode_definition,
    decode_fields,
    decode_mark,
    decode_settings,
    encode_description,
    encode_info,
    encode_statistics,
)
from .hosting import HostedStores
from .tokens import Tokens

MAX_BODY = 80 * 2**20
"""Bytes of a request: two and a half times the largest batch, for what JSON adds to texts and metadata."""
MAX_IN_FLIGHT = 256 * 2**20
"""Bytes of all requests that are being read or worked on. More are asked to come again."""
MAX_IDS = 10_000
MAX_PAGE = 10_000
_KEEP_ALIVE = 5.0
"""Seconds of silence in a scroll after which an empty page says that work goes on."""
_STALLED = 600.0
"""Seconds after which a reader that takes nothing of its scroll is given up: a version of the table is held for it."""
_LENGTH = struct.Struct("<I")

HOSTED = web.AppKey("hosted", HostedStores)
_Call = Callable[[web.Request, Store], Awaitable[web.StreamResponse]]


class Traffic:
    """The requests that are being read or worked on."""

    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0
        self.stopping = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    @contextlib.contextmanager
    def counted(self, length: int) -> Iterator[None]:
        """While this lasts, a request of so many bytes is under way."""
        self.requests += 1
        self.bytes += length
        self._quiet.clear()
        try:
            yield
        finally:
            self.requests -= 1
            self.bytes -= length
            if not self.requests:
                self._quiet.set()

    async def stop(self, grace: float) -> None:
        """Refuse new requests, and wait for those under way, at most ``grace`` seconds.

        This comes before aiohttp's own shutdown, which drops bodies that are still arriving.
        """
        self.stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._quiet.wait()


TRAFFIC = web.AppKey("traffic", Traffic)


def make_application(hosted: HostedStores, tokens: Tokens | None) -> web.Application:
    """The application. ``tokens`` are the bearer tokens that are let in; None lets in everybody."""
    application = web.Application(client_max_size=MAX_BODY, middlewares=[_errors, _authorized(tokens), _bounded])
    application[HOSTED] = hosted
    application[TRAFFIC] = Traffic()
    index = "/v1/{provider}/indexes/{name}"
    application.router.add_get("/healthz", _health)
    for method, path, call in (
        (hdrs.METH_GET, "/v1/{provider}/probe", _probe),
        (hdrs.METH_GET, "/v1/{provider}/indexes", _list),
        (hdrs.METH_POST, "/v1/{provider}/indexes", _create),
        (hdrs.METH_GET, index, _describe),
        (hdrs.METH_PATCH, index, _update),
        (hdrs.METH_DELETE, index, _drop),
        (hdrs.METH_PUT, f"{index}/mark", _mark),
        (hdrs.METH_GET, f"{index}/statistics", _statistics),
        (hdrs.METH_POST, f"{index}/count", _count),
        (hdrs.METH_POST, f"{index}/upsert", _upsert),
        (hdrs.METH_POST, f"{index}/fetch", _fetch),
        (hdrs.METH_POST, f"{index}/query", _query),
        (hdrs.METH_POST, f"{index}/delete", _delete),
        (hdrs.METH_POST, f"{index}/scroll", _scroll),
        (hdrs.METH_GET, "/v1/{provider}/aliases", _aliases),
        (hdrs.METH_PUT, "/v1/{provider}/aliases/{alias}", _set_alias),
        (hdrs.METH_DELETE, "/v1/{provider}/aliases/{alias}", _delete_alias),
    ):
        application.router.add_route(method, path, _with_store(call))
    return application


# --- around every request --------------------------------------------------------------------------------------------


def _error(error: VectorwrightError, status: int | None = None) -> web.Response:
    known, body = encode_error(error)
    return web.Response(body=orjson.dumps(body), status=status or known, content_type="application/json")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.app[TRAFFIC].stopping:
        # Clients with open connections would keep it from ever ending.
        refusal = _error(Retryable("the store server is stopping", reason="Stopping", after=1.0))
        refusal.force_close()
        return refusal
    try:
        return await handler(request)
    except VectorwrightError as error:
        return _error(error)
    except WireError as error:
        return _error(Terminal(f"the request is not of the store protocol: {error}", reason="BadRequest"))
    except web.HTTPRequestEntityTooLarge:
        return _error(BatchTooLarge(f"the request is larger than the {MAX_BODY} bytes that this store server takes"))
    except web.HTTPException as error:
        return _error(Terminal(f"the store server knows no such request ({error.reason})", reason="BadRequest"), 404)


def _authorized(tokens: Tokens | None) -> Middleware:
    @web.middleware
    async def authorized(request: web.Request, handler: Handler) -> web.StreamResponse:
        if tokens is None or request.path == "/healthz":
            return await handler(request)
        scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() == "bearer" and tokens.accepts(given.strip()):
            return await handler(request)
        refusal = _error(Terminal("the store server refused the token", reason="AccessDenied"), 401)
        refusal.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
        return refusal

    return authorized


@web.middleware
async def _bounded(request: web.Request, handler: Handler) -> web.StreamResponse:
    traffic, length = request.app[TRAFFIC], request.content_length
    if length is None:
        length = MAX_BODY if request.body_exists else 0
    if length > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(max_size=MAX_BODY, actual_size=length)
    if traffic.bytes and traffic.bytes + length > MAX_IN_FLIGHT:
        raise Retryable("the store server has as many requests as it can hold", reason="Throttled", after=1.0)
    with traffic.counted(length):
        return await handler(request)


def _with_store(call: _Call) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        store = await request.app[HOSTED].find(request.match_info["provider"], request.query)
        return await call(request, store)

    return handler


def _json(body: object) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def _frame(body: bytes) -> web.Response:
    return web.Response(body=body, content_type=MEDIA_TYPE)


async def _health(request: web.Request) -> web.Response:
    if request.app[HOSTED].broken:
        return web.Response(text="a table takes no more writes: this process has to be started again\n", status=503)
    damaged = request.app[HOSTED].damaged
    if damaged:
        # It works: what was damaged is a matter for people, and no restart would mend it.
        return web.Response(text=f"ok\ndamaged indexes: {damaged}; the log and their statistics say what\n")
    return web.Response(text="ok\n")


# --- the protocol ----------------------------------------------------------------------------------------------------


async def _probe(_: web.Request, store: Store) -> web.Response:
    return _json(encode_info(await store.probe()))


async def _list(_: web.Request, store: Store) -> web.Response:
    return _json({"indexes": [encode_description(one) for one in await store.list_indexes()]})


async def _create(request: web.Request, store: Store) -> web.Response:
    definition = decode_definition(decode_json(await request.read()))
    return _json(encode_description(await store.create_index(definition)))


async def _describe(request: web.Request, store: Store) -> web.Response:
    return _json(encode_description(await store.describe_index(request.match_info["name"])))


async def _update(request: web.Request, store: Store) -> web.Response:
    body = decode_json(await request.read())
    settings, fields = decode_settings(body.get("settings", {})), decode_fields(body.get("new_fields", []))
    await store.update_index(request.match_info["name"], settings, fields)
    return _json({})


async def _drop(request: web.Request, store: Store) -> web.Response:
    await store.delete_index(request.match_info["name"])
    return _json({})


async def _mark(request: web.Request, store: Store) -> web.Response:
    body = decode_json(await request.read())
    fingerprint = take_optional(body, "model_fingerprint")
    await store.set_mark(request.match_info["name"], decode_mark(body.get("mark")), fingerprint)
    return _json({})


async def _statistics(request: web.Request, store: Store) -> web.Response:
    return _json(encode_statistics(await store.statistics(request.match_info["name"])))


async def _count(request: web.Request, store: Store) -> web.Response:
    body = decode_json(await request.read())
    where = None if body.get("where") is None else decode_filter(body["where"])
    return _json({"count": await store.count(request.match_info["name"], where)})


async def _upsert(request: web.Request, store: Store) -> web.Response:
    await store.upsert(request.match_info["name"], decode_batch(await request.read()))
    return _json({})


async def _fetch(request: web.Request, store: Store) -> web.Response:
    body = decode_json(await request.read())
    found = await store.fetch(
        request.match_info["name"],
        _ids(body),
        vectors=take(body, "vectors", bool, False),
        metadata=take(body, "metadata", bool, True),
    )
    return _frame(encode_records(list(found.values())))


async def _query(request: web.Request, store: Store) -> web.Response:
    body, vectors = decode_frame(await request.read())
    if vectors is None or len(vectors) != 1:
        raise WireError("it does not hold one vector")
    where = None if body.get("where") is None else decode_filter(body["where"])
    vector = np.ascontiguousarray(vectors[0])
    matches = await store.query(
        request.match_info["name"], vector, take(body, "top_k", int), where, vectors=take(body, "vectors", bool, False)
    )
    return _frame(encode_matches(matches))


async def _delete(request: web.Request, store: Store) -> web.Response:
    body = decode_json(await request.read())
    name = request.match_info["name"]
    if "where" in body:
        await store.delete_where(name, decode_filter(body["where"]))
    else:
        await store.delete(name, _ids(body))
    return _json({})


async def _aliases(_: web.Request, store: Store) -> web.Response:
    return _json({"aliases": await store.aliases()})


async def _set_alias(request: web.Request, store: Store) -> web.Response:
    await store.set_alias(request.match_info["alias"], take(decode_json(await request.read()), "index", str))
    return _json({})


async def _delete_alias(request: web.Request, store: Store) -> web.Response:
    await store.delete_alias(request.match_info["alias"])
    return _json({})


def _ids(body: dict[str, object]) -> list[str]:
    ids = take_strings(body, "ids")
    if len(ids) > MAX_IDS:
        raise WireError(f"it asks for more than {MAX_IDS} ids at once")
    return ids


async def _scroll(request: web.Request, store: Store) -> web.StreamResponse:
    """Pages as frames, each after its length (unsigned 32 bits, little-endian); length 0 is a sign of life.

    The last frame tells ``end`` or an error: an answer without it was cut off.
    """
    body = decode_json(await request.read())
    where = None if body.get("where") is None else decode_filter(body["where"])
    page = take(body, "page", int, 1000)
    if not 1 <= page <= MAX_PAGE:
        raise WireError(f"it asks for pages of {page} records; 1 to {MAX_PAGE} are possible")
    pages = store.scroll(
        request.match_info["name"],
        where,
        vectors=take(body, "vectors", bool, False),
        metadata=take(body, "metadata", bool, True),
        page=page,
    )
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: MEDIA_TYPE})
    async with contextlib.aclosing(_with_signs_of_life(pages)) as parts:
        first = await anext(parts, None)
        await response.prepare(request)
        try:
            await _send(response, b"" if first is None else encode_records(first))
            async for records in parts:
                await _send(response, encode_records(records) if records else b"")
            await _send(response, encode_frame({"end": True}))
        except VectorwrightError as error:
            await _send(response, encode_frame({"error": encode_error(error)[1]}))
        except (ClientConnectionResetError, TimeoutError):
            return response  # nobody listens any more
    return response


async def _send(response: web.StreamResponse, frame: bytes) -> None:
    async with asyncio.timeout(_STALLED):
        await response.write(_LENGTH.pack(len(frame)) + frame)


async def _with_signs_of_life(pages: AsyncIterator[list[Record]]) -> AsyncGenerator[list[Record]]:
    """The pages, with empty ones where nothing came for a while."""
    coming: asyncio.Future[list[Record] | None] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(pages, None))
            done, _ = await asyncio.wait({coming}, timeout=_KEEP_ALIVE)
            if not done:
                yield []
                continue
            records, coming = coming.result(), None
            if records is None:
                return
            yield records
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await pages.aclose()  # type: ignore[attr-defined]
