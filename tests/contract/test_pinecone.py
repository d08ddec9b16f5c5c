"""What is Pinecone's own, on the double of its service.

- the owner is kept in tags without touching those of others; what does not fit is said, or left out where it may be
- an index is waited for until it is ready and until its name is free, within a time
- deletion protection, pods and read capacity change in place, and nothing else does
- a project is one backend, whatever key reaches it
- requests go where the spec says, once, with its key, behind verified TLS; the environment changes nothing
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
import trustme
from tests.contract.data import MARK, batch, definition, record_id, scrolled, vectors
from tests.contract.pinecone_project import KEY, PROJECT, connection, project_double
from tests.support.loopback_http import Response
from tests.support.pinecone import PineconeDouble
from tests.support.tls import TlsFront

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal
from vectorwright.stores.base import FieldDefinition, IndexDefinition, OwnershipMark, Setting, Store
from vectorwright.stores.pinecone import catalog
from vectorwright.stores.registry import TlsSettings, open_store

pytestmark = pytest.mark.server
DENSE = {"type": "dense_vector", "dimension": 3, "metric": "cosine"}
PODS: dict[str, Setting] = {"pods.environment": "us-east1-gcp", "pods.pod_type": "p1.x1"}


@pytest.fixture
def double() -> Iterator[PineconeDouble]:
    with project_double() as double:
        yield double


@pytest.fixture
async def store(double: PineconeDouble) -> AsyncIterator[Store]:
    async with open_store(connection(double)) as store:
        yield store


def tags(double: PineconeDouble) -> Mapping[str, str]:
    return double.project(PROJECT).indexes["docs"].tags


async def test_tags_of_others_are_never_touched(docs: Store, double: PineconeDouble) -> None:
    double.project(PROJECT).indexes["docs"].tags |= {"team": "search", "cost-center": "7"}
    await docs.set_mark("docs", OwnershipMark("i" * 36, "n" * 63, "m" * 253), "fp-2")
    assert (await docs.describe_index("docs")).mark == OwnershipMark("i" * 36, "n" * 63, "m" * 253)
    await docs.set_mark("docs", MARK, None)
    await docs.update_index("docs", {}, [FieldDefinition("later", "keyword")])
    seen = await docs.describe_index("docs")
    assert (seen.mark, seen.model_fingerprint) == (MARK, None)
    await docs.set_mark("docs", None, None)
    assert {name: value for name, value in tags(double).items() if not name.startswith("vw_")} == {
        "team": "search",
        "cost-center": "7",
    }
    assert {name for name in tags(double) if name.startswith("vw_")} == {"vw_incarnation", "vw_fields"}


async def test_declared_fields_are_kept_while_they_fit(store: Store, double: PineconeDouble) -> None:
    several = tuple(FieldDefinition(f"a_field_with_a_name_{n}", "float") for n in range(20))
    made = await store.create_index(IndexDefinition("docs", 8, "cosine", fields=several, mark=MARK))
    assert made.fields == several
    many = [FieldDefinition(f"one_more_field_{n}", "bool") for n in range(100)]
    await store.update_index("docs", {}, many)
    seen = await store.describe_index("docs")
    assert (seen.fields, seen.mark) == (None, MARK)
    assert len(tags(double)) <= 20


async def test_an_index_that_others_made_is_told_as_far_as_it_is_known(store: Store, double: PineconeDouble) -> None:
    double.project(PROJECT).answer(
        "POST",
        "/indexes",
        {"name": "theirs", "schema": {"fields": {"_values": DENSE}}},
        "x",
    )
    (index,) = await store.list_indexes()
    assert (index.name, index.dimension, index.mark, index.fields) == ("theirs", 3, None, None)
    before = index.incarnation
    await store.set_mark("theirs", MARK, "fp")
    assert (await store.describe_index("theirs")).incarnation == before


async def test_an_index_that_the_sdk_cannot_read_is_not_lost(docs: Store, double: PineconeDouble) -> None:
    double.project(PROJECT).indexes["docs"].deployment = {"deployment_type": "of a newer API"}
    (index,) = await docs.list_indexes()
    assert (index.name, index.dimension) == ("docs", None)


async def test_an_index_of_documents_is_listed_and_not_written_to(docs: Store, double: PineconeDouble) -> None:
    fields = {"body": {"type": "string", "full_text_search": {}}, "vector": DENSE}
    told = {**double.project(PROJECT).answer("GET", "/indexes/docs", {}, double.url)[1], "schema": {"fields": fields}}
    double.fail(Response(json.dumps({"indexes": [told]}).encode()))
    (index,) = await docs.list_indexes()
    assert (index.name, index.dimension, index.metric) == ("docs", None, None)
    for call in (docs.upsert("docs", batch(1)), docs.query("docs", vectors(1)[0], 1), scrolled(docs)):
        double.fail(Response(json.dumps(told).encode()), lambda request: request.path == "/indexes/docs")
        with pytest.raises(Terminal) as refused:
            await call
        assert refused.value.reason == "UnsupportedIndex"


async def test_creation_waits_until_the_index_takes_records(store: Store, double: PineconeDouble) -> None:
    double.knobs.ready_after = 0.6
    started = time.monotonic()
    await store.create_index(definition())
    assert time.monotonic() - started >= 0.6
    await store.upsert("docs", batch(2))


async def test_creation_does_not_wait_for_ever(
    store: Store, double: PineconeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "READY_WITHIN", 0.3)
    double.knobs.ready_after = 60.0
    with pytest.raises(Retryable) as waiting:
        await store.create_index(definition())
    assert waiting.value.reason == "IndexNotReady"
    assert (await store.describe_index("docs")).mark == MARK
    with pytest.raises(Retryable) as early:
        await store.upsert("docs", batch(2))
    assert early.value.reason == "IndexNotReady"


async def test_deletion_waits_until_the_name_is_free(docs: Store, double: PineconeDouble) -> None:
    double.knobs.gone_after = 0.4
    await docs.delete_index("docs")
    await docs.create_index(definition())


async def test_what_is_still_being_deleted_is_told_in_time(
    docs: Store, double: PineconeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "GONE_WITHIN", 0.2)
    double.knobs.gone_after = 60.0
    with pytest.raises(Retryable) as waiting:
        await docs.delete_index("docs")
    assert waiting.value.reason == "IndexNotGone"
    with pytest.raises(Conflict):
        await docs.create_index(definition())


async def test_a_protected_index_is_not_deleted(store: Store, double: PineconeDouble) -> None:
    await store.create_index(replace(definition(), settings={"deletion_protection": "enabled"}))
    with pytest.raises(Terminal) as refused:
        await store.delete_index("docs")
    assert refused.value.reason == "DeletionProtected"
    assert "deletionProtection: disabled" in refused.value.message
    assert not any(request.method == "DELETE" for request in double.requests)
    await store.update_index("docs", {"deletion_protection": "disabled"})
    await store.delete_index("docs")


async def test_pods_are_made_and_scaled(store: Store) -> None:
    made = await store.create_index(replace(definition(), settings={**PODS, "pods.shards": 2}))
    assert made.settings.items() >= {**PODS, "pods.replicas": 1, "pods.shards": 2}.items()
    await store.update_index("docs", {"pods.replicas": 3, "pods.pod_type": "p1.x2"})
    seen = (await store.describe_index("docs")).settings
    assert (seen["pods.replicas"], seen["pods.pod_type"], seen["pods.shards"]) == (3, "p1.x2", 2)
    with pytest.raises(Terminal) as smaller:
        await store.update_index("docs", {"pods.pod_type": "p1.x1"})
    assert smaller.value.reason == "InvalidRequest"
    fixed_ones: dict[str, Setting] = {"pods.shards": 4, "pods.environment": "other", "serverless.region": "eu"}
    for setting, value in fixed_ones.items():
        with pytest.raises(Terminal) as fixed:
            await store.update_index("docs", {setting: value})
        assert fixed.value.reason == "ImmutableSetting"
    await store.upsert("docs", batch(3))
    assert len(await store.query("docs", vectors(1)[0], 3)) == 3
    with pytest.raises(Terminal) as unlisted:
        await scrolled(store)
    assert "serverless" in unlisted.value.message


async def test_read_capacity_is_changed_as_a_whole(store: Store) -> None:
    dedicated: dict[str, Setting] = {
        "read_capacity.mode": "Dedicated",
        "read_capacity.node_type": "b1",
        "read_capacity.replicas": 1,
        "read_capacity.shards": 2,
    }
    made = await store.create_index(
        replace(definition(), settings={"serverless.cloud": "gcp", "serverless.region": "europe-west4"})
    )
    assert made.settings["read_capacity.mode"] == "OnDemand"
    assert made.settings["serverless.cloud"] == "gcp"
    await store.update_index("docs", dedicated)
    await store.update_index("docs", {"read_capacity.replicas": 4})
    seen = (await store.describe_index("docs")).settings
    assert seen.items() >= {**dedicated, "read_capacity.replicas": 4}.items()
    await store.update_index("docs", {"read_capacity.mode": "OnDemand"})
    seen = (await store.describe_index("docs")).settings
    assert [name for name in seen if name.startswith("read_capacity")] == ["read_capacity.mode"]


@pytest.mark.parametrize(
    "settings",
    [
        {**PODS, "serverless.cloud": "aws", "serverless.region": "us-east-1"},
        {"serverless.cloud": "aws"},
        {"pods.environment": "us-east1-gcp"},
        {"read_capacity.mode": "Dedicated"},
    ],
)
async def test_settings_that_make_no_index(store: Store, double: PineconeDouble, settings: dict[str, Setting]) -> None:
    with pytest.raises(Terminal) as refused:
        await store.create_index(replace(definition(), settings=settings))
    assert refused.value.reason == "InvalidTuning"
    assert double.requests == []


async def test_a_project_is_one_backend_whatever_key_reaches_it(docs: Store, double: PineconeDouble) -> None:
    double.issue("second", PROJECT)
    double.issue("elsewhere", "p9z9z9z")
    first = (await docs.probe()).backend_id
    async with open_store(connection(double, "second")) as second:
        assert (await second.probe()).backend_id == first == "pinecone:p1a2b3c"
    async with open_store(connection(double, "elsewhere")) as other:
        assert (await other.probe()).backend_id != first
    await docs.delete_index("docs")
    assert (await docs.probe()).backend_id == first
    async with open_store(connection(double, "second", projectId=PROJECT)) as empty:
        assert (await empty.probe()).backend_id == first


async def test_a_key_that_was_revoked_is_refused_and_the_next_one_works(docs: Store, double: PineconeDouble) -> None:
    double.issue("next", PROJECT)
    double.revoke(KEY)
    for call in (docs.list_indexes(), docs.upsert("docs", batch(1)), docs.count("docs")):
        with pytest.raises(Terminal) as refused:
            await call
        assert refused.value.reason == "AccessDenied"
        assert KEY not in refused.value.message
    async with open_store(connection(double, "next")) as store:
        await store.upsert("docs", batch(1))


async def test_a_full_project_says_so(docs: Store, double: PineconeDouble) -> None:
    double.knobs.max_indexes = 1
    with pytest.raises(Terminal) as full:
        await docs.create_index(definition("more"))
    assert full.value.reason == "QuotaExceeded"
    assert "max serverless indexes" in full.value.message


async def test_failures_are_tried_once(docs: Store, double: PineconeDouble) -> None:
    for path, call in (("/indexes", docs.list_indexes), ("/upsert", lambda: docs.upsert("docs", batch(1)))):
        for response in (Response(status=503), Response(cut_after=0)):
            double.fail(response, lambda request, path=path: request.path.endswith(path))  # type: ignore[misc]
            before = len(double.requests)
            with pytest.raises(Retryable):
                await call()
            asked = [request for request in double.requests[before:] if request.path.endswith(path)]
            assert len(asked) == 1


async def test_throttling_tells_how_long_on_both_planes(docs: Store, double: PineconeDouble) -> None:
    for call in (docs.list_indexes, lambda: docs.fetch("docs", [record_id(0)])):
        double.throttle(1, seconds=12)
        with pytest.raises(Retryable) as busy:
            await call()
        assert (busy.value.reason, busy.value.after) == ("Throttled", 12.0)


async def test_an_index_made_again_elsewhere_is_found(docs: Store, double: PineconeDouble) -> None:
    async with open_store(connection(double)) as stranger:
        await docs.upsert("docs", batch(2))
        await stranger.delete_index("docs")
        with pytest.raises(NotFound):
            await docs.fetch("docs", [record_id(0)])
        await stranger.create_index(definition())
        assert await docs.fetch("docs", [record_id(0)]) == {}


async def test_the_environment_changes_nothing(double: PineconeDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "of somebody else")
    monkeypatch.setenv("PINECONE_CONTROLLER_HOST", "http://127.0.0.1:1")
    monkeypatch.setenv("PINECONE_ADDITIONAL_HEADERS", '{"Api-Key": "of somebody else", "X-Odd": "1"}')
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with open_store(connection(double)) as store:
        await store.create_index(definition())
        await store.upsert("docs", batch(2))
        assert len(await store.query("docs", vectors(1)[0], 2)) == 2
    assert {request.headers["api-key"] for request in double.requests} == {KEY}
    assert not any("x-odd" in request.headers for request in double.requests)
    assert all(request.headers["user-agent"].startswith("vectorwright/") for request in double.requests)
    with pytest.raises(Terminal) as missing:
        open_store(connection(double, key=None))
    assert missing.value.reason == "MissingCredentials"


@pytest.mark.parametrize("key", ["schlüssel-漢", "pcsk_x\n", " pcsk_x"])
async def test_a_key_that_no_header_takes(double: PineconeDouble, key: str) -> None:
    with pytest.raises(Terminal) as refused:
        open_store(connection(double, key))
    assert refused.value.reason == "InvalidCredentials"
    assert key.strip() not in refused.value.message


async def test_tls_is_verified_on_both_planes(double: PineconeDouble, tls_front: Callable[[int], TlsFront]) -> None:
    front = tls_front(double.port)
    ca, stranger = front.ca_file.read_text(), trustme.CA().cert_pem.bytes().decode()
    at = urlsplit(front.url).netloc
    secure = replace(connection(double), settings={"controlUrl": f"{front.url}/at/{at}"})
    async with open_store(replace(secure, tls=TlsSettings(ca=ca))) as store:
        await store.create_index(definition())
        await store.upsert("docs", batch(2))
        assert len(await store.query("docs", vectors(1)[0], 2)) == 2
    for untrusted in (TlsSettings(), TlsSettings(ca=stranger), TlsSettings(ca=ca, server_name="other.example")):
        async with open_store(replace(secure, tls=untrusted)) as store:
            with pytest.raises(Terminal) as refused:
                await store.list_indexes()
            assert refused.value.reason == "TLSVerificationFailed"
    async with open_store(replace(secure, tls=TlsSettings(insecure_skip_verify=True))) as store:
        assert await store.count("docs") == 2
