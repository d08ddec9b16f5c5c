"""Every store to every other, on real servers: nothing of a record changes on the way, or it is named.

What is checked: awkward metadata, texts and both kinds of ids arrive; what a store cannot hold is in the dead letters;
a second copy writes nothing; back in a store that can hold them, records have the ids that they came with.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from tests.contract.providers import NAMESPACE_PROVIDERS, PROVIDERS, Provider
from tests.support.copying import DIMENSION, SOURCE, TARGET, Pair, all_of, described, put, record

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.ingest.identity import foreign_id, holds_id
from vectorwright.stores.base import FieldDefinition, IndexDefinition, Metadata, Record, Store
from vectorwright.stores.memory import MemoryStore
from vectorwright.stores.registry import open_store

pytestmark = [pytest.mark.server]

PAIRS = list(permutations(PROVIDERS, 2))
COUNT = 200
FIELDS = (FieldDefinition("word", "keyword"), FieldDefinition("whole", "integer"), FieldDefinition("real", "float"))


def _metadata(number: int) -> Metadata:
    shapes: list[Metadata] = [
        {},
        {"word": "plain", "whole": number, "real": number / 3},
        {"word": "ümläut 🎉 \"quoted\" \\ 'single'", "undeclared": 1, "as float": 1.0, "flag": number % 2 == 0},
        {"whole": 2**53 + 1, "least": -(2**63), "most": 2**63 - 1},
        {"real": 1e-300, "huge": 1.5e300, "integral": 4.0, "negative": -0.5},
        {"word": "", "text": "named like a column", "id": "so is this", "vector": 3, "metadata": True},
        {"vw_source": "team/a", "vw_doc": f"doc {number}", "vw_ver": "00ff", "vw_n": 0, "vw_count": 1},
        {"words": ["one", "", "two"], "word": "with a list"},
        {"created": "2024-05-01T00:00:00Z", "number as text": "1", "truth as text": "true"},
        {"spaced name": "a", "dotted.name": 2, "dash-name": 3.5, "long": "x" * 2000},
    ]
    return shapes[number % len(shapes)]


def _records() -> list[Record]:
    texts = [None, "", "short", "Größe\nline two\ttab", "long " * 400]
    ids = [foreign_id(str(number)) if number % 2 else f"docs/file {number}.md#0" for number in range(COUNT)]
    found = [record(ids[n], n, _metadata(n), texts[n % len(texts)]) for n in range(COUNT)]
    for one in found:
        if "vw_source" in one.metadata:
            # As ingestion writes it in every store, for a record that came with an id.
            one.metadata["vw_id"] = one.id
    return found


def _provider(name: str, request: pytest.FixtureRequest) -> Provider:
    return PROVIDERS[name](request)


async def _made(store: Store, name: str) -> str:
    await store.probe()
    return (await store.create_index(IndexDefinition(name, DIMENSION, "cosine", fields=FIELDS))).incarnation


async def _pair(origin: Store, store: Store, source: str, target: str, incarnation: str) -> Pair:
    """A pair with a new target; ``incarnation`` is that of the source, which is there."""
    places = {"store": {"index": target}, "sourceStore": {"index": source}}
    return Pair(origin, store, incarnation, await _made(store, target), places)


def _compare(found: dict[str, Record], wanted: dict[str, Record], *, scaled: bool) -> None:
    """To the last bit, but for vectors that a store on the way scaled to length 1."""
    bits = slice(2) if scaled else slice(3)
    forms = [{name: one[bits] for name, one in described(given.values()).items()} for given in (found, wanted)]
    assert forms[0] == forms[1]
    for name, one in found.items():
        other = wanted[name].vector
        assert one.vector is not None
        assert other is not None
        assert float(np.abs(one.vector - other).max()) <= 1e-6


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"{first}-to-{second}" for first, second in PAIRS])
async def test_a_copy_is_what_the_source_is(first: str, second: str, request: pytest.FixtureRequest) -> None:
    came = _provider(first, request)
    goes = _provider(second, request)
    async with open_store(came.connection()) as origin, open_store(goes.connection()) as store, MemoryStore() as seed:
        filling = await _pair(seed, origin, "seed", SOURCE, await _made(seed, "seed"))
        await put(seed, "seed", _records())
        filled = await filling.run()
        assert filled.phase in (Phase.SUCCEEDED, Phase.SUCCEEDED_WITH_ERRORS), filled.message
        there = await all_of(origin, SOURCE)
        assert len(there) + filled.counts.documents_failed == COUNT

        pair = await _pair(origin, store, SOURCE, TARGET, filling.incarnation)
        state = await pair.run(batch={"maxRecords": 64})
        assert state.phase in (Phase.SUCCEEDED, Phase.SUCCEEDED_WITH_ERRORS), state.message
        assert state.verification == "Exact"
        again = await pair.run()
        assert (again.counts.vectors_written, again.counts.documents_unchanged) == (0, state.counts.vectors_written)

        refused = {letter.document for letter in state.dead_letters}
        assert len(refused) == min(20, state.counts.documents_failed)
        capabilities = store.capabilities
        if capabilities.list_metadata and not filled.counts.documents_failed:
            assert not refused, state.dead_letters
        assert all(letter.reason == "MetadataNotHeld" for letter in state.dead_letters), state.dead_letters
        held = {name: one for name, one in there.items() if capabilities.list_metadata or not _has_list(one)}
        expected = {
            _there(one, capabilities.id_pattern).id: _there(one, capabilities.id_pattern) for one in held.values()
        }
        scaled = capabilities.normalises or origin.capabilities.normalises
        _compare(await all_of(store, TARGET), expected, scaled=scaled)

        back = await _pair(store, seed, TARGET, "back", pair.incarnation)
        assert (await back.run()).phase is Phase.SUCCEEDED
        came_back = await all_of(seed, "back")
        original = {one.id: one for one in _records()}
        _compare(came_back, {name: original[name] for name in came_back}, scaled=scaled)
        assert len(came_back) == len(held)


@pytest.mark.parametrize("name", NAMESPACE_PROVIDERS)
async def test_a_namespace_is_copied_into_another_and_the_others_stay(
    name: str, request: pytest.FixtureRequest
) -> None:
    provider = _provider(name, request)
    settings = dict(provider.namespaced)
    places = [replace(provider.connection(), namespace=namespace) for namespace in ("", "team-a", "team-b")]
    async with open_store(places[0]) as whole, open_store(places[1]) as origin, open_store(places[2]) as store:
        await whole.probe()
        found = await whole.create_index(IndexDefinition(SOURCE, DIMENSION, "cosine", settings=settings))
        await put(origin, SOURCE, [record(foreign_id(str(n)), n, {"n": n}) for n in range(30)])
        await put(store, SOURCE, [record(foreign_id("theirs"), 99, {"vw_source": "theirs"})])
        here = {"index": SOURCE, "soleWriter": False, "madeForUs": False}
        pair = Pair(
            origin, store, found.incarnation, found.incarnation, {"store": here, "sourceStore": {"index": SOURCE}}
        )
        state = await pair.run()
        assert (state.phase, state.verification, state.counts.vectors_written) == (Phase.SUCCEEDED, "Exact", 30)
        assert len(await all_of(store, SOURCE)) == 31
        assert len(await all_of(origin, SOURCE)) == 30
        assert (await pair.run()).counts.documents_unchanged == 30


def _has_list(one: Record) -> bool:
    return any(isinstance(value, list) for value in one.metadata.values())


def _there(one: Record, pattern: str | None) -> Record:
    """A record as the second store should hold it, told apart from how the copy decides it."""
    original = one.metadata.get("vw_id")
    if isinstance(original, str) and holds_id(pattern, original):
        metadata = {
            name: value for name, value in one.metadata.items() if name != "vw_id" or "vw_source" in one.metadata
        }
        return Record(original, metadata, one.text, one.vector)
    if holds_id(pattern, one.id):
        return one
    return Record(foreign_id(one.id), {**one.metadata, "vw_id": one.id}, one.text, one.vector)
