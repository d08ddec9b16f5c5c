"""Fixtures of several unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.support.driver_bench import Bench
from tests.support.reconciling import World

from vectorwright.reconcile import sessions


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A cluster with an operator, whose stores are in memory."""
    async with World() as made:
        monkeypatch.setattr(sessions, "open_store", made.open_store)
        yield made


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A world whose only controller does what the test says."""
    async with Bench() as made:
        yield made
