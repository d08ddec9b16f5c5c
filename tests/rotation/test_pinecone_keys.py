"""What is special to keys of Pinecone, on its double.

- one access token serves all calls until shortly before it ends, whatever the clock on the wall says; a token that is
  refused is replaced once, by one call for all
- a key is proved whatever roles it has, in a project without any index; a call that a proxy refuses proves nothing
- listings are followed page by page; a quota, a plan, a right and a project that are missing are told apart
- what the SDK sends is sent, to the addresses that the spec names, which alone get its certificates
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from pinecone._internal.constants import ADMIN_API_VERSION, API_VERSION_HEADER
from tests.rotation.cases import key_request, owner
from tests.rotation.issuers.pinecone_keys import PROJECT, REAL, PineconeDualKey
from tests.rotation.steps import failed
from tests.support.loopback_http import LoopbackHttp, Request, Response
from tests.support.pinecone.admin import ROLES
from tests.support.pinecone.refusals import Refusal
from tests.support.tls import TlsFront

from vectorwright.errors import Retryable, Terminal
from vectorwright.kube import clock
from vectorwright.rotation import admin_http, pinecone_keys
from vectorwright.rotation.admin_http import open_api
from vectorwright.rotation.base import Assignment, KeyMaterial, LiveKey
from vectorwright.rotation.names import numbered
from vectorwright.rotation.pinecone_keys import PineconeKeys, open_issuer
from vectorwright.stores.base import OwnershipMark
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings

pytestmark = [pytest.mark.server, pytest.mark.skipif(REAL, reason="faults are tried on the double")]
JSON = {"Content-Type": "application/json"}
PAGE = Response(b"<html>no entry</html>", 403, {"Content-Type": "text/html"})


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Any:
    made = PineconeDualKey(request)
    made.double.admin.usable_after = 0.0
    yield made
    made.close()


@pytest.fixture
async def issuer(case: PineconeDualKey) -> AsyncIterator[PineconeKeys]:
    opened = open_issuer(case.assignment())
    yield opened
    await opened.close()


def told(status: int, message: str, code: str = "") -> Response:
    return Response(orjson.dumps(Refusal(status, message, code=code).of_control_plane()), status, JSON)


def asked(method: str, end: str) -> Callable[[Request], bool]:
    return lambda request: request.method == method and request.path.partition("?")[0].endswith(end)


# Tokens


async def test_one_token_serves_calls_at_the_same_time(case: PineconeDualKey, issuer: PineconeKeys) -> None:
    await asyncio.gather(*(issuer.live() for _ in range(8)))
    await issuer.check()
    assert case.double.operations.count("oauth.token") == 1


async def test_a_token_is_used_until_shortly_before_it_ends(
    case: PineconeDualKey, issuer: PineconeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, passed = clock.now(), 0.0
    monkeypatch.setattr(clock, "now", lambda: begun + passed)
    monkeypatch.setattr("time.time", lambda: 12.0)  # the clock on the wall is wrong, and of no matter
    for passed, tokens in ((0.0, 1), (1_499.0, 1), (1_501.0, 2), (2_900.0, 2), (3_002.0, 3)):  # noqa: B007
        await issuer.live()
        assert case.double.operations.count("oauth.token") == tokens


async def test_of_a_short_token_half_the_life_is_used(
    case: PineconeDualKey, issuer: PineconeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.double.admin.token_seconds = 60
    begun, passed = clock.now(), 0.0
    monkeypatch.setattr(clock, "now", lambda: begun + passed)
    for passed, tokens in ((0.0, 1), (29.0, 1), (31.0, 2)):  # noqa: B007
        await issuer.live()
        assert case.double.operations.count("oauth.token") == tokens


async def test_a_refused_token_is_replaced_once_for_all(case: PineconeDualKey, issuer: PineconeKeys) -> None:
    await issuer.live()
    case.double.admin.forget_tokens()
    await asyncio.gather(*(issuer.live() for _ in range(5)))
    assert case.double.operations.count("oauth.token") == 2
    made = await issuer.create(key_request(issuer, 1))
    case.double.admin.forget_tokens()
    await issuer.revoke(LiveKey(made.id, issuer.name_of(1), 1))
    assert await issuer.live() == []
    assert case.double.operations.count("oauth.token") == 3


async def test_tokens_that_are_always_refused_are_no_reason_to_go_on(
    case: PineconeDualKey, issuer: PineconeKeys
) -> None:
    for _ in range(4):
        case.double.fail(Response(b"Unauthorized", 401), asked("GET", "/api-keys"))
    error = await failed(issuer.live)
    assert (type(error), error.reason) == (Terminal, "AccessDenied")
    assert case.double.operations.count("keys.list") == 2


async def test_a_service_account_that_is_taken_away(case: PineconeDualKey) -> None:
    client_id, secret = case.double.admin.add_account("second")
    issuer = open_issuer(case.assigned(client_id, secret))
    made = await issuer.create(key_request(issuer, 1))
    case.double.admin.remove_account(client_id)
    for call in (issuer.live, lambda: issuer.revoke(LiveKey(made.id, issuer.name_of(1), 1))):
        error = await failed(call)
        assert (type(error), error.reason) == (Terminal, "AccessDenied")
    assert await issuer.accepts(made.material) is True  # its keys live on
    await issuer.close()


async def test_the_token_endpoint_is_throttled(case: PineconeDualKey, issuer: PineconeKeys) -> None:
    case.double.operations.fail("oauth.token", status=429, retry_after=7)
    error = await failed(issuer.check)
    assert isinstance(error, Retryable)
    assert (error.reason, error.after) == ("Throttled", 7.0)
    await issuer.check()


async def test_a_page_instead_of_a_token(case: PineconeDualKey, issuer: PineconeKeys) -> None:
    for status in (200, 403, 404):
        case.double.fail(Response(b"<html>sign in</html>", status), asked("POST", "/oauth/token"))
        assert (await failed(issuer.check)).reason == "UnexpectedAnswer"


# Proof


async def test_a_key_is_proved_whatever_its_roles(case: PineconeDualKey) -> None:
    subsets = [some for size in range(1, 7) for some in itertools.combinations(sorted(ROLES), size)]
    assert len(subsets) == 63
    case.double.admin.usable_until = 0.0
    for roles in subsets:
        issuer = open_issuer(case.assignment(roles=list(roles)))
        made = await issuer.create(key_request(issuer, 1))
        assert await issuer.accepts(made.material) is True, roles
        await issuer.revoke(LiveKey(made.id, issuer.name_of(1), 1))
        assert await issuer.accepts(made.material) is False, roles
        await issuer.close()


async def test_a_key_of_other_roles_than_now_is_not_called_dead(case: PineconeDualKey) -> None:
    before = open_issuer(case.assignment(roles=["DataPlaneEditor"]))
    now = open_issuer(case.assignment(roles=["ControlPlaneEditor"]))
    made = await before.create(key_request(before, 1))
    error = await failed(lambda: now.accepts(made.material))
    assert (type(error), error.reason) == (Retryable, "UnexpectedAnswer")
    await now.revoke(LiveKey(made.id, now.name_of(1), 1))
    case.double.admin.clock.advance(case.double.admin.usable_until)
    assert await now.accepts(made.material) is False
    await before.close()
    await now.close()


@pytest.mark.parametrize("roles", [["ProjectEditor"], ["DataPlaneViewer"]], ids=lambda roles: roles[0])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (PAGE, "UnexpectedAnswer"),
        (Response(b"<html>hello</html>", 200), "UnexpectedAnswer"),
        (Response(b"{}", 200, JSON), "UnexpectedAnswer"),
        (Response(b"no such page", 404), "UnexpectedAnswer"),
        (Response(b"", 302, {"Location": "https://sso.example.com/"}), "UnexpectedRedirect"),
        (told(500, "Internal server error"), "Unavailable"),
        (told(503, "down"), "Throttled"),
    ],
    ids=["403-page", "200-page", "200-other", "404-page", "302", "500", "503"],
)
async def test_what_is_no_proof(case: PineconeDualKey, roles: list[str], answer: Response, reason: str) -> None:
    issuer = open_issuer(case.assignment(roles=roles))
    case.double.fail(answer, asked("GET", "/indexes"))
    assert (await failed(lambda: issuer.accepts(KeyMaterial(token="pcsk_of_a_person")))).reason == reason
    assert await issuer.accepts(KeyMaterial(token="pcsk_of_a_person")) is True
    await issuer.close()


# Keys


async def test_keys_have_the_name_and_roles_that_were_asked_for(case: PineconeDualKey) -> None:
    issuer = open_issuer(case.assignment(roles=["DataPlaneEditor", "ControlPlaneViewer"]))
    made = await issuer.create(key_request(issuer, 3))
    with case.admin() as admin:
        key = admin.api_keys.describe(api_key_id=made.id)
    assert (key.name, {str(role.value) for role in key.roles}) == (
        issuer.name_of(3),
        {"DataPlaneEditor", "ControlPlaneViewer"},
    )
    assert [(one.id, one.revision) for one in await issuer.live()] == [(made.id, 3)]
    await issuer.close()


async def test_names_fit_however_long_the_resource_is_called(case: PineconeDualKey) -> None:
    long = Assignment(
        case.assignment().connection, case.assignment().identity, OwnershipMark("c", "n" * 63, "a.b-" * 60)
    )
    issuer = open_issuer(long)
    made = await issuer.create(key_request(issuer, 1_000_000))
    assert len(issuer.name_of(1_000_000)) <= 80
    assert [(key.id, key.revision) for key in await issuer.live()] == [(made.id, 1_000_000)]
    await issuer.close()


async def test_a_full_project(case: PineconeDualKey, issuer: PineconeKeys) -> None:
    lost = await issuer.create(key_request(issuer, 1))
    case.double.admin.max_keys = len(case.double.admin.keys)
    error = await failed(lambda: issuer.create(key_request(issuer, 2)))
    assert (type(error), error.reason) == (Terminal, "KeyQuotaReached")
    # The one that is in the way is being deleted: that is no matter for people.
    case.double.fail(told(403, "quota of API keys reached", "QUOTA_EXCEEDED"), asked("POST", "/api-keys"))
    error = await failed(lambda: issuer.create(key_request(issuer, 1)))
    assert isinstance(error, Retryable)
    assert (error.reason, lost.id in error.message) == ("InProgress", True)
    assert (await issuer.create(key_request(issuer, 1))).id != lost.id


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (told(403, "The role DataPlaneEditor is not available on the Starter plan"), "RoleNotFound"),
        (told(403, "Permission denied"), "AdminRightMissing"),
        (told(429, "Too many requests"), "Throttled"),
        (told(429, "Too many API keys", "QUOTA_EXCEEDED"), "KeyQuotaReached"),
        (told(400, "Unknown role"), "InvalidRequest"),
        (told(404, "project not found"), "ProjectNotFound"),
        (PAGE, "UnexpectedAnswer"),
        (Response(b"<html>made</html>", 201), "UnexpectedAnswer"),
    ],
    ids=["plan", "right", "busy", "quota", "refused", "project", "403-page", "201-page"],
)
async def test_why_no_key_is_made(case: PineconeDualKey, issuer: PineconeKeys, answer: Response, reason: str) -> None:
    case.double.fail(answer, asked("POST", "/api-keys"))
    assert (await failed(lambda: issuer.create(key_request(issuer, 1)))).reason == reason
    assert await issuer.live() == []


async def test_only_pinecone_itself_says_that_a_key_is_gone(case: PineconeDualKey, issuer: PineconeKeys) -> None:
    made = await issuer.create(key_request(issuer, 1))
    live = LiveKey(made.id, issuer.name_of(1), 1)
    for answer in (Response(b"no such page", 404), Response(b"<html>deleted</html>", 202)):
        case.double.fail(answer, asked("DELETE", made.id))
        assert (await failed(lambda: issuer.revoke(live))).reason == "UnexpectedAnswer"
    assert [key.id for key in await issuer.live()] == [made.id]
    await issuer.revoke(live)
    await issuer.revoke(live)


# Listings


class Paged:
    """An Admin API whose listings come in pages of two keys."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.endless = False
        self.server = LoopbackHttp(self._answer)

    def _answer(self, request: Request) -> Response:
        path, _, query = request.path.partition("?")
        if path == "/oauth/token":
            return Response(orjson.dumps({"access_token": "token-of-the-pages", "token_type": "Bearer"}), 200, JSON)
        start = int(query.removeprefix("paginationToken=") or 0)
        listed = [{"id": f"key-{name}", "name": name} for name in self.names[start : start + 2]]
        more = self.endless or start + 2 < len(self.names)
        pagination = {"next": str(start if self.endless else start + 2)} if more else None
        return Response(orjson.dumps({"data": listed, "pagination": pagination}), 200, JSON)


async def test_listings_are_followed_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = owner("search")
    names = [numbered(mark, revision) for revision in range(1, 8)]
    paged = Paged(["default", *names, "another"])
    identity = {
        "projectId": PROJECT,
        "roles": ["ProjectEditor"],
        "adminUrl": paged.server.origin,
        "loginUrl": paged.server.origin,
    }
    credentials = StoreCredentials(username="somebody", password="a secret of pages")
    issuer = open_issuer(Assignment(Connection("pinecone", {}, credentials, timeout=10), identity, mark))
    assert [key.revision for key in await issuer.live()] == list(range(1, 8))
    paged.endless = True
    monkeypatch.setattr(pinecone_keys, "MAX_PAGES", 5)
    assert (await failed(issuer.live)).reason == "UnexpectedAnswer"
    assert sum(request.path == "/oauth/token" for request in paged.server.requests) == 1  # without a stated expiry
    await issuer.close()
    paged.server.close()


# Addresses and credentials


async def test_every_address_is_verified(case: PineconeDualKey, tls_front: Callable[[int], TlsFront]) -> None:
    front = tls_front(case.double.port)
    assignment = case.assignment(adminUrl=front.url, loginUrl=front.url)
    connection = replace(assignment.connection, settings={"controlUrl": front.url})
    ours = TlsSettings(ca=front.ca_file.read_text())
    for tls, reason in ((TlsSettings(), "TLSVerificationFailed"), (ours, ""), (replace(ours, server_name="x"), "TLS")):
        issuer = open_issuer(replace(assignment, connection=replace(connection, tls=tls)))
        for call in (issuer.live, lambda: issuer.accepts(KeyMaterial(token="pcsk_of_a_person"))):  # noqa: B023
            if reason:
                assert (await failed(call)).reason.startswith(reason)
            else:
                await call()
        await issuer.close()


def test_the_version_of_the_api_is_the_one_of_the_sdk() -> None:
    assert (pinecone_keys.API_VERSION, API_VERSION_HEADER) == (ADMIN_API_VERSION, "X-Pinecone-Api-Version")


@pytest.mark.parametrize(
    ("credentials", "reason"),
    [
        (StoreCredentials(token="a-token-alone"), "MissingCredentials"),
        (StoreCredentials(username="somebody"), "MissingCredentials"),
        (StoreCredentials(password="a secret alone"), "MissingCredentials"),
        (StoreCredentials(username="somebody", password="pasted-with-a-newline\n"), "InvalidCredentials"),
    ],
    ids=["token", "no-secret", "no-id", "newline"],
)
def test_a_service_account_has_an_id_and_a_secret(credentials: StoreCredentials, reason: str) -> None:
    connection = Connection("pinecone", {}, credentials)
    with pytest.raises(Terminal) as refused:
        open_issuer(Assignment(connection, {"projectId": PROJECT, "roles": ["ProjectEditor"]}, owner("search")))
    assert refused.value.reason == reason
    assert "pasted" not in refused.value.message


@pytest.mark.parametrize(
    ("url", "store", "expected"),
    [
        (None, "https://api.example.com", TlsSettings("own CA", "name of the store")),
        (None, "https://gateway.internal", TlsSettings()),
        ("https://admin.internal", "https://gateway.internal", TlsSettings("own CA")),
        ("https://gateway.internal/admin", "https://gateway.internal", TlsSettings("own CA", "name of the store")),
    ],
    ids=["same-public-host", "public", "named", "named-same-host"],
)
def test_certificates_of_the_spec_are_for_its_own_addresses(
    url: str | None, store: str, expected: TlsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TlsSettings] = []
    monkeypatch.setattr(admin_http, "AdminHttp", lambda _url, _setting, tls, _timeout: seen.append(tls))
    connection = Connection("pinecone", {}, tls=TlsSettings("own CA", "name of the store"))
    open_api(connection, url, "https://api.example.com", "spec.x", store)
    assert seen == [expected]
