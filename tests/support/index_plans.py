"""What is wanted of an index and what was found, for tests of the plan: everything fits where nothing else is said."""

from __future__ import annotations

from typing import Any

from vectorwright.api.v1alpha1.vectorindex import UpdatePolicy
from vectorwright.reconcile.index_plan import DesiredIndex, ObservedIndex
from vectorwright.stores.base import Capabilities, ChangeClass, IndexDefinition, IndexDescription, OwnershipMark

MINE = OwnershipMark("here", "team-a", "docs")
THEIRS = OwnershipMark("here", "team-b", "docs")
ELSEWHERE = OwnershipMark("elsewhere", "team-a", "docs")
SETTINGS = {"safe.one": ChangeClass.SAFE, "costly.one": ChangeClass.COSTLY, "disruptive.one": ChangeClass.DISRUPTIVE}
CAN = Capabilities(
    metrics=frozenset({"cosine", "euclidean"}),
    max_dimension=2000,
    field_types=frozenset({"keyword", "integer"}),
    name_pattern=r"^[a-z][a-z0-9-]{0,20}$",
    mutable_settings=SETTINGS,
)
CEILINGS = {UpdatePolicy.SAFE: 0, UpdatePolicy.COSTLY: 1, UpdatePolicy.DISRUPTIVE: 2}
"""Up to which rank of a class of change each policy goes."""


def desired(**changes: Any) -> DesiredIndex:
    """An index that this resource manages. ``changes`` are of its definition, or of what is wanted."""
    definition = {
        name: changes.pop(name) for name in ("dimension", "metric", "fields", "settings", "mark", "model_fingerprint")
        if name in changes
    }  # fmt: skip
    physical = changes.pop("physical", "docs")
    made = IndexDefinition(physical, **{"dimension": 4, "metric": "cosine", "mark": MINE, **definition})
    return DesiredIndex(**{"name": "docs", "definition": made, **changes})


def found(**changes: Any) -> IndexDescription:
    """An index in the store, as this resource made it."""
    return IndexDescription(
        **{
            "name": "docs",
            "dimension": 4,
            "metric": "cosine",
            "incarnation": "i1",
            "mark": MINE,
            "fields": (),
            "count": 7,
            **changes,
        }
    )


def observed(description: IndexDescription | None = None, **changes: Any) -> ObservedIndex:
    """An index of which nothing is remembered."""
    return ObservedIndex(**{"capabilities": CAN, "backend_id": "b1", "description": description, **changes})


def known(description: IndexDescription | None = None, **changes: Any) -> ObservedIndex:
    """An index that this resource made or adopted before."""
    return observed(
        description, **{"known_incarnation": "i1", "known_backend_id": "b1", "known_owned": True, **changes}
    )
