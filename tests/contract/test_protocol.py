"""A store as a whole: its shape, what it says of itself, and that what it acknowledged stays.

- every method is there, with the parameters of the protocol
- capabilities agree with each other, before and after a probe
- two addresses of one backend are one backend
- an acknowledged write survives a restart of the server; where it does not, the backend is another one afterwards
- a handle that was open before a restart works afterwards
"""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
from tests.contract.conftest import StoreFactory
from tests.contract.data import FIELDS, MARK, batch, definition, record_id, scrolled, vectors
from tests.contract.faulty_transports import FaultyTransports
from tests.contract.providers import Provider

from vectorwright.errors import Retryable
from vectorwright.stores.base import Store
from vectorwright.stores.filters import Eq

pytestmark = pytest.mark.server
METHODS = [
    name
    for name, member in vars(Store).items()
    if inspect.isfunction(member) and (not name.startswith("_") or name in {"__aenter__", "__aexit__"})
]
METRICS = {"cosine", "dotproduct", "euclidean"}
FIELD_TYPES = {"keyword", "integer", "float", "bool", "datetime"}
ROTATIONS = {"DualKey", "Token", "DualIdentity", "InPlace", "Generate"}


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_takes_what_the_protocol_says(store: Store, method: str) -> None:
    assert isinstance(store, Store)
    wanted = list(inspect.signature(getattr(Store, method)).parameters.values())[1:]
    taken = list(inspect.signature(getattr(store, method)).parameters.values())
    assert [(one.name, one.kind, one.default) for one in taken[: len(wanted)]] == [
        (one.name, one.kind, one.default) for one in wanted
    ]
    assert all(one.default is not inspect.Parameter.empty for one in taken[len(wanted) :])


async def test_capabilities_agree_with_each_other(store: Store) -> None:
    for capabilities in (store.capabilities, (await store.probe()).capabilities):
        assert capabilities.metrics
        assert capabilities.metrics <= METRICS
        assert capabilities.field_types <= FIELD_TYPES
        assert {"keyword", "integer", "float", "bool"} <= capabilities.field_types
        assert capabilities.rotation_strategies <= ROTATIONS
        assert min(capabilities.max_dimension, capabilities.max_batch_records, capabilities.max_metadata_bytes) > 0
        assert capabilities.max_text_bytes <= capabilities.max_batch_bytes
        assert capabilities.aliases or not capabilities.atomic_alias_swap
        assert re.fullmatch(capabilities.name_pattern, "docs")
        assert not re.fullmatch(capabilities.name_pattern, "a/b")
        assert capabilities.id_pattern is None or re.fullmatch(capabilities.id_pattern, record_id(0))
        assert not capabilities.namespaces or re.fullmatch(capabilities.namespace_pattern, "team_a")
        assert all(limit.endswith(".") for limit in capabilities.filter_limits)


@pytest.mark.needs_server("identity")
async def test_two_addresses_of_one_backend_are_one_backend(
    provider: Provider, store: Store, open_another: StoreFactory
) -> None:
    with FaultyTransports(provider) as elsewhere:
        there = await open_another(elsewhere.connection()).probe()
    here = await store.probe()
    assert there.backend_id == here.backend_id
    assert there.version == here.version


@pytest.mark.needs("durable")
@pytest.mark.needs_server("restart")
async def test_what_was_acknowledged_is_there_after_a_restart(
    provider: Provider, docs: Store, open_another: StoreFactory
) -> None:
    written = batch(30)
    await docs.upsert("docs", written)
    await docs.delete("docs", [record_id(0)])
    before = await docs.describe_index("docs")
    identity = (await docs.probe()).backend_id
    provider.restart()
    after = open_another(None)
    assert (await after.probe()).backend_id == identity
    seen = await after.describe_index("docs")
    assert (seen.incarnation, seen.mark, seen.model_fingerprint) == (before.incarnation, MARK, "fp-1")
    assert (seen.dimension, seen.metric) == (before.dimension, before.metric)
    assert seen.fields is None or set(seen.fields) == set(FIELDS)
    assert await after.count("docs") == 29
    assert sorted(record.id for record in await scrolled(after)) == sorted(written.ids[1:])
    (record,) = (await after.fetch("docs", [record_id(7)], vectors=True)).values()
    assert (record.metadata, record.text) == (written.metadata[7], "text 7")
    np.testing.assert_allclose(record.vector, written.vectors[7], atol=1e-6)  # type: ignore[arg-type]
    assert (await after.query("docs", written.vectors[7], 1))[0].record.id == record_id(7)
    await after.upsert("docs", batch(1))
    assert await after.count("docs", Eq("word", "w0")) == 10


@pytest.mark.needs(durable=False)
async def test_what_does_not_survive_a_restart_is_another_backend_after_it(provider: Provider, docs: Store) -> None:
    before = (await docs.probe()).backend_id
    await docs.upsert("docs", batch(2))
    provider.restart()
    assert (await docs.probe()).backend_id != before
    assert await docs.list_indexes() == []


@pytest.mark.needs_server("restart")
async def test_a_handle_outlives_a_restart(provider: Provider, store: Store) -> None:
    await store.create_index(definition())
    await store.upsert("docs", batch(3))
    provider.restart()
    for attempt in range(3):
        # What the connections of before met is told once; then they are made anew.
        try:
            await store.list_indexes()
            break
        except Retryable:
            assert attempt < 2
    if not store.capabilities.durable:
        await store.create_index(definition())
    await store.upsert("docs", batch(5))
    assert await store.count("docs") == 5
    assert len(await store.query("docs", vectors(1)[0], 5)) == 5
