"""A VectorStore, through the real control loop and real stores in memory.

What is checked: probed and reported; Secrets and certificates missing, wrong, changed while in use; limits and
time-outs handed on; throttling told; a store that goes and comes; what a listing shares; another backend; the end of a
VectorStore.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.support.reconciling import NAMESPACE, World, vectors

from vectorwright.api.v1alpha1.vectorstore import PROVIDERS
from vectorwright.errors import Retryable, Terminal
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.sessions import StoreSession
from vectorwright.reconcile.vectorstore import jittered
from vectorwright.stores.base import IndexDefinition, IndexDescription
from vectorwright.stores.memory import MemoryStore

STORE = Key("VectorStore", NAMESPACE, "vectors")


def conditions(world: World) -> dict[str, tuple[str, str]]:
    return world.conditions("vectors", "VectorStore")


def status(world: World) -> dict[str, Any]:
    return world.status("vectors", "VectorStore")


def message(world: World) -> str:
    return world.message("vectors", "VectorStore")


async def test_it_is_probed_and_reported(world: World) -> None:
    store = world.backend()
    await store.memory.create_index(IndexDefinition("theirs", 4, "cosine"))
    world.add_store()
    await world.settle()
    found = status(world)
    assert conditions(world) == {"Ready": ("True", "Ready")}
    assert message(world).startswith("memory vectorwright ")
    assert message(world).endswith(" at memory answers")
    assert (found["provider"], found["endpoint"], found["indexes"], found["throttled"]) == (
        "memory",
        "memory",
        1,
        False,
    )
    assert found["backendId"] == store.memory._backend_id
    assert found["capabilities"]["metrics"] == ["cosine", "dotproduct", "euclidean"]
    assert found["capabilities"]["aliases"] is True
    assert "credentialsVersion" not in found
    assert store.made() == {"probe": 1, "list_indexes": 1, "aliases": 1}


async def test_limits_and_tls_reach_the_store(world: World) -> None:
    world.backend()
    world.config_maps.set(NAMESPACE, "authorities", ca__crt="PEM")
    world.add_store(
        limits={"timeout": "1m30s", "maxConcurrency": 3},
        tls={"caConfigMap": {"name": "authorities"}, "serverName": "store.internal"},
    )
    await world.settle()
    connection = world.opened[0]
    assert (connection.timeout, connection.max_concurrency) == (90.0, 3)
    assert (connection.tls.ca, connection.tls.server_name) == ("PEM", "store.internal")


async def test_without_limits_the_defaults_are_those_of_the_documentation(world: World) -> None:
    world.backend()
    world.add_store()
    await world.settle()
    assert (world.opened[0].timeout, world.opened[0].max_concurrency) == (30.0, 8)


@pytest.mark.parametrize("keys", [["memory", "chroma"], []])
async def test_not_exactly_one_provider_is_refused_also_without_the_api_server(world: World, keys: list[str]) -> None:
    blocks = {"memory": {"server": "http://vectors"}, "chroma": {"url": "http://vectors"}}
    world.api.apply(
        {
            "apiVersion": "vectorwright.dev/v1alpha1",
            "kind": "VectorStore",
            "metadata": {"name": "vectors", "namespace": NAMESPACE},
            "spec": {key: blocks[key] for key in keys},
        }
    )
    await world.settle()
    assert conditions(world)["Stalled"] == ("True", "InvalidSpec")
    found = ", ".join(sorted(keys)) or "none"
    providers = ", ".join(PROVIDERS)
    assert message(world) == f"spec: exactly one of {providers} must be set, found {found}"
    assert world.opened == []


# -- Secrets --
async def test_a_secret_that_is_missing_is_named_and_its_arrival_wakes_the_store(world: World) -> None:
    world.backend()
    world.add_store(controlCredentials={"name": "store-key"})
    await world.settle()
    assert conditions(world)["Stalled"] == ("True", "SecretNotFound")
    assert message(world) == "Secret team-a/store-key does not exist: create it"
    world.secrets.set(NAMESPACE, "store-key", password="abc123")
    await world.settle()
    assert conditions(world)["Ready"] == ("True", "Ready")
    assert world.opened[-1].credentials.password == "abc123"
    assert status(world)["credentialsVersion"] == "1"


async def test_a_secret_without_the_key_names_what_it_has_and_never_a_value(world: World) -> None:
    world.backend()
    world.secrets.set(NAMESPACE, "store-key", apiKey="value-never-to-be-seen")
    world.add_store(controlCredentials={"name": "store-key"})
    await world.settle()
    assert conditions(world)["Stalled"] == ("True", "SecretKeyMissing")
    assert message(world) == (
        "Secret team-a/store-key has none of the keys token, username, password (it has: apiKey): add one, or name "
        "the key in the credentials block"
    )
    world.add_store(controlCredentials={"name": "store-key", "tokenKey": "token"})
    await world.settle()
    assert message(world) == "Secret team-a/store-key has no key 'token' (it has: apiKey)"
    assert "value-never-to-be-seen" not in str(world.api.objects)
    assert "value-never-to-be-seen" not in str(world.events.told)


async def test_a_changed_secret_is_used_at_once(world: World) -> None:
    store = world.backend()
    world.secrets.set(NAMESPACE, "store-key", token="first")
    world.add_store(controlCredentials={"name": "store-key"})
    await world.settle()
    world.secrets.set(NAMESPACE, "store-key", token="second")
    await world.settle()
    assert [connection.credentials.token for connection in world.opened] == ["first", "second"]
    assert status(world)["credentialsVersion"] == "2"
    assert store.made("probe") == {"probe": 2}


async def test_a_wrong_new_secret_leaves_the_old_session_for_finalizers(world: World) -> None:
    store = world.backend()
    world.secrets.set(NAMESPACE, "store-key", token="first")
    world.add_store(controlCredentials={"name": "store-key"})
    world.add_index()
    await world.settle()
    store.failures["probe"] = Terminal("the server refuses the token (401)", reason="Unauthorized")
    world.secrets.set(NAMESPACE, "store-key", token="wrong")
    await world.settle()
    assert conditions(world)["Stalled"] == ("True", "Unauthorized")
    assert world.conditions()["Ready"] == ("False", "StoreNotReady")
    world.api.remove("VectorIndex", NAMESPACE, "docs")
    await world.settle()
    assert not world.exists()
    assert (await store.memory.describe_index("docs-g1")).mark is None


async def test_a_secret_that_nobody_refers_to_wakes_nobody(world: World) -> None:
    store = world.backend()
    world.add_store()
    await world.settle()
    store.calls.clear()
    world.secrets.set(NAMESPACE, "unrelated", token="x")
    await world.settle()
    assert store.calls == []


async def test_a_certificate_authority_that_is_missing_is_named(world: World) -> None:
    world.backend()
    world.add_store(tls={"caSecret": {"name": "ca"}})
    await world.settle()
    assert message(world) == "Secret team-a/ca does not exist: create it"
    world.secrets.set(NAMESPACE, "ca", tls__crt="PEM")
    await world.settle()
    assert message(world) == "Secret team-a/ca has no key 'ca.crt' (it has: tls.crt)"


# -- up and down --
async def test_a_busy_store_is_told_apart_and_asked_no_earlier_than_it_said(world: World) -> None:
    store = world.backend()
    world.add_store()
    await world.settle()
    store.failures["list_indexes"] = Retryable("too many requests (429)", reason="Throttled", after=40.0)
    await world.tick()
    assert status(world)["throttled"] is True
    assert conditions(world)["Reconciling"] == ("True", "Throttled")
    loop_time_left = world.driver.queue._due[STORE] - time.monotonic()
    assert 39 < loop_time_left <= 40


async def test_what_is_known_stays_while_a_store_is_down(world: World) -> None:
    store = world.backend()
    world.add_store()
    await world.settle()
    before = status(world)
    store.failures["*"] = Retryable("connection refused", reason="StoreUnreachable")
    await world.tick()
    after = status(world)
    assert conditions(world)["Ready"] == ("False", "StoreUnreachable")
    for name in ("backendId", "version", "capabilities", "endpoint"):
        assert after[name] == before[name]


async def test_a_store_that_came_back_is_probed_again(world: World) -> None:
    """It may be another version, or another store."""
    store = world.backend()
    world.add_store()
    await world.settle()
    store.failures["*"] = Retryable("connection refused", reason="StoreUnreachable")
    await world.tick()
    store.failures.clear()
    store.calls.clear()
    await world.tick()
    assert store.made("probe", "list_indexes") == {"probe": 1, "list_indexes": 1}


async def test_an_error_that_says_the_same_wakes_no_index(world: World) -> None:
    store = world.backend()
    world.add_store()
    world.add_index()
    await world.settle()
    store.failures["*"] = Retryable("connection refused", reason="StoreUnreachable")
    await world.tick()
    world.api.writes.clear()
    await world.tick()
    assert world.api.writes == []


async def test_the_interval_has_jitter_and_a_least_value(world: World) -> None:
    assert all(54 <= jittered(60) <= 66 for _ in range(200))
    world.backend()
    world.add_store(probeInterval="1ms")
    await world.settle(horizon=0.2)
    left = world.driver.queue._due[STORE] - time.monotonic()
    assert 0.3 < left <= 1.1


# -- the shared listing --
class _Slow(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.listed = 0
        self.gate = asyncio.Event()

    async def list_indexes(self) -> list[IndexDescription]:
        self.listed += 1
        found = await super().list_indexes()
        await self.gate.wait()
        return found


async def session_of(store: MemoryStore) -> StoreSession:
    return StoreSession(STORE, "digest", store, await store.probe())


async def test_callers_that_come_together_share_one_listing() -> None:
    store = _Slow()
    session = await session_of(store)
    asked = [asyncio.create_task(session.refresh()) for _ in range(10)]
    await asyncio.sleep(0.01)
    store.gate.set()
    await asyncio.gather(*asked)
    # The first one's had begun when the others asked; one more serves all of them.
    assert store.listed == 2
    await session.refresh(max_age=60)
    assert store.listed == 2


async def test_what_was_written_during_a_listing_is_newer_than_it() -> None:
    store = _Slow()
    await store.create_index(IndexDefinition("dropped", 4, "cosine"))
    session = await session_of(store)
    asked = asyncio.create_task(session.refresh())
    await asyncio.sleep(0.01)
    made = await store.create_index(IndexDefinition("made", 4, "cosine"))
    session.note(made)
    await store.delete_index("dropped")
    session.forget("dropped")
    store.gate.set()
    assert set(await asked) == {"made"}
    await store.delete_index("made")
    assert set(await session.refresh()) == set(), "the next listing is believed again"


# -- its end --
async def test_a_store_without_indexes_goes_at_once_and_is_closed(world: World) -> None:
    store = world.backend()
    world.add_store()
    await world.settle()
    world.api.remove("VectorStore", NAMESPACE, "vectors")
    await world.settle()
    assert not world.exists("vectors", "VectorStore")
    assert world.context.sessions.get(STORE) is None
    assert world.context.uses == {}
    await world.context.sessions.close_all()
    assert store.made("close") == {"close": 1}


async def test_the_release_annotation_lets_a_store_go_although_indexes_need_it(world: World) -> None:
    world.backend()
    world.add_store()
    world.add_index(deletionPolicy="Delete")
    await world.settle()
    world.api.remove("VectorStore", NAMESPACE, "vectors")
    await world.settle()
    assert world.exists("vectors", "VectorStore")
    world.api.annotate("VectorStore", NAMESPACE, "vectors", release="true")
    await world.settle()
    assert not world.exists("vectors", "VectorStore")


async def test_credentials_that_are_mended_while_the_store_is_kept_are_used(world: World) -> None:
    store = world.backend()
    world.secrets.set(NAMESPACE, "store-key", token="first")
    world.add_store(controlCredentials={"name": "store-key"})
    world.add_index(deletionPolicy="Delete")
    await world.settle()
    await store.memory.upsert("docs-g1", vectors(1))
    world.api.annotate("VectorIndex", NAMESPACE, "docs", confirm_delete="docs-g1")
    await world.settle()
    store.failures["describe_index"] = Terminal("the server refuses the token (401)", reason="Unauthorized")
    world.api.remove("VectorStore", NAMESPACE, "vectors")
    world.api.remove("VectorIndex", NAMESPACE, "docs")
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "Unauthorized")
    store.failures.clear()
    world.secrets.set(NAMESPACE, "store-key", token="second")
    await world.settle()
    assert not world.exists()
    assert not world.exists("vectors", "VectorStore")
    assert await store.memory.list_indexes() == []


async def test_a_store_that_is_kept_but_cannot_be_opened_says_why_and_how_to_let_go(world: World) -> None:
    world.backend()
    world.add_store()
    world.add_index(deletionPolicy="Delete")
    await world.settle()
    world.api.remove("VectorStore", NAMESPACE, "vectors")
    await world.settle()
    world.backends.clear()
    await world.restart()
    assert conditions(world)["Ready"] == ("False", "StoreUnreachable")
    assert message(world) == (
        "http://vectors cannot be reached (VectorIndex docs needs this store; let go at once with the annotation "
        "vectorwright.dev/release=true)"
    )
