"""What is Chroma's own.

- metadata that a user keeps on a collection, and collections that are not ours
- a database that does not exist is not an empty one
- what a record may not hold, because the server would not survive it
- headers and TLS; vectors as numbers where base64 is not taken
- waiting writes travel together, and a long list that moves is read again
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import trustme
from tests.contract.conftest import StoreFactory
from tests.contract.data import FIELDS, MARK, batch, definition, record_id, scrolled, vectors
from tests.contract.fault_proxy import FaultProxy
from tests.contract.providers.base import SECRET
from tests.contract.providers.chroma import Chroma
from tests.support.loopback_http import Request, Response
from tests.support.tls import TlsFront

from vectorwright.errors import BatchRejected, NotFound, Retryable, Terminal
from vectorwright.stores.base import FieldDefinition, Store
from vectorwright.stores.chroma import catalog as chroma_catalog
from vectorwright.stores.chroma import store as chroma
from vectorwright.stores.filters import Eq, Ne
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings, open_store

pytestmark = pytest.mark.server


@pytest.fixture
def provider(request: pytest.FixtureRequest) -> Chroma:
    return Chroma(request)


@pytest.fixture
async def raw(provider: Chroma) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody else's client, in the same database."""
    base = f"{provider.server.url}/api/v2/tenants/default_tenant/databases/{provider.database}"
    async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
        yield client


@pytest.fixture
def proxy(provider: Chroma) -> Iterator[FaultProxy]:
    with FaultProxy(provider.origin()) as proxy:
        yield proxy


async def metadata_of(raw: httpx.AsyncClient, name: str) -> dict[str, Any]:
    found = (await raw.get(f"/collections/{name}")).json()["metadata"]
    return dict(found or {})


async def test_what_a_user_keeps_on_a_collection_stays(store: Store, raw: httpx.AsyncClient) -> None:
    theirs = {"team": "search", "n": 3, "ratio": 0.5, "live": True}
    (await raw.post("/collections", json={"name": "theirs", "metadata": theirs})).raise_for_status()
    await store.set_mark("theirs", MARK, "fp")
    await store.update_index("theirs", {"hnsw.ef_search": 55}, [FieldDefinition("word", "keyword")])
    assert (await metadata_of(raw, "theirs")).items() >= theirs.items()
    seen = await store.describe_index("theirs")
    assert (seen.mark, seen.model_fingerprint, seen.fields) == (MARK, "fp", (FieldDefinition("word", "keyword"),))
    assert seen.settings["hnsw.ef_search"] == 55
    await store.set_mark("theirs", None, None)
    left = await metadata_of(raw, "theirs")
    assert {name: value for name, value in left.items() if not name.startswith("vw_fields")} == theirs


async def test_a_mark_on_a_collection_without_metadata_comes_and_goes(store: Store, raw: httpx.AsyncClient) -> None:
    (await raw.post("/collections", json={"name": "plain"})).raise_for_status()
    await store.set_mark("plain", MARK, None)
    assert (await store.describe_index("plain")).mark == MARK
    await store.set_mark("plain", None, None)
    assert await metadata_of(raw, "plain") == {}
    await store.set_mark("plain", None, None)


async def test_a_collection_of_others_is_told_as_it_is(store: Store, raw: httpx.AsyncClient) -> None:
    body = {"name": "theirs", "configuration": {"hnsw": {"space": "l2", "ef_construction": 77}}}
    made = (await raw.post("/collections", json=body)).json()
    (seen,) = await store.list_indexes()
    assert (seen.name, seen.metric, seen.dimension, seen.mark, seen.fields) == ("theirs", "euclidean", None, None, None)
    assert seen.incarnation == made["id"]
    assert seen.settings["hnsw.ef_construction"] == 77
    (
        await raw.post(f"/collections/{made['id']}/add", json={"ids": ["7"], "embeddings": [[1, 2, 3]]})
    ).raise_for_status()
    assert (await store.describe_index("theirs")).dimension == 3
    await store.upsert("theirs", batch(1, dimension=3))
    assert {record.id for record in await scrolled(store, name="theirs")} == {"7", record_id(0)}


async def test_creating_writes_only_what_was_said(store: Store, raw: httpx.AsyncClient) -> None:
    await store.create_index(definition())
    assert await metadata_of(raw, "docs") == {
        "vw_dimension": 8,
        "vw_mark": "install-1/team-a/docs",
        "vw_fingerprint": "fp-1",
        "vw_fields": json.dumps({field.name: field.type for field in FIELDS}, separators=(",", ":")),
    }


@pytest.mark.parametrize("setting", ["hnsw.ef_construction", "hnsw.max_neighbors"])
async def test_settings_fixed_at_creation_are_refused_later(docs: Store, setting: str) -> None:
    with pytest.raises(Terminal) as refused:
        await docs.update_index("docs", {setting: 20})
    assert refused.value.reason == "ImmutableSetting"


async def test_a_setting_that_the_server_refuses_is_terminal(store: Store) -> None:
    with pytest.raises(Terminal) as refused:
        await store.create_index(replace(definition(), settings={"hnsw.ef_search": "many"}))
    assert refused.value.reason == "InvalidRequest"
    assert await store.list_indexes() == []


async def test_a_database_that_does_not_exist_is_not_an_empty_one(provider: Chroma, open_another: StoreFactory) -> None:
    connection = provider.connection()
    store = open_another(replace(connection, settings={**connection.settings, "database": "nowhere"}))
    for call in (store.probe, store.list_indexes, lambda: store.describe_index("docs"), lambda: store.count("docs")):
        with pytest.raises(Terminal) as refused:
            await call()
        assert refused.value.reason == "DatabaseNotFound"
        assert "nowhere" in refused.value.message


async def test_the_identity_is_the_databases_own(
    provider: Chroma, open_another: StoreFactory, proxy: FaultProxy
) -> None:
    own = (await open_another(None).probe()).backend_id
    assert (await open_another(provider.at(proxy.host, proxy.port)).probe()).backend_id == own
    default = Connection("chroma", {"url": provider.server.url.upper().replace("HTTP", "http") + "/"})
    same = Connection("chroma", {"url": provider.server.url, "tenant": "default_tenant"})
    found = {(await open_another(connection).probe()).backend_id for connection in (default, same)}
    assert len(found) == 1
    assert own not in found


@pytest.mark.parametrize("name", ["chroma:document", "chroma:anything", "#document", "$and"])
async def test_names_of_chromas_own_never_reach_it(docs: Store, name: str) -> None:
    """A null under ``chroma:document`` ends the server's writer until it is restarted (chromadb 1.5.9)."""
    with pytest.raises(BatchRejected) as refused:
        await docs.upsert("docs", batch(2, metadata=[{}, {name: "x"}]))
    assert name in refused.value.message
    with pytest.raises(Terminal) as unsupported:
        await docs.count("docs", Eq(name, "x"))
    assert unsupported.value.reason == "UnsupportedFilter"
    await docs.upsert("docs", batch(2))


@pytest.mark.parametrize("where", [Eq("whole", 2**63), Ne("real", float("inf")), Eq("real", float("nan")), Eq("", "x")])
async def test_values_that_chroma_does_not_hold_cannot_be_asked_for(docs: Store, where: Eq | Ne) -> None:
    with pytest.raises(Terminal) as refused:
        await docs.count("docs", where)
    assert refused.value.reason == "UnsupportedFilter"


@pytest.mark.parametrize(
    ("settings", "header", "value"),
    [
        ({}, "authorization", f"Bearer {SECRET}"),
        ({"authHeader": "Authorization"}, "authorization", f"Bearer {SECRET}"),
        ({"authHeader": "X-Chroma-Token"}, "x-chroma-token", SECRET),
    ],
)
async def test_the_token_travels_in_its_header(
    provider: Chroma, proxy: FaultProxy, open_another: StoreFactory, settings: dict[str, str], header: str, value: str
) -> None:
    connection = provider.at(proxy.host, proxy.port)
    await open_another(replace(connection, settings={**connection.settings, **settings})).probe()
    assert proxy.requests
    assert all(request.headers[header] == value for request in proxy.requests)
    assert all(SECRET not in request.path for request in proxy.requests)


async def test_user_and_password_travel_as_basic_credentials(
    provider: Chroma, proxy: FaultProxy, open_another: StoreFactory
) -> None:
    connection = provider.at(proxy.host, proxy.port)
    credentials = StoreCredentials(username="user", password=SECRET)
    await open_another(replace(connection, credentials=credentials)).probe()
    assert all(request.headers["authorization"].startswith("Basic ") for request in proxy.requests)


def test_a_token_that_no_header_takes_is_terminal(provider: Chroma) -> None:
    with pytest.raises(Terminal) as refused:
        open_store(replace(provider.connection(), credentials=StoreCredentials(token="schlüssel-漢")))
    assert refused.value.reason == "InvalidCredentials"
    assert "schl" not in refused.value.message


async def test_tls_is_verified(
    provider: Chroma, tls_front: Callable[[int], TlsFront], open_another: StoreFactory
) -> None:
    front = tls_front(provider.server.port)
    connection = replace(provider.connection(), settings={"url": front.url, "database": provider.database})
    ca = front.ca_file.read_text()
    stranger = trustme.CA().cert_pem.bytes().decode()
    for trusted in (
        TlsSettings(ca=ca),
        TlsSettings(ca=ca, server_name="localhost"),
        TlsSettings(insecure_skip_verify=True),
    ):
        assert await open_another(replace(connection, tls=trusted)).list_indexes() == []
    for untrusted in (TlsSettings(), TlsSettings(ca=stranger), TlsSettings(ca=ca, server_name="other.example")):
        with pytest.raises(Terminal) as refused:
            await open_another(replace(connection, tls=untrusted)).list_indexes()
        assert refused.value.reason == "TLSVerificationFailed"


async def test_vectors_are_numbers_where_base64_is_not_taken(
    provider: Chroma, proxy: FaultProxy, open_another: StoreFactory
) -> None:
    limits = json.dumps({"max_batch_size": 7, "supports_base64_encoding": False}).encode()
    proxy.fail(Response(limits), lambda request: request.path.endswith("/pre-flight-checks"))
    store = open_another(provider.at(proxy.host, proxy.port))
    await store.probe()
    assert store.capabilities.max_batch_records == 7
    await store.create_index(definition())
    await store.upsert("docs", batch(3))
    (sent,) = [json.loads(request.body) for request in proxy.requests if request.path.endswith("/upsert")]
    assert isinstance(sent["embeddings"][0][0], float)
    found = await store.fetch("docs", [record_id(1)], vectors=True)
    assert found[record_id(1)].vector == pytest.approx(vectors(3)[1])


@pytest.mark.parametrize("version", ['"0.6.3"', '"0.5.0"'])
async def test_a_server_before_1_0_is_refused(
    provider: Chroma, proxy: FaultProxy, open_another: StoreFactory, version: str
) -> None:
    proxy.fail(Response(version.encode()), lambda request: request.path.endswith("/version"))
    with pytest.raises(Terminal) as refused:
        await open_another(provider.at(proxy.host, proxy.port)).probe()
    assert refused.value.reason == "UnsupportedVersion"


def _upserts(proxy: FaultProxy) -> list[Request]:
    return [request for request in proxy.requests if request.path.endswith("/upsert")]


async def test_waiting_writes_travel_together(provider: Chroma, proxy: FaultProxy, open_another: StoreFactory) -> None:
    store = open_another(provider.at(proxy.host, proxy.port))
    await store.create_index(definition())
    await asyncio.gather(*(store.upsert("docs", batch(10, start=10 * part)) for part in range(20)))
    sent = [len(json.loads(request.body)["ids"]) for request in _upserts(proxy)]
    assert sum(sent) == 200
    assert len(sent) < 10
    assert await store.count("docs") == 200


async def test_a_refusal_reaches_the_batch_that_it_is_about(
    provider: Chroma, proxy: FaultProxy, open_another: StoreFactory
) -> None:
    store = open_another(replace(provider.at(proxy.host, proxy.port), max_concurrency=20))
    await store.create_index(definition())
    refusal = Response(b'{"error":"InvalidArgumentError","message":"no poison here"}', 400)
    for _ in range(3):  # alone, or with others and then alone
        proxy.fail(refusal, lambda request: b"poison" in request.body and request.path.endswith("/upsert"))
    batches = [batch(5, start=5 * part) for part in range(8)]
    batches[4] = batch(5, start=20, metadata=[{"word": "poison"}] * 5)
    results = await asyncio.gather(*(store.upsert("docs", one) for one in batches), return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 4 + [BatchRejected] + [type(None)] * 3
    assert "no poison here" in str(results[4])
    assert await store.count("docs") == 35


async def test_long_lists_are_read_in_pages(docs: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroma_catalog, "COLLECTIONS_PAGE", 3)
    monkeypatch.setattr(chroma, "IDS_PAGE", 4)
    for number in range(9):
        await docs.create_index(definition(f"more-{number}"))
    assert len(await docs.list_indexes()) == 10
    await docs.upsert("docs", batch(17))
    assert len(await scrolled(docs)) == 17
    assert await docs.count("docs", Ne("word", "w0")) == 11


async def test_many_records_are_deleted_in_steps(docs: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroma, "DELETE_PAGE", 4)
    await docs.upsert("docs", batch(30))
    await docs.delete_where("docs", Eq("word", "w1"))
    assert await docs.count("docs") == 20
    await docs.delete("docs", [record_id(number) for number in range(15)])
    assert await docs.count("docs") == 10


async def test_a_server_that_went_away_comes_back(start_chroma: Callable[[], Any], open_another: StoreFactory) -> None:
    server = start_chroma()
    store = open_another(Connection("chroma", {"url": server.url}, timeout=5))
    await store.create_index(definition())
    await store.upsert("docs", batch(20))
    server.kill()
    with pytest.raises(Retryable):
        await store.upsert("docs", batch(5, start=20))
    with pytest.raises(Retryable):
        await store.list_indexes()
    server.start()
    await store.upsert("docs", batch(5, start=20))
    assert await store.count("docs") == 25
    assert (await store.describe_index("docs")).mark == MARK
    with pytest.raises(NotFound):
        await store.describe_index("other")
