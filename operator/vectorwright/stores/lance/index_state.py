"""Which vector index a table has and waits for: known without loading the Lance library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..base import IndexDescription, Setting
from .settings import EXACT, INDEX_STATE, INDEX_TYPE, MIN_INDEXED_ROWS, NUM_PARTITIONS


def described(description: IndexDescription, indexes: Sequence[str], count: int) -> IndexDescription:
    """The description of a table, with its exact count and what became of its vector index."""
    settings = description.settings
    if settings.get(INDEX_TYPE, EXACT) == EXACT:
        state = "exact"
    elif serving(settings, indexes):
        state = "built"
    else:
        state = f"exact until {MIN_INDEXED_ROWS} vectors" if count < MIN_INDEXED_ROWS else "exact, building"
    told = {**settings, INDEX_TYPE: settings.get(INDEX_TYPE, EXACT), INDEX_STATE: state}
    return replace(description, settings=told, count=count)


def index_name(settings: Mapping[str, Setting], rows: int) -> str | None:
    """The name of the vector index that these settings ask for over as many rows; None for exact search.

    Its last part grows by one whenever the rows are four times as many: partitions and quantiser that were learned from
    few rows serve many badly, so the index is then learned anew.
    """
    kind = settings.get(INDEX_TYPE, EXACT)
    return None if kind == EXACT else f"{_family(settings)}{int(math.log(max(rows, 1), 4))}"


def _family(settings: Mapping[str, Setting]) -> str:
    return f"vector_{settings.get(INDEX_TYPE, EXACT)}_{settings.get(NUM_PARTITIONS, 'auto')}_"


def of_settings(settings: Mapping[str, Setting], present: Sequence[str]) -> list[str]:
    """Of the indexes that are there, those with these settings, largest first."""
    family = _family(settings)
    found = [name for name in present if name.startswith(family)]
    return sorted(found, key=lambda name: int(name.removeprefix(family)), reverse=True)


def serving(settings: Mapping[str, Setting], present: Sequence[str]) -> bool:
    """Whether queries use a vector index: one of these settings is there."""
    return settings.get(INDEX_TYPE, EXACT) != EXACT and bool(of_settings(settings, present))
