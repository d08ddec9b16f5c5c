"""Tokens of a Qdrant server: what is special to them.

- a token is a JWT by the book, and lives as long as it says and the server's leeway
- it carries access, subject and expiry; what it may not do is not taken for a refusal of the token
- a server without tokens, without keys, with another clock, or an admin's key that signs nothing: each is told apart
- the revocation collection is made as small as it gets, taken as it is, and shared; a copied point keeps nothing alive
- tokens die with the key that signed them, and a token that was drafted before it changed is signed again
- without a revocation collection nothing is asked of the server to make or revoke one
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models
from tests.rotation.cases import key_request, owner
from tests.rotation.issuers.qdrant_tokens import ADMIN, READ_ONLY, REVOCATIONS, client, lets_in
from tests.rotation.steps import after_break
from tests.support.qdrant import QdrantDouble, StartQdrant
from tests.support.qdrant_binary import BINARY, QdrantServer, qdrant_server, service

from vectorwright.errors import Conflict, Retryable, Terminal
from vectorwright.rotation.base import Assignment, IssuedKey, LiveKey
from vectorwright.rotation.qdrant_jwt import claims_of, sign
from vectorwright.rotation.qdrant_tokens import AHEAD, BEHIND, LEEWAY, QdrantTokens
from vectorwright.rotation.qdrant_trial import refusal
from vectorwright.stores.registry import Connection, StoreCredentials

pytestmark = pytest.mark.server

OTHER = "the-next-api-key-of-a-qdrant-of-the-tests"


@pytest.fixture
def keys() -> dict[str, str]:
    """What the server reads when it starts."""
    return service(ADMIN, read_only_key=READ_ONLY)


@pytest.fixture
def server(tmp_path: Path, keys: dict[str, str]) -> Iterator[QdrantServer]:
    with qdrant_server(tmp_path / "qdrant", lambda: keys) as running:
        yield running


def assignment(server: QdrantServer, admin: str | None = ADMIN, name: str = "search", **identity: Any) -> Assignment:
    connection = Connection(
        "qdrant",
        {"url": f"http://{server.host}:{server.port}", "grpcPort": server.grpc_port},
        StoreCredentials(token=admin),
        timeout=5,
    )
    block = identity if identity.get("collections") else {"access": "r", **identity}
    return Assignment(connection, block, owner(name))


async def issued(tokens: QdrantTokens, revision: int = 1, **request: Any) -> IssuedKey:
    return await tokens.create(key_request(tokens, revision, **request))


def test_a_token_is_signed_as_everybody_signs_it() -> None:
    made = sign({"sub": "1234567890", "name": "John Doe", "iat": 1516239022}, "your-256-bit-secret")
    assert made == (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
        ".eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ"
        ".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
    )
    assert claims_of(made) == {"sub": "1234567890", "name": "John Doe", "iat": 1516239022}


@pytest.mark.parametrize("text", [None, "", "a.b", "a.b.c", "a.bm8.c", "a.WzFd.c", "é.é.é"])
def test_what_is_no_token_has_no_claims(text: str | None) -> None:
    assert claims_of(text) is None


async def test_claims_are_those_of_the_identity(server: QdrantServer) -> None:
    tokens = QdrantTokens(assignment(server, collections=[{"collection": "docs", "access": "rw"}]))
    request = key_request(tokens, 3)
    made = await tokens.create(request)
    await tokens.close()
    assert claims_of(made.material.token) == {
        "exp": int(request.not_after.timestamp()) if request.not_after else 0,
        "access": [{"collection": "docs", "access": "rw"}],
        "subject": "team-a/search",
    }
    assert made.not_after == request.not_after
    assert made.id == request.name == tokens.name_of(3)
    named = QdrantTokens(assignment(server, access="m", subject="indexer"))
    claims = claims_of((await issued(named)).material.token) or {}
    await named.close()
    assert (claims["access"], claims["subject"]) == ("m", "indexer")


async def test_a_token_may_do_what_it_says_and_is_taken_whatever_that_is(server: QdrantServer) -> None:
    admin = client(server, ADMIN)
    for name in ("docs", "private"):
        await admin.create_collection(name, models.VectorParams(size=2, distance=models.Distance.DOT))
    tokens = QdrantTokens(assignment(server, collections=[{"collection": "docs", "access": "r"}]))
    made = await issued(tokens)
    assert await tokens.accepts(made.material)
    reader = client(server, made.material.token)
    assert [one.name for one in (await reader.get_collections()).collections] == ["docs"]
    assert (await reader.count("docs")).count == 0
    point = models.PointStruct(id=1, vector=[1.0, 0.0], payload={})
    for forbidden in (reader.count("private"), reader.upsert("docs", [point])):
        with pytest.raises(Exception, match="403"):
            await forbidden
    for opened in (admin, reader, tokens):
        await opened.close()


@pytest.mark.parametrize("late", [0, 25])
async def test_an_expired_token_is_taken_within_the_leeway(server: QdrantServer, late: int) -> None:
    place = assignment(server).connection
    assert await refusal(place, sign({"exp": int(time.time()) - late, "access": "r"}, ADMIN)) is None


async def test_after_the_leeway_a_token_is_refused(server: QdrantServer) -> None:
    expired = sign({"exp": int(time.time() - LEEWAY), "access": "r"}, ADMIN)
    assert "ExpiredSignature" in (await refusal(assignment(server).connection, expired) or "")
    assert QdrantTokens(assignment(server)).traits.leeway == LEEWAY


async def terminal(tokens: QdrantTokens) -> Terminal:
    with pytest.raises(Terminal) as refused:
        await after_break(tokens.check)
    await tokens.close()
    return refused.value


async def test_a_server_that_knows_no_tokens(tmp_path: Path) -> None:
    with qdrant_server(tmp_path / "qdrant", lambda: service(ADMIN, jwt_rbac=False)) as server:
        refused = await terminal(QdrantTokens(assignment(server)))
    assert refused.reason == "JwtNotEnabled"
    assert "service.jwt_rbac" in refused.message


async def test_a_server_that_lets_everybody_in(tmp_path: Path) -> None:
    with qdrant_server(tmp_path / "qdrant", service) as server:
        refused = await terminal(QdrantTokens(assignment(server)))
    assert refused.reason == "AuthorizationDisabled"
    assert "takes any key" in refused.message


async def test_a_key_that_signs_nothing(server: QdrantServer) -> None:
    token = sign({"exp": int(time.time()) + 3600, "access": "m"}, ADMIN)
    for admin in (READ_ONLY, token):
        refused = await terminal(QdrantTokens(assignment(server, admin)))
        assert refused.reason == "AdminRightMissing"
        assert admin not in refused.message


async def test_the_alternative_key_signs_as_well(tmp_path: Path) -> None:
    with qdrant_server(tmp_path / "qdrant", lambda: service(ADMIN, OTHER)) as server:
        for admin in (ADMIN, OTHER):
            tokens = QdrantTokens(assignment(server, admin))
            await tokens.check()
            assert await tokens.accepts((await issued(tokens)).material)
            await tokens.close()


def test_without_the_key_nothing_begins(server: QdrantServer) -> None:
    with pytest.raises(Terminal, match="holds no token") as refused:
        QdrantTokens(assignment(server, None))
    assert refused.value.reason == "MissingCredentials"


@pytest.mark.parametrize(("ahead", "told"), [(timedelta(minutes=3), "ahead of"), (timedelta(minutes=-3), "behind")])
async def test_clocks_that_differ_are_told(
    server: QdrantServer, monkeypatch: pytest.MonkeyPatch, ahead: timedelta, told: str
) -> None:
    """The operator's clock is moved, the server's cannot be."""

    class Moved(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - ahead

    monkeypatch.setattr("vectorwright.rotation.qdrant_tokens.datetime", Moved)
    refused = await terminal(QdrantTokens(assignment(server)))
    assert (refused.reason, told in refused.message) == ("ClockSkew", True)


def test_clocks_may_differ_by_a_minute() -> None:
    assert AHEAD.total_seconds() + 30 == BEHIND.total_seconds() == 90


@pytest.mark.skipif(bool(BINARY), reason="an old server is had as a double only")
async def test_an_old_server(start_qdrant: StartQdrant) -> None:
    refused = await terminal(QdrantTokens(assignment(start_qdrant(api_key=ADMIN, version="1.12.4"))))
    assert refused.reason == "UnsupportedVersion"


async def test_the_revocation_collection_is_small_and_made_once(server: QdrantServer) -> None:
    tokens = QdrantTokens(assignment(server, revocationCollection=REVOCATIONS))
    await tokens.check()
    admin = client(server, ADMIN)
    assert not await admin.collection_exists(REVOCATIONS), "a check changes nothing"
    made = [await issued(tokens, revision) for revision in (1, 2)]
    info = await admin.get_collection(REVOCATIONS)
    assert isinstance(info.config.params.vectors, models.VectorParams)
    assert info.config.params.vectors.size == 1
    assert {"key_id", "mark", "owner"} <= set(info.payload_schema)
    points, _ = await admin.scroll(REVOCATIONS, limit=10)
    assert {(point.payload or {})["key_id"] for point in points} == {one.id for one in made}
    for opened in (admin, tokens):
        await opened.close()


async def test_a_collection_that_is_there_is_taken_as_it_is(server: QdrantServer) -> None:
    admin = client(server, ADMIN)
    await admin.create_collection(REVOCATIONS, models.VectorParams(size=3, distance=models.Distance.COSINE))
    named = {"text": models.VectorParams(size=3, distance=models.Distance.COSINE)}
    await admin.create_collection("of-others", named)
    await admin.close()
    tokens = QdrantTokens(assignment(server, revocationCollection=REVOCATIONS))
    made = await issued(tokens)
    assert await tokens.accepts(made.material)
    await tokens.close()
    refused = await terminal(QdrantTokens(assignment(server, revocationCollection="of-others")))
    assert (refused.reason, "named vectors" in refused.message) == ("InvalidSpec", True)


async def test_a_copied_point_keeps_no_token_alive(server: QdrantServer) -> None:
    tokens = QdrantTokens(assignment(server, revocationCollection=REVOCATIONS, access="m"))
    made, kept = await issued(tokens), await issued(tokens, 2)
    thief = client(server, made.material.token)
    points, _ = await thief.scroll(REVOCATIONS, limit=10, with_vectors=True)
    copies = [models.PointStruct(id=at, vector=point.vector, payload=point.payload) for at, point in enumerate(points)]
    await thief.upsert(REVOCATIONS, copies, wait=True)
    await thief.close()
    assert {key.id for key in await tokens.live()} == {made.id, kept.id}, "a copy is no other key"
    await tokens.revoke(LiveKey(made.id, made.id))
    assert not await tokens.accepts(made.material)
    assert await tokens.accepts(kept.material)
    await tokens.close()


async def test_when_the_collection_is_gone_so_are_its_tokens(server: QdrantServer) -> None:
    tokens = QdrantTokens(assignment(server, revocationCollection=REVOCATIONS))
    made = await issued(tokens)
    admin = client(server, ADMIN)
    await admin.delete_collection(REVOCATIONS)
    await admin.close()
    assert not await tokens.accepts(made.material)
    assert await tokens.live() == []
    await tokens.revoke(LiveKey(made.id, made.id))
    again = await issued(tokens, 2)
    assert await tokens.accepts(again.material)
    assert not await tokens.accepts(made.material)
    await tokens.close()


async def test_the_published_token_is_never_ended_by_its_name(server: QdrantServer) -> None:
    tokens = QdrantTokens(assignment(server, revocationCollection=REVOCATIONS))
    made = await issued(tokens)
    with pytest.raises(Conflict, match="is published"):
        await issued(tokens, 1, current=made.material)
    assert await tokens.accepts(made.material)
    await tokens.close()


async def test_a_token_that_is_not_in_the_list_yet_is_refused(server: QdrantServer) -> None:
    tokens = QdrantTokens(assignment(server, revocationCollection=REVOCATIONS))
    await issued(tokens)
    request = key_request(tokens, 2)
    assert request.draft is not None
    assert not await tokens.accepts(request.draft)
    await tokens.create(request)
    assert await tokens.accepts(request.draft)
    await tokens.close()


@pytest.mark.parametrize("collection", [None, REVOCATIONS])
async def test_tokens_die_with_their_key_and_drafts_are_signed_again(
    server: QdrantServer, keys: dict[str, str], collection: str | None
) -> None:
    fields = {"revocationCollection": collection} if collection else {}
    tokens = QdrantTokens(assignment(server, **fields))
    made, drafted = await issued(tokens), key_request(tokens, 2)
    await tokens.close()
    server.stop()
    keys.update(service(OTHER))
    server.start()
    assert (await terminal(QdrantTokens(assignment(server, **fields)))).reason == "AccessDenied"
    tokens = QdrantTokens(assignment(server, OTHER, **fields))
    await after_break(tokens.check)
    assert not await tokens.accepts(made.material)
    again = await tokens.create(drafted)
    assert await tokens.accepts(again.material)
    assert drafted.draft is not None
    assert again.material != drafted.draft
    assert claims_of(again.material.token) == claims_of(drafted.draft.token)
    await tokens.close()


async def test_tokens_of_one_moment_are_the_same_where_none_is_revoked(server: QdrantServer) -> None:
    tokens = QdrantTokens(assignment(server))
    moment = datetime.now(UTC) + timedelta(hours=1)
    request = key_request(tokens, 1)
    drafts = {(tokens.draft(type(request)(1, request.name, moment, moment)).token) for _ in range(3)}
    assert len(drafts) == 1
    await tokens.close()


@pytest.mark.skipif(bool(BINARY), reason="calls are counted by the double")
async def test_without_a_collection_nothing_is_asked_to_make_or_end_a_token(start_qdrant: StartQdrant) -> None:
    double: QdrantDouble = start_qdrant(api_key=ADMIN)
    tokens = QdrantTokens(assignment(double))
    made = await issued(tokens)
    await tokens.revoke(LiveKey(made.id, made.id))
    assert await tokens.live() == []
    assert double.called == []
    assert await lets_in(double, made.material.token)
    await tokens.close()


async def test_a_token_needs_an_expiry_and_an_access(server: QdrantServer) -> None:
    tokens = QdrantTokens(assignment(server))
    endless = key_request(tokens, 1)
    with pytest.raises(Terminal, match="keyLifetime"):
        tokens.draft(type(endless)(1, endless.name, endless.issued_at, None))
    nothing = QdrantTokens(assignment(server, access=None))
    with pytest.raises(Terminal, match="access or collections"):
        nothing.draft(endless)
    for opened in (tokens, nothing):
        await opened.close()


def http2_proxy(listener: socket.socket, status: int) -> None:
    """Answers one request over HTTP/2 with a status alone, as a proxy that knows nothing of gRPC."""
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as frames:
        frames.read(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        connection.sendall(_frame(4, 0, 0))  # SETTINGS
        kind = None
        while kind != 1:  # HEADERS
            head = frames.read(9)
            kind = head[3]
            frames.read(int.from_bytes(head[:3], "big"))
        connection.sendall(_frame(4, 1, 0))  # and those of the client are fine
        # Names are indices of RFC 7541's table: 8 is :status.
        connection.sendall(_frame(1, 5, 1, b"\x48\x03" + str(status).encode()))
        frames.read(1)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_by_a_proxy_proves_nothing(status: int) -> None:
    """gRPC makes statuses of its own of those of HTTP, which look like the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        proxy = threading.Thread(target=http2_proxy, args=(listener, status))
        proxy.start()
        connection = Connection("qdrant", {"url": f"http://127.0.0.1:{port}", "grpcPort": port}, timeout=5)
        with pytest.raises(Retryable, match="a proxy refuses") as told:
            await refusal(connection, "a-key-that-nobody-asked-qdrant-about")
        proxy.join()
    assert told.value.reason == "UnexpectedAnswer"
