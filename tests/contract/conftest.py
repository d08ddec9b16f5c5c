"""Fixtures of the contract suite: every test that asks for ``store`` runs once a provider.

A test that is not for every store says so by a mark, and is reported as not applicable with the reason where a store's
capabilities say so: ``@pytest.mark.needs("aliases")``, ``@pytest.mark.needs(namespaces=False)``. What the server of a
provider cannot do is said in ``Provider.cannot``, by ``@pytest.mark.needs_server("restart")``. There is no other way to
skip a test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from tests.contract import report
from tests.contract.data import definition
from tests.contract.providers import PROVIDERS, Provider

from vectorwright.stores.base import Store
from vectorwright.stores.registry import Connection, open_store

StoreFactory = Callable[[Connection | None], Store]


def pytest_addoption(parser: pytest.Parser) -> None:
    report.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    report.register(config)


@pytest.fixture(params=list(PROVIDERS))
def provider(request: pytest.FixtureRequest) -> Provider:
    """A provider with an empty place for this test."""
    request.node.user_properties.append((report.PROVIDER, request.param))
    made = PROVIDERS[request.param](request)
    _skip_where_not_applicable(request, made)
    return made


def _skip_where_not_applicable(request: pytest.FixtureRequest, provider: Provider) -> None:
    needs = list(request.node.iter_markers("needs"))
    reason = report.not_applicable(needs, provider.capabilities()) if needs else None
    cannot = provider.all_that_it_cannot()
    for mark in request.node.iter_markers("needs_server"):
        for ability in mark.args:
            if ability in cannot:
                reason = reason or f"{report.NOT_APPLICABLE}{cannot[ability]}"
    if reason is not None:
        pytest.skip(reason)


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
