"""One user of a real Weaviate server, whose key is replaced."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from tests.rotation.cases import METHODS
from tests.rotation.issuers.weaviate_users import ROLE, WeaviateCase

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import Assignment, IssuerTraits


class WeaviateInPlace(WeaviateCase):
    id = "weaviate-InPlace"
    strategy = Strategy.IN_PLACE
    traits = IssuerTraits(generates=False, overlaps=False)
    calls: ClassVar[frozenset[str]] = METHODS - {"live"}

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.served.make_user("docs", ROLE)

    def identity_of(self, **changes: Any) -> dict[str, Any]:
        return {"user": "docs", **changes}

    def missing_role(self) -> Assignment:
        return self.assignment(user="docs-missing")

    missing_reason: ClassVar[str] = "UserNotFound"


CASES = (WeaviateInPlace,)
