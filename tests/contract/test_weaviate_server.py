"""What is Weaviate's own in reaching a server and in tuning a collection: tenants, settings, TLS.

- tenants: named where there are some, refused where there are none
- settings are told back, and what a server refuses is said in its words
- both of its APIs are spoken to over TLS, and neither is trusted unseen
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract.conftest import StoreFactory
from tests.contract.data import batch, definition, record_id, vectors
from tests.contract.providers.weaviate import Weaviate
from tests.contract.test_weaviate import api, made_by_others, provider
from tests.support.tls import TlsFront

from vectorwright.errors import Retryable, Terminal
from vectorwright.stores.base import Store
from vectorwright.stores.registry import Connection, TlsSettings

__all__ = ["api", "provider"]

pytestmark = pytest.mark.server


async def test_an_index_with_tenants_wants_one_named(
    provider: Weaviate, store: Store, open_another: StoreFactory
) -> None:
    await store.create_index(replace(definition(), settings={"multi_tenancy": True}))
    for call in (store.upsert("docs", batch(1)), store.count("docs"), store.query("docs", vectors(1)[0], 3)):
        with pytest.raises(Terminal) as refused:
            await call
        assert refused.value.reason == "UnsupportedNamespace"
    await store.create_index(definition("plain"))
    named = open_another(replace(provider.connection(), namespace="team_a"))
    for call in (named.upsert("plain", batch(1)), named.count("plain"), named.delete_namespace("plain", "team_a")):
        with pytest.raises(Terminal) as refused:
            await call
        assert refused.value.reason == "UnsupportedNamespace"


async def test_tenants_of_a_collection_that_does_not_make_them_by_itself(
    provider: Weaviate, store: Store, open_another: StoreFactory, api: httpx.AsyncClient
) -> None:
    await made_by_others(api, "Books", multiTenancyConfig={"enabled": True})
    named = open_another(replace(provider.connection(), namespace="team_a"))
    assert await named.count("books") == 0
    await asyncio.gather(*(named.upsert("books", batch(3, start=3 * part)) for part in range(4)))
    assert await named.count("books") == 12
    held = await store.statistics("books")
    assert (held.count, held.exact, held.namespaces) == (12, True, {"team_a": 12})
    tenants = [{"name": "team_a", "activityStatus": "INACTIVE"}]
    (await api.put("/schema/Books/tenants", json=tenants)).raise_for_status()
    held = await store.statistics("books")
    assert (held.count, held.exact, held.details["inactive_tenants"]) == (0, False, 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"index_type": "flat"},
        {"index_type": "flat", "quantizer.type": "bq", "quantizer.rescore_limit": 30},
        {"quantizer.type": "sq", "quantizer.training_limit": 5_000},
        {"quantizer.type": "rq", "quantizer.bits": 1},
        {"quantizer.type": "none"},
        {"hnsw.ef_construction": 99, "hnsw.max_connections": 20, "hnsw.filter_strategy": "sweeping", "shards": 2},
        {"multi_tenancy": True, "replication_factor": 1},
    ],
    ids=",".join,
)
async def test_settings_are_told_back(store: Store, settings: dict[str, Any]) -> None:
    made = await store.create_index(replace(definition(), settings=settings))
    assert made.settings.items() >= settings.items()


async def test_vectors_are_compressed_later(docs: Store) -> None:
    await docs.upsert("docs", batch(50))
    await docs.update_index("docs", {"quantizer.type": "rq", "quantizer.rescore_limit": 25})
    assert (await docs.describe_index("docs")).settings["quantizer.type"] == "rq"
    (match,) = await docs.query("docs", vectors(50)[7], 1)
    assert match.record.id == record_id(7)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"replication_factor": 3}, "1 available, 3 requested"),
        ({"index_type": "flat", "quantizer.type": "pq"}, "PQ is not currently supported"),
        ({"index_type": "dynamic"}, "async indexing"),
    ],
    ids=["replicas", "quantizer", "dynamic"],
)
async def test_what_a_server_refuses_is_said_in_its_words(store: Store, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(Terminal, match=says) as refused:
        await store.create_index(replace(definition(), settings=settings))
    assert refused.value.reason == "InvalidSetting"
    assert await store.list_indexes() == []


async def test_what_is_fixed_at_creation_is_refused_before_any_call(docs: Store) -> None:
    before = await docs.describe_index("docs")
    for setting in ("hnsw.ef_construction", "index_type", "multi_tenancy", "replication_factor", "shards"):
        with pytest.raises(Terminal) as refused:
            await docs.update_index("docs", {setting: 2})
        assert refused.value.reason == "ImmutableSetting"
    assert await docs.describe_index("docs") == before


@pytest.fixture
def fronts(provider: Weaviate, tmp_path: Path) -> Iterator[tuple[TlsFront, TlsFront]]:
    """TLS in front of the REST API and of the gRPC API, each with an authority of its own."""
    rest = TlsFront(provider.server.port, tmp_path / "rest.pem")
    grpc = TlsFront(provider.grpc_port(), tmp_path / "grpc.pem", grpc=True)
    yield rest, grpc
    rest.close()
    grpc.close()


def over_tls(provider: Weaviate, fronts: tuple[TlsFront, TlsFront], ca: str) -> Connection:
    rest, grpc = fronts
    settings = {"url": rest.url, "grpcPort": grpc.port}
    return replace(provider.connection(), settings=settings, tls=TlsSettings(ca=ca))


async def test_both_apis_are_reached_over_tls(
    provider: Weaviate, fronts: tuple[TlsFront, TlsFront], open_another: StoreFactory
) -> None:
    bundle = "".join(front.ca_file.read_text() for front in fronts)
    store = open_another(over_tls(provider, fronts, bundle))
    assert (await store.probe()).endpoint == fronts[0].url
    await store.create_index(definition())
    await store.upsert("docs", batch(3))
    assert await store.count("docs") == 3


async def test_neither_api_is_trusted_unseen(
    provider: Weaviate, fronts: tuple[TlsFront, TlsFront], store: Store, open_another: StoreFactory
) -> None:
    await store.create_index(definition())
    rest, grpc = fronts
    with pytest.raises(Terminal) as refused:
        await open_another(over_tls(provider, fronts, grpc.ca_file.read_text())).probe()
    assert refused.value.reason == "TLSVerificationFailed"
    with pytest.raises(Terminal) as refused:
        await open_another(over_tls(provider, fronts, rest.ca_file.read_text())).count("docs")
    assert refused.value.reason == "TLSVerificationFailed"


async def test_a_grpc_api_that_is_elsewhere_is_noticed_by_a_probe(
    provider: Weaviate, open_another: StoreFactory, unused_tcp_port: int
) -> None:
    with pytest.raises(Retryable) as refused:
        await open_another(provider.at("127.0.0.1", provider.server.port, unused_tcp_port)).probe()
    assert refused.value.reason == "Unreachable"
    assert "grpcPort" in refused.value.message
