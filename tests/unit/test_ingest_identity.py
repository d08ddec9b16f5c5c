"""Versions and ids: what changes them, and what must not."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ingest import Bench

from vectorwright.ingest.identity import Identity, digest, id_digest, own_id, uuid_bytes, uuid_text
from vectorwright.ingest.runspec import RunSpec
from vectorwright.stores.base import Capabilities
from vectorwright.stores.memory import MEMORY_CAPABILITIES


async def spec(**overrides: object) -> RunSpec:
    return (await Bench.make()).spec(**({"store": {"incarnation": "one"}} | overrides))


async def test_the_version_depends_on_content_and_all_that_shapes_vectors() -> None:
    base = Identity(await spec()).version("c1")
    assert base == Identity(await spec(runId="other", batch={"maxRecords": 7})).version("c1")
    different = [
        Identity(await spec()).version("c2"),
        Identity(await spec(parse={"type": "text"})).version("c1"),
        Identity(await spec(parse={"metadataFields": ["a"]})).version("c1"),
        Identity(await spec(chunk={"size": 100})).version("c1"),
        Identity(await spec(chunk={"unit": "tokens"})).version("c1"),
        Identity(await spec(store={"dimension": 9, "incarnation": "one"})).version("c1"),
        Identity(await spec(embedder={"fingerprint": "f2"})).version("c1"),
        Identity(await spec(embedder=None, precomputedField="v")).version("c1"),
        Identity(await spec(embedder=None, precomputedField="w")).version("c1"),
    ]
    assert len({base, *different}) == len(different) + 1


async def test_writing_a_default_down_or_changing_a_limit_changes_no_version() -> None:
    base = Identity(await spec()).version("c")
    assert (
        Identity(await spec(chunk={"strategy": "auto", "size": 1500, "unit": "characters", "overlap": 0})).version("c")
        == base
    )
    parse = {"type": "auto", "textFields": ["text"], "timeout": "5s", "maxDocumentBytes": 1000}
    assert Identity(await spec(parse=parse)).version("c") == base


async def test_versions_and_ids_stay_what_they_are() -> None:
    """These values are stored in indexes: another value here would embed everything again."""
    identity = Identity(await spec())
    assert identity.version("content") == "945c92201455ad800b23205fcec23849"
    assert identity.record_ids("a.md", "v1", [0, 1]) == [
        "8e477971-d426-01d8-da13-b18acaa6691a",
        "b4b9002f-182f-3a47-a363-07d6060f8138",
    ]


async def test_ids_differ_by_source_document_version_and_number() -> None:
    one, two = Identity(await spec()), Identity(await spec(sourceName="other"))
    ids = [
        *one.record_ids("a", "v", range(20)),
        *one.record_ids("b", "v", range(20)),
        *one.record_ids("a", "w", range(20)),
        *one.record_ids("av", "", range(20)),
        *one.record_ids("", "av", range(20)),
        *two.record_ids("a", "v", range(20)),
    ]
    assert len(set(ids)) == 120
    assert all(str(uuid.UUID(record_id)) == record_id for record_id in ids)


@given(st.binary(min_size=16, max_size=16))
def test_uuids_and_their_bytes_are_one(data: bytes) -> None:
    assert uuid_bytes(uuid_text(data)) == data
    assert uuid_text(data) == str(uuid.UUID(bytes=data))


@given(st.text())
def test_other_ids_are_hashed(text: str) -> None:
    if uuid_bytes(text) is None:
        assert id_digest(text) == digest(text)


@pytest.mark.parametrize(
    "text", ["", "x" * 36, "{12345678-1234-1234-1234-123456789abc}", "12345678-1234-1234-1234-123456789ABC"]
)
def test_only_the_written_form_of_a_uuid_is_one(text: str) -> None:
    assert uuid_bytes(text) is None


def test_an_id_that_a_store_cannot_hold_is_mapped_and_others_are_kept() -> None:
    picky: Capabilities = replace(MEMORY_CAPABILITIES, id_pattern=r"[0-9a-f-]{36}")
    assert own_id("docs/a.md#0", MEMORY_CAPABILITIES) == "docs/a.md#0"
    mapped = own_id("docs/a.md#0", picky)
    assert mapped == own_id("docs/a.md#0", picky) != own_id("docs/a.md#1", picky)
    assert str(uuid.UUID(mapped)) == mapped
    assert own_id(mapped, picky) == mapped
