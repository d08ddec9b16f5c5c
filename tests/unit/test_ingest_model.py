"""Any history of changes, faults and interruptions ends in the same index as one calm run over the last state."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.support.ingest import Bench, StaticSource, paragraphs

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.runspec import RunState

OPTIONS: dict[str, Any] = {
    "chunk": {"size": 80},
    "parse": {"idField": "id"},
    "sync": {"mode": "Sync", "maxDeletePercent": 100},
    "batch": {"maxRecords": 7, "workers": 3},
}


def documents(rng: random.Random) -> dict[str, Any]:
    """Some texts, some of them empty or without a vector, and two tables that share ids."""
    found: dict[str, Any] = {}
    for number in range(rng.randrange(1, 12)):
        version = rng.randrange(3)
        found[f"{number:02}.txt"] = rng.choice(
            [paragraphs(rng.randrange(1, 6), word=f"w{version}"), f"short {version}", "zero", " "]
        )
    for name in ("t.jsonl", "u.jsonl"):
        rows = [f'{{"id": "r{row}", "text": "{name} {rng.randrange(2)}"}}' for row in range(8) if rng.random() < 0.6]
        found[name] = "\n".join(rows)
    if rng.random() < 0.3:
        found["lost.txt"] = Terminal("404", reason="HttpNotFound")
    return found


def check_sum(state: RunState) -> None:
    counts = state.counts
    settled = counts.documents_unchanged + counts.documents_new + counts.documents_replaced
    assert settled + counts.documents_failed + counts.documents_empty == counts.documents_listed


@pytest.mark.parametrize("seed", range(40))
async def test_every_history_ends_the_same(seed: int) -> None:
    rng = random.Random(seed)
    bench = await Bench.make(**OPTIONS)
    bench.store.delay = bench.embedder.delay = 0.0005
    current: dict[str, Any] = {}
    for _ in range(rng.randrange(2, 6)):
        current = documents(rng)
        source = StaticSource(current, tokens=rng.random() < 0.7)
        run = bench.prepare(source)
        trouble = rng.choice(["none", "stop", "store", "embedder", "wrong key"])
        faults: list[Exception | None] = [None] * rng.randrange(4)
        if trouble == "store":
            bench.store.upsert_faults = faults + [Retryable("down")] * 3
        elif trouble == "embedder":
            bench.embedder.faults = faults + [Retryable("down")] * 20
        elif trouble == "wrong key":
            bench.store.upsert_faults = [*faults, Terminal("401", reason="AccessDenied")]
        executing = asyncio.ensure_future(run.execute())
        if trouble == "stop":
            await asyncio.sleep(rng.uniform(0, 0.03))
            run.stop()
        state = await executing
        bench.store.upsert_faults, bench.embedder.faults = [], []
        if state.phase is not Phase.FAILED:
            check_sum(state)
    last = await bench.run(current)
    assert last.phase in {Phase.SUCCEEDED, Phase.SUCCEEDED_WITH_ERRORS}, last.message
    assert last.verification == "Exact"
    check_sum(last)
    repeated = await bench.run(current)
    assert (repeated.counts.vectors_written, repeated.counts.vectors_deleted) == (0, 0)

    calm = await Bench.make(**OPTIONS)
    await calm.run(current)
    wanted = await calm.records()
    found = await bench.records()
    # A document that fails now keeps the version that it had before.
    failing = {letter.document for letter in last.dead_letters}
    extra = {name: record for name, record in found.items() if name not in wanted}
    assert {str(record.metadata["vw_doc"]) for record in extra.values()} <= failing
    assert set(wanted) <= set(found)
    for name, record in wanted.items():
        assert (found[name].metadata, found[name].text) == (record.metadata, record.text)
    assert bench.store.collisions == set()
