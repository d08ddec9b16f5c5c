"""A double of a Qdrant server on loopback: no registry carries the server itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.qdrant.access import jwt
from tests.support.qdrant.double import QdrantDouble
from tests.support.qdrant.replicas import QdrantReplicas

__all__ = ["QdrantDouble", "QdrantReplicas", "StartQdrant", "StartQdrantReplicas", "jwt"]

API_KEY = "qdrant-api-key-of-the-tests"

StartQdrant = Callable[..., QdrantDouble]
StartQdrantReplicas = Callable[..., QdrantReplicas]


@pytest.fixture(scope="session")
def qdrant_double() -> Iterator[QdrantDouble]:
    """One for the whole session, with an API key: empty it before use, and do not close it (see ``start_qdrant``)."""
    double = QdrantDouble(api_key=API_KEY)
    yield double
    double.close()


@pytest.fixture
def start_qdrant() -> Iterator[StartQdrant]:
    """``start_qdrant(**options)`` starts a double of this test's own."""
    doubles: list[QdrantDouble] = []

    def start(**options: Any) -> QdrantDouble:
        doubles.append(QdrantDouble(**options))
        return doubles[-1]

    yield start
    for double in doubles:
        double.close()


@pytest.fixture
def start_qdrant_replicas() -> Iterator[StartQdrantReplicas]:
    """``start_qdrant_replicas(number=2, **options)`` starts doubles of one data set behind one address."""
    started: list[QdrantReplicas] = []

    def start(number: int = 2, **options: Any) -> QdrantReplicas:
        started.append(QdrantReplicas(number, **options))
        return started[-1]

    yield start
    for replicas in started:
        replicas.close()
