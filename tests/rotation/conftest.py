"""Fixtures of the suite of key issuers: ``open_issuer`` opens issuers of the ``case``, a server with an identity."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.rotation.cases import IssuerCase, OpenIssuer

from vectorwright.kube.tenure import process_tenure
from vectorwright.rotation import registry
from vectorwright.rotation.base import Assignment, KeyIssuer


@pytest.fixture
async def open_issuer(case: IssuerCase) -> AsyncIterator[OpenIssuer]:
    """``open_issuer(assignment=None)``: one more issuer, as another process opens it; closed after the test."""
    opened: list[KeyIssuer] = []

    def open_one(assignment: Assignment | None = None) -> KeyIssuer:
        opened.append(registry.open_issuer(case.identity, case.strategy, assignment or case.assignment()))
        return opened[-1]

    yield open_one
    for issuer in opened:
        await issuer.close()


@pytest.fixture
def tenure_ended() -> Iterator[None]:
    """This process is no longer the leader."""
    tenure = process_tenure()
    tenure.set_deadline(0.0)
    yield
    tenure.set_deadline(float("inf"))
