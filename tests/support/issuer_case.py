"""The server and identity of a test that :func:`tests.rotation.issuers.over` runs once for each of several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.rotation.cases import IssuerCase


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[IssuerCase]:
    """The case that was chosen for this test."""
    made: IssuerCase = request.param(request)
    yield made
    made.close()
