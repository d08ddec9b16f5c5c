"""What a FAISS index does about files that are not what was written.

- a write that was cut off at any of its bytes is taken back without a word: it was never acknowledged
- a flipped bit anywhere in the log costs the write that it is in, and no other; in a snapshot the records around it
- whatever is damaged is told: in the log, in statistics, also after a restart; the damaged file is kept
- what is stored twice (headers, manifests, descriptions) is read from the copy that is intact
- where nothing can be said of what is lost, the index is refused and left as it is; the others work
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.support.faiss import KEY, batch_of, docs, finds_all, held, opened

from vectorwright.errors import Terminal
from vectorwright.stores.base import IndexDefinition, RecordBatch
from vectorwright.stores.faiss.files import Files
from vectorwright.stores.faiss.keys import KeyRing
from vectorwright.stores.faiss.opening import Opened, open_index
from vectorwright.stores.faiss.segment import HEADERS_BYTES

WRITES = 4
SEALED = pytest.mark.parametrize("keys", [(), (KEY,)], ids=["plain", "encrypted"])


def ids_of(write: int) -> list[str]:
    return [f"{write}-{at}" for at in range(2)]


async def written(root: Path, keys: Sequence[bytes] = ()) -> Path:
    """A store with four writes in its log. Returns the segment."""
    async with opened(root, keys=keys) as store:
        await store.create_index(docs())
        for write in range(WRITES):
            await store.upsert("docs", batch_of(ids_of(write), write))
    (segment,) = (root / "docs.faiss").glob("log-*")
    return segment


def read_back(segment: Path, content: bytes, keys: Sequence[bytes]) -> tuple[set[int], Opened]:
    """The writes that are whole in an index whose segment holds this."""
    segment.write_bytes(content)
    found = open_index(segment.parent, Files(fsync=False), KeyRing(keys))
    whole = set()
    for write in range(WRITES):
        records = found.table.records(ids_of(write), vectors=True, metadata=True)
        assert len(records) in (0, 2)
        for record in records:
            assert record.metadata["value"] == write
            assert record.vector is not None
            expected = batch_of([record.id], write)
            np.testing.assert_array_equal(record.vector, expected.vectors[0])
            assert record.text == expected.texts[0]
        whole |= {write} if records else set()
    return whole, found


def tree(root: Path) -> dict[str, str]:
    """Every file and its content, as a digest."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@SEALED
async def test_a_write_that_was_cut_off_at_any_byte_is_taken_back(tmp_path: Path, keys: Sequence[bytes]) -> None:
    segment = await written(tmp_path, keys)
    content = segment.read_bytes()
    each = (len(content) - HEADERS_BYTES) // WRITES
    for length in range(len(content) - each, len(content)):
        whole, found = read_back(segment, content[:length], keys)
        assert whole == set(range(WRITES - 1))
        assert found.damages == []
        assert segment.stat().st_size == len(content) - each
    for length in (0, 1, HEADERS_BYTES - 1, HEADERS_BYTES, HEADERS_BYTES + 1):
        whole, found = read_back(segment, content[:length], keys)
        assert (whole, found.damages) == (set(), [])
    zeros = content[: len(content) - each] + bytes(5000)  # what some file systems leave after a power cut
    whole, found = read_back(segment, zeros, keys)
    assert (whole, found.damages) == (set(range(WRITES - 1)), [])


@SEALED
async def test_a_flipped_bit_anywhere_in_the_log_costs_one_write_and_is_told(
    tmp_path: Path, keys: Sequence[bytes]
) -> None:
    segment = await written(tmp_path, keys)
    content = segment.read_bytes()
    each = (len(content) - HEADERS_BYTES) // WRITES
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << (at % 8)
        whole, found = read_back(segment, bytes(damaged), keys)
        if at < HEADERS_BYTES:  # there twice
            assert whole == set(range(WRITES))
            continue
        hit = (at - HEADERS_BYTES) // each
        assert whole == set(range(WRITES)) - {hit}
        assert found.damages
        assert found.rewrite
        assert segment.read_bytes() == bytes(damaged)  # as it is, until what is intact is safe elsewhere


@SEALED
async def test_several_damages_and_garbage_between_writes(tmp_path: Path, keys: Sequence[bytes]) -> None:
    segment = await written(tmp_path, keys)
    content = segment.read_bytes()
    each = (len(content) - HEADERS_BYTES) // WRITES
    first, rest = content[: HEADERS_BYTES + each], content[HEADERS_BYTES + each :]
    whole, found = read_back(segment, first + b"VWFR" * 100 + rest, keys)
    assert whole == set(range(WRITES))
    assert len(found.damages) == 1
    whole, found = read_back(segment, first + rest[each:], keys)  # a write that is missing altogether
    assert whole == {0, 2, 3}
    assert "missing" in found.damages[0].what
    whole, found = read_back(segment, b"\0" * HEADERS_BYTES + content[HEADERS_BYTES:], keys)
    assert whole == set()
    assert len(found.damages) == 1


async def test_a_damaged_log_is_told_kept_and_worked_on(tmp_path: Path) -> None:
    segment = await written(tmp_path)
    content = bytearray(segment.read_bytes())
    content[HEADERS_BYTES + 60] ^= 255
    segment.write_bytes(content)
    expected = {record_id: write for write in range(1, WRITES) for record_id in ids_of(write)}
    async with opened(tmp_path) as store:
        assert await held(store) == expected
        assert store.damaged == 1
        await store.settled()
        await store.upsert("docs", batch_of(["new"], 9))
    kept = [path for path in (tmp_path / "docs.faiss" / "quarantine").iterdir() if path.suffix != ".json"]
    assert [path.read_bytes() for path in kept] == [bytes(content)]
    for _ in range(2):
        async with opened(tmp_path) as store:
            assert await held(store) == {**expected, "new": 9}
            assert (await store.statistics("docs")).details["damaged_parts"] == 1
            assert store.damaged == 1


# --- snapshots -------------------------------------------------------------------------------------------------------

MANY, WIDE = 3000, 32


async def snapshotted(root: Path, keys: Sequence[bytes] = (), lists: int = 8) -> Path:
    """A store with a snapshot of some pieces, and nothing else. Returns the snapshot."""
    async with opened(root, keys=keys, min_log=1) as store:
        await store.create_index(docs(dimension=WIDE, ivf_lists=lists))
        await store.upsert("docs", many())
        await store.settled()
    (snapshot,) = (root / "docs.faiss").glob("snapshot-*")
    assert not list((root / "docs.faiss").glob("log-*"))
    return snapshot


def many() -> RecordBatch:
    drawn = np.random.default_rng(3).standard_normal((MANY, WIDE)).astype(np.float32)
    numbers = range(MANY)
    return RecordBatch(
        [f"id-{at}" for at in numbers], drawn, [{"number": at} for at in numbers], [f"text {at}" for at in numbers]
    )


@SEALED
@pytest.mark.parametrize("name", ["records.jsonl", "vectors.faiss", "ivf.faiss", "manifest.json", "manifest.copy.json"])
async def test_a_flipped_bit_in_a_snapshot_costs_the_records_around_it(
    tmp_path: Path, name: str, keys: Sequence[bytes]
) -> None:
    snapshot = await snapshotted(tmp_path / "first", keys)
    written = many()
    size = (snapshot / name).stat().st_size
    for turn, at in enumerate((0, size // 3, size - 1)):
        root = tmp_path / str(turn)
        shutil.copytree(tmp_path / "first", root)
        path = root / "docs.faiss" / snapshot.name / name
        content = bytearray(path.read_bytes())
        content[at] ^= 16
        path.write_bytes(content)
        async with opened(root, keys=keys) as store:
            records = [one async for page in store.scroll("docs", vectors=True) for one in page]
            lost = MANY - len(records)
            assert 0 < lost < MANY * 0.8 if name in {"records.jsonl", "vectors.faiss"} else lost == 0
            for record in records:
                number = int(record.id.removeprefix("id-"))
                assert (record.metadata, record.text) == ({"number": number}, f"text {number}")
                np.testing.assert_array_equal(record.vector, written.vectors[number])
            told = (await store.statistics("docs")).details["damaged_parts"]
            assert told == (0 if name.startswith("manifest") else 1)
            await store.settled()
            assert len(await store.query("docs", written.vectors[5], 20)) == 20
        quarantine = root / "docs.faiss" / "quarantine"
        if told:
            (kept,) = (path for path in quarantine.iterdir() if path.is_dir())
            assert (kept / name).read_bytes() == bytes(content)
        else:
            assert not quarantine.exists()
        async with opened(root, keys=keys) as store:
            assert await store.count("docs") == MANY - lost
            assert (await store.statistics("docs")).details["damaged_parts"] == told


@pytest.mark.parametrize("name", ["records.jsonl", "vectors.faiss", "ivf.faiss"])
async def test_a_missing_or_short_file_of_a_snapshot_is_told(tmp_path: Path, name: str) -> None:
    snapshot = await snapshotted(tmp_path / "first")
    for turn, keep in enumerate((None, 0, 70_000)):
        root = tmp_path / str(turn)
        shutil.copytree(tmp_path / "first", root)
        path = root / "docs.faiss" / snapshot.name / name
        content = path.read_bytes()
        if keep is not None and keep >= len(content):
            continue
        path.unlink() if keep is None else path.write_bytes(content[:keep])
        async with opened(root) as store:
            left = await store.count("docs")
            assert left == (MANY if name == "ivf.faiss" else left)
            assert left < MANY or name == "ivf.faiss"
            assert left > 0 or not keep
            assert int((await store.statistics("docs")).details["damaged_parts"]) >= 1


async def test_an_index_of_which_nothing_can_be_said_is_refused_and_left_alone(tmp_path: Path) -> None:
    snapshot = await snapshotted(tmp_path)
    async with opened(tmp_path) as store:
        await store.create_index(IndexDefinition("other", 4, "euclidean"))
    for name in ("manifest.json", "manifest.copy.json"):
        (snapshot / name).write_bytes(b"{}")
    before = tree(tmp_path)
    async with opened(tmp_path) as store:
        assert [one.name for one in await store.list_indexes()] == ["docs", "other"]
        for call in (store.count("docs"), store.describe_index("docs"), store.delete_index("docs")):
            with pytest.raises(Terminal) as refused:
                await call
            assert refused.value.reason == "UnreadableIndex"
        assert await store.count("other") == 0
        assert store.damaged == 1
    assert tree(tmp_path) == before


async def test_the_description_of_an_index_is_there_twice(tmp_path: Path) -> None:
    await written(tmp_path)
    folder = tmp_path / "docs.faiss"
    for name in ("index.json", "index.copy.json"):
        (folder / name).write_bytes(b"\0" * 50)
        async with opened(tmp_path) as store:
            found = await held(store)
            assert len(found) == 2 * WRITES
            await finds_all(store, found)
        assert (folder / "index.json").read_bytes() == (folder / "index.copy.json").read_bytes()
    for name in ("index.json", "index.copy.json"):
        (folder / name).unlink()
    async with opened(tmp_path) as store:
        with pytest.raises(Terminal) as refused:
            await store.count("docs")
        assert refused.value.reason == "UnreadableIndex"
