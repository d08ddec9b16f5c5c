"""Fixtures of the contract suite: every test that asks for ``store`` runs once a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from tests.contract.data import definition
from tests.contract.providers import PROVIDERS, Provider

from vectorwright.stores.base import Store
from vectorwright.stores.registry import Connection, open_store

StoreFactory = Callable[[Connection | None], Store]


@pytest.fixture(params=list(PROVIDERS))
def provider(request: pytest.FixtureRequest) -> Provider:
    """A provider with an empty place for this test."""
    return PROVIDERS[request.param](request)


@pytest.fixture
async def open_another(provider: Provider) -> AsyncIterator[StoreFactory]:
    """``open_another(connection=None)``: one more store, of the same place where nothing else is said."""
    opened: list[Store] = []

    def open_one(connection: Connection | None = None) -> Store:
        store = open_store(connection or provider.connection())
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_another: StoreFactory) -> Store:
    """A store with nothing in it."""
    return open_another(None)


@pytest.fixture
async def docs(store: Store) -> Store:
    """A store with the index ``docs``: cosine, empty, owned."""
    await store.create_index(definition())
    return store
