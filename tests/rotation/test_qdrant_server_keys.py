"""Both keys of a Qdrant server: what is special to them, on the API double and running servers.

- a whole life: the first key is handed over, replaced and revoked; neither field is ever empty, others are left alone
- a client that knows only the published key is refused by no replica, at no moment
- killed after any call to the API server: the same method comes to the same end, and the server is not restarted twice
- nothing that is in use is ended: a second key by hand, the published one, another rotation's, the only one
- tokens signed with a key die with it
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.rotation.cases import key_request, owner
from tests.rotation.issuers.qdrant_tokens import lets_in
from tests.rotation.steps import make, revoke
from tests.support.api_double import ApiDouble, Body
from tests.support.qdrant import jwt
from tests.support.qdrant_workload import FIRST, PlayedWorkload, identity, keys_in, played_server, secret_manifest

from vectorwright.errors import Conflict, Retryable
from vectorwright.kube.tenure import process_tenure
from vectorwright.rotation import qdrant_server_workload
from vectorwright.rotation.base import Assignment, IssuedKey, KeyMaterial, LiveKey
from vectorwright.rotation.qdrant_server_keys import QdrantServerKeys
from vectorwright.rotation.qdrant_server_secret import HANDED_OVER, SEALED
from vectorwright.stores.registry import Connection

pytestmark = pytest.mark.server


class KilledError(Exception):
    """The process ended here."""


class MortalApi(ApiDouble):
    """Ends the process that makes the chosen call, counted from 0, after the call was done."""

    calls_left: int | None = None

    def _die(self) -> None:
        if self.calls_left is None:
            return
        self.calls_left -= 1
        if self.calls_left < 0:
            self.calls_left = None
            raise KilledError

    async def get(self, *given: Any, **named: Any) -> Body:
        found = await super().get(*given, **named)
        self._die()
        return found

    async def list(self, *given: Any, **named: Any) -> list[Body]:
        found = await super().list(*given, **named)
        self._die()
        return found

    async def patch(self, *given: Any, **named: Any) -> Body:
        found = await super().patch(*given, **named)
        self._die()
        return found


@pytest.fixture
def api() -> MortalApi:
    return MortalApi()


@pytest.fixture
def played(api: MortalApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedWorkload]:
    monkeypatch.setattr(qdrant_server_workload, "LOOK_AGAIN", 0.02)
    with played_server(api, tmp_path, password="of-somebody-else") as running:
        yield running


def opened(played: PlayedWorkload, name: str = "search", **changes: Any) -> QdrantServerKeys:
    replicas = played.replicas
    place = {"url": f"http://{replicas.host}:{replicas.port}", "grpcPort": replicas.grpc_port}
    return QdrantServerKeys(
        Assignment(
            Connection("qdrant", place, timeout=5), identity(played.name, **changes), owner(name), played.api.client()
        )
    )


def handed_over() -> IssuedKey:
    return IssuedKey(HANDED_OVER, KeyMaterial(token=FIRST))


async def taken(played: PlayedWorkload, *keys: KeyMaterial | str) -> list[bool]:
    """Whether all replicas take each key."""
    tokens = [key if isinstance(key, str) else key.token for key in keys]
    found = [{await lets_in(server, token) for server in played.replicas.servers} for token in tokens]
    assert all(len(one) == 1 for one in found), "replicas differ"
    return [one == {True} for one in found]


async def rotated(played: PlayedWorkload, revision: int, old: IssuedKey) -> IssuedKey:
    """One whole rotation."""
    issuer = opened(played)
    current = old.material if revision > 1 else None
    made = await make(issuer, key_request(issuer, revision, current))
    await revoke(opened(played), old, revision - 1)
    return made


async def test_from_the_first_key_to_the_last(played: PlayedWorkload) -> None:
    seen: list[dict[str, str]] = []
    played.api.listeners.append(lambda kind, _, body: seen.append(keys_in(body)) if kind == "Secret" else None)
    issuer = opened(played)
    await issuer.check()
    before = await issuer.predecessor()
    assert before == handed_over()
    assert await issuer.live() == []

    first = await make(issuer, key_request(issuer, 1))
    assert played.keys == {"api-key": FIRST, "alt-api-key": first.material.token, "password": "of-somebody-else"}
    assert await taken(played, FIRST, first.material) == [True, True]
    assert await issuer.predecessor() == before
    assert played.restarts == 1

    await revoke(issuer, handed_over(), 0)
    assert played.keys["api-key"] == played.keys["alt-api-key"] == first.material.token, (
        "an empty key lets everybody in"
    )
    assert await taken(played, FIRST, first.material, "") == [False, True, False]
    assert await issuer.predecessor() is None
    assert [key.id for key in await issuer.live()] == [first.id] == [issuer.name_of(1)]
    assert played.restarts == 2

    second = await rotated(played, 2, first)
    assert await taken(played, FIRST, first.material, second.material) == [False, False, True]
    assert played.restarts == 4

    await revoke(issuer, second, 2)
    sealed = played.keys["api-key"]
    assert played.keys == {"api-key": sealed, "alt-api-key": sealed, "password": "of-somebody-else"}
    assert await taken(played, second.material, "", "anything-at-all", sealed) == [False, False, False, True]
    assert played.ids["primary"] == SEALED
    assert await issuer.live() == []
    await opened(played, "another").check()
    assert played.restarts == len(seen) == 5
    assert all(held["api-key"] and held["alt-api-key"] for held in seen)


async def test_no_client_is_refused_at_any_moment(played: PlayedWorkload) -> None:
    """Clients of both APIs, through the address of the replicas, with the key that is published at that moment."""
    published, asked, refused = [FIRST], [0], list[str]()
    stopped = asyncio.Event()
    judge = opened(played)
    played.replicas.drain_seconds = 0.5

    async def use() -> None:
        while not stopped.is_set():
            key = published[0]
            if not await lets_in(played.replicas, key):
                refused.append("over REST")
            if not await judge.accepts(KeyMaterial(token=key)):
                refused.append("over gRPC")
            asked[0] += 9

    using = asyncio.create_task(use())
    old = handed_over()
    for revision in (1, 2, 3):
        issuer = opened(played)
        made = await make(issuer, key_request(issuer, revision, None if revision == 1 else old.material))
        published[0] = str(made.material.token)
        before = asked[0]
        while asked[0] < before + 18:  # those that had read the old one are through
            await asyncio.sleep(0.01)
            if using.done():
                break
        await revoke(issuer, old, revision - 1)
        old = made
    stopped.set()
    await using
    assert refused == []
    assert asked[0] > 100
    assert played.restarts == 6


async def test_killed_after_any_call(api: MortalApi, played: PlayedWorkload) -> None:
    current = await rotated(played, 1, handed_over())
    revision, died = 2, 0
    for method in ("create", "revoke"):
        at, alive = 0, False
        while not alive:
            restarts = played.restarts
            issuer = opened(played)
            request = key_request(issuer, revision, current.material)
            if method == "revoke":
                made = await make(issuer, request)
            api.calls_left = at
            try:
                if method == "create":
                    await make(opened(played), request)
                else:
                    await revoke(opened(played), current, revision - 1)
            except KilledError:
                died += 1
            alive, api.calls_left = api.calls_left is not None, None
            if method == "create":
                made = await make(opened(played), request)
            assert made.material == request.draft
            await revoke(opened(played), current, revision - 1)
            played.settle()
            assert played.restarts == restarts + 2, f"{method}, killed after call {at}"
            assert await taken(played, current.material, made.material) == [False, True]
            assert [key.id for key in await opened(played).live()] == [made.id]
            current, revision, at = made, revision + 1, at + 1
    assert died > 6


async def test_the_rollout_is_waited_for(played: PlayedWorkload) -> None:
    issuer = opened(played)
    request = key_request(issuer, 1)
    played.hold.set()
    for _ in range(3):
        with pytest.raises(Retryable, match="0 of 2 pods are of the new template") as waiting:
            await issuer.create(request)
        assert (waiting.value.reason, waiting.value.after) == ("InProgress", 0.02)
    assert await taken(played, FIRST, request.draft or "") == [True, False]
    played.settle()
    assert (await make(issuer, request)).material == request.draft
    assert played.restarts == 1


async def test_a_change_between_reading_and_writing_is_noticed(api: MortalApi, played: PlayedWorkload) -> None:
    def intrude(write: Any) -> None:
        if write.kind == "Secret":
            api.before_write = lambda _: None
            secret = played.secret
            secret["data"]["another"] = "bmV3"
            api.apply(secret)

    api.before_write = intrude
    issuer = opened(played)
    request = key_request(issuer, 1)
    with pytest.raises(Retryable) as failed:
        await issuer.create(request)
    assert failed.value.reason == "ChangedMeanwhile"
    assert "alt-api-key" not in played.keys
    await make(issuer, request)
    assert played.keys["another"] == "new"


async def test_without_the_lease_nothing_is_changed(played: PlayedWorkload) -> None:
    issuer = opened(played)
    made = await make(issuer, key_request(issuer, 1))
    before = played.secret, played.restarts
    process_tenure().set_deadline(0.0)
    try:
        for call in (issuer.create(key_request(issuer, 1)), issuer.revoke(LiveKey(made.id, made.id))):
            with pytest.raises(Retryable) as refused:
                await call
            assert refused.value.reason == "LeaseLost"
    finally:
        process_tenure().set_deadline(float("inf"))
    assert (played.secret, played.restarts) == before


async def test_the_key_that_was_handed_over_is_never_the_last_to_go(played: PlayedWorkload) -> None:
    issuer = opened(played)
    await issuer.revoke(LiveKey(HANDED_OVER, HANDED_OVER))  # before anything of ours was there: not ours to revoke
    made = await make(issuer, key_request(issuer, 1))
    await revoke(issuer, made, 1)
    await issuer.revoke(LiveKey(HANDED_OVER, HANDED_OVER))  # as at the deletion of a resource that published nothing
    assert await taken(played, FIRST, made.material) == [True, False]
    assert played.keys["api-key"] == played.keys["alt-api-key"] == FIRST


async def test_there_is_no_room_for_a_third_key(played: PlayedWorkload) -> None:
    issuer = opened(played)
    first = await make(issuer, key_request(issuer, 1))
    for current in (first.material, None):  # None: its value was lost, and it may be published
        with pytest.raises(Conflict, match=r"must be revoked") as refused:
            await issuer.create(key_request(issuer, 2, current))
        assert refused.value.reason == "BothKeysInUse"
    assert await taken(played, FIRST, first.material) == [True, True]


async def test_a_published_key_that_somebody_else_replaced_is_not_rotated(played: PlayedWorkload) -> None:
    first = await rotated(played, 1, handed_over())
    secret = played.secret
    secret["data"] = secret_manifest(played.name)["data"]
    played.api.apply(secret)
    issuer = opened(played)
    with pytest.raises(Conflict, match="somebody else wrote it") as refused:
        await issuer.create(key_request(issuer, 2, first.material))
    assert refused.value.reason == "KeyInUse"
    assert played.keys["api-key"] == FIRST


async def test_the_published_name_is_not_made_anew(played: PlayedWorkload) -> None:
    first = await rotated(played, 1, handed_over())
    issuer = opened(played)
    with pytest.raises(Conflict, match="is the one in use"):
        await issuer.create(key_request(issuer, 1, first.material))
    assert await taken(played, first.material) == [True]


async def test_two_rotations_do_not_share_a_server(played: PlayedWorkload) -> None:
    await rotated(played, 1, handed_over())
    other = opened(played, "another")
    for call in (other.check(), other.create(key_request(other, 1)), other.live()):
        with pytest.raises(Conflict, match="rotated by tests/team-a/search") as refused:
            await call
        assert refused.value.reason == "SecretNotOurs"


async def test_tokens_die_with_the_key_that_signed_them(played: PlayedWorkload) -> None:
    expires = int(time.time()) + 600
    by_first = jwt(FIRST, exp=expires, access="r")
    assert await taken(played, by_first) == [True]
    first = await rotated(played, 1, handed_over())
    by_new = jwt(str(first.material.token), exp=expires, access="r")
    assert await taken(played, by_first, by_new) == [False, True]
