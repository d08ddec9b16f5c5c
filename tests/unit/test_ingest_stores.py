"""The whole life of a source over every real store: written, repeated, changed, mended, synced, verified exactly."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from tests.contract.providers import PROVIDERS
from tests.support.ingest import DIMENSION, INDEX, Bench, paragraphs

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.ingest.identity import own_id
from vectorwright.stores.base import IndexDefinition
from vectorwright.stores.registry import open_store

pytestmark = [pytest.mark.server]

OPTIONS: dict[str, Any] = {"chunk": {"size": 80}, "sync": {"mode": "Sync", "maxDeletePercent": 50}}


@pytest.mark.parametrize("name", list(PROVIDERS))
async def test_a_source_lives_in_a_real_store(name: str, request: pytest.FixtureRequest) -> None:
    async with open_store(PROVIDERS[name](request).connection()) as store:
        made = await store.create_index(IndexDefinition(INDEX, DIMENSION, "cosine"))
        bench: Bench[Any] = await Bench.over(store, made.incarnation, **OPTIONS)
        documents = {f"{n:02}.md": f"# Title {n}\n\n{paragraphs(4, word=f'w{n}')}" for n in range(20)}
        first = await bench.run(documents)
        assert (first.phase, first.verification, first.message) == (Phase.SUCCEEDED, "Exact", None)
        assert first.counts.vectors_written == len(await bench.records()) >= 80

        again = await bench.run(documents)
        assert (again.counts.documents_unchanged, again.counts.vectors_written) == (20, 0)

        lost = sorted(await bench.records())[::9]
        await store.delete(INDEX, lost)
        mended = await bench.run(documents)
        assert mended.counts.vectors_written == mended.counts.vectors_embedded == len(lost)

        changed = documents | {"03.md": "all new", "new.md": "another"}
        for gone in ("05.md", "06.md"):
            del changed[gone]
        last = await bench.run(changed)
        assert (last.phase, last.verification) == (Phase.SUCCEEDED, "Exact")
        counts = last.counts
        assert (counts.documents_replaced, counts.documents_new, counts.documents_deleted) == (1, 1, 2)
        assert counts.documents_unchanged == 17
        texts = await bench.texts()
        assert set(texts) == set(changed)
        assert texts["03.md"] == ["all new"]
        assert sum(map(len, texts.values())) == len(await bench.records())


@pytest.mark.parametrize("name", list(PROVIDERS))
async def test_records_with_ids_live_in_a_real_store(name: str, request: pytest.FixtureRequest) -> None:
    def table(rows: dict[str, float]) -> bytes:
        return b"\n".join(
            orjson.dumps({"id": one, "text": one, "v": [value, *[1.0] * (DIMENSION - 1)], "kind": "k", "year": 2026})
            for one, value in rows.items()
        )

    options = {
        "parse": {"idField": "id", "metadataFields": ["kind", "year"]},
        "embedder": None,
        "precomputedField": "v",
        "sync": OPTIONS["sync"],
    }
    async with open_store(PROVIDERS[name](request).connection()) as store:
        made = await store.create_index(IndexDefinition(INDEX, DIMENSION, "cosine"))
        bench: Bench[Any] = await Bench.over(store, made.incarnation, **options)

        def held(given: dict[str, float]) -> set[str]:
            return {own_id(one, store.capabilities) for one in given}

        rows = {f"docs/{n}.md#0": float(n) for n in range(150)}
        assert (await bench.run({"t.jsonl": table(rows)})).phase is Phase.SUCCEEDED
        assert set(await bench.records()) == held(rows)
        rows["docs/7.md#0"] = 777.0
        del rows["docs/8.md#0"]
        state = await bench.run({"t.jsonl": table(rows)})
        assert (state.phase, state.verification) == (Phase.SUCCEEDED, "Exact")
        assert (state.counts.documents_replaced, state.counts.documents_deleted) == (1, 1)
        assert (state.counts.vectors_written, state.counts.vectors_deleted) == (1, 1)
        records = await bench.records()
        assert set(records) == held(rows)
        metadata = records[own_id("docs/7.md#0", store.capabilities)].metadata
        assert (metadata["vw_id"], metadata["kind"], metadata["year"]) == ("docs/7.md#0", "k", 2026)
