"""One user of the double of Milvus' access control, whose password is replaced by a superuser."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from tests.rotation.cases import METHODS
from tests.rotation.issuers.milvus_users import ADMIN, ROLE, MilvusCase

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import Assignment, IssuerTraits


class MilvusInPlace(MilvusCase):
    id = "milvus-InPlace"
    strategy = Strategy.IN_PLACE
    traits = IssuerTraits(generates=True, overlaps=False)
    calls: ClassVar[frozenset[str]] = METHODS - {"live"}

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.double.superusers.add(ADMIN)
        self.double.add_user("docs", "The-first-passw0rd", ROLE)

    def identity_of(self, **changes: Any) -> dict[str, Any]:
        return {"user": "docs", **changes}

    def missing_role(self) -> Assignment:
        return self.assignment(user="docs_missing")

    missing_reason: ClassVar[str] = "UserNotFound"


CASES = (MilvusInPlace,)
