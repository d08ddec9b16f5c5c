"""Which stores are measured, on which servers, beside which helpers."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .. import plots, report
from ..world import say
from .arenas import ARENAS, Opener
from .contest import ROUNDS, contest
from .rows import DIMENSION, make_rows


def _chosen() -> Iterator[tuple[str, Opener]]:
    asked = [name for name in os.environ.get("STORES", "").split(",") if name]
    for name, opener in ARENAS.items():
        if not asked or name in asked:
            yield name, opener


def main() -> None:
    """Measure, print, write the report. ``STORES=chroma,lance`` measures only those and keeps the others' figures."""
    figures = report.read("upsert").get("stores", {})
    for name, opener in _chosen():
        with opener() as arena:
            say(f"{name}: {arena.rows:,} rows x {DIMENSION} numbers, {ROUNDS} rounds, on {arena.server}")
            found = contest(arena.contestants, make_rows(arena.rows))
            figures[name] = {"server": arena.server, "rows": arena.rows, "contestants": found}
    report.write("upsert", {"dimension": DIMENSION, "rounds": ROUNDS, "stores": figures})
    plots.rates(
        "upsert",
        f"Upserts of {DIMENSION}-number vectors with metadata and text, to a verified count",
        {
            store: {name: one["vectors_per_second"] for name, one in found["contestants"].items()}
            for store, found in figures.items()
        },
    )
