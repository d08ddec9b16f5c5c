"""A FAISS index whose process or machine ends at any call that it makes to the disk.

- every acknowledged write is there and exact; one that was under way is there whole or not at all
- so after each single call of saving: appending, flushing, snapshot, rename, removal of what is superseded
- whether the process alone ends, or the disk loses names or data that were not flushed
- what is there after the first crash survives a second one while it is read back
- a disk that refuses a write takes nothing away: the write is refused, later ones are kept
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.faiss import KEY, batch_of, docs, finds_all, held, opened
from tests.support.power_cut import FailingFiles, PowerCut

from vectorwright.errors import NotFound, Retryable
from vectorwright.stores.base import OwnershipMark
from vectorwright.stores.faiss.store import FaissStore

MIN_LOG = 1000
"""Bytes: a snapshot after every third write or so."""
IDS = tuple(f"id-{number}" for number in range(12))


def steps() -> list[tuple[str, tuple[str, ...], int]]:
    """Writes and removals that touch the same ids again and again."""
    found: list[tuple[str, tuple[str, ...], int]] = []
    for value in range(1, 15):
        ids = tuple(IDS[(value * 5 + at) % len(IDS)] for at in range(1 + value % 5))
        found.append(("delete" if value % 4 == 3 else "upsert", ids, value))
    return found


def states() -> list[dict[str, int]]:
    """What is held before the first step, and after each."""
    found: list[dict[str, int]] = [{}]
    for kind, ids, value in steps():
        after = dict(found[-1])
        for record_id in ids:
            if kind == "upsert":
                after[record_id] = value
            else:
                after.pop(record_id, None)
        found.append(after)
    return found


async def work(store: FaissStore) -> int:
    """Make the index and do the steps. Returns how many were acknowledged; -1 where the index was not."""
    acknowledged = -1
    try:
        await store.create_index(docs())
        acknowledged = 0
        for kind, ids, value in steps():
            if kind == "upsert":
                await store.upsert("docs", batch_of(ids, value))
            else:
                await store.delete("docs", ids)
            acknowledged += 1
            await store.settled()
    except (PowerCut, Retryable):
        pass
    return acknowledged


async def run_until_cut(root: Path, files: FailingFiles, keys: Sequence[bytes]) -> int:
    try:
        async with opened(root, files, keys, MIN_LOG) as store:
            return await work(store)
    except PowerCut:
        return -1


async def check(root: Path, acknowledged: int, keys: Sequence[bytes]) -> None:
    """Nothing acknowledged is lost, nothing is half there, and the store goes on."""
    async with opened(root, keys=keys, min_log=MIN_LOG) as store:
        if acknowledged < 0:
            assert await store.list_indexes() in ([], [await described(store)])
            return
        found = await held(store)
        assert found in states()[acknowledged : acknowledged + 2]
        await finds_all(store, found)
        assert (await store.statistics("docs")).details["damaged_parts"] == 0
        await store.upsert("docs", batch_of(["more"], 7))
    async with opened(root, keys=keys, min_log=MIN_LOG) as store:
        assert await held(store) == {**found, "more": 7}


async def described(store: FaissStore) -> object:
    try:
        return await store.describe_index("docs")
    except NotFound:
        return None


@pytest.mark.timeout(900)  # about 150 crashes; 10 s on a quiet machine
@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["plain", "encrypted"])
@pytest.mark.parametrize(
    ("names", "data"),
    [(False, False), (True, False), (False, True), (True, True)],
    ids=["kill", "names", "data", "all"],
)
async def test_a_crash_after_any_call_loses_nothing_acknowledged(
    tmp_path: Path, names: bool, data: bool, keys: Sequence[bytes]
) -> None:
    calls, seen = 0, set()
    while True:
        place = tmp_path / str(calls)
        (place / "stash").mkdir(parents=True)
        files = FailingFiles(place / "stash", calls)
        acknowledged = await run_until_cut(place / "root", files, keys)
        if files.cut:
            files.lose(place / "root", names=names, data=data)
        await check(place / "root", acknowledged, keys)
        seen.add(acknowledged)
        if not files.cut:
            break
        calls += 3 if keys else 1
    assert calls > 100
    if not keys:
        assert seen == set(range(-1, len(steps()) + 1))


@pytest.mark.parametrize("calls", range(0, 60, 2))
async def test_a_crash_while_what_a_crash_left_is_read_back(tmp_path: Path, calls: int) -> None:
    root, (first, second) = tmp_path / "root", (tmp_path / "first", tmp_path / "second")
    first.mkdir()
    second.mkdir()
    files = FailingFiles(first, 90)
    acknowledged = await run_until_cut(root, files, ())
    assert acknowledged > 2
    files.lose(root, names=False, data=False)
    again = FailingFiles(second, calls)
    try:
        async with opened(root, again, min_log=1) as store:  # a snapshot after any write
            await store.upsert("docs", batch_of(["between"], 5))
            await store.settled()
    except (PowerCut, Retryable):
        pass
    again.lose(root, names=True, data=True)
    async with opened(root) as store:
        found = await held(store)
        found.pop("between", None)
        assert found in states()[acknowledged : acknowledged + 2]


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["plain", "encrypted"])
async def test_a_full_disk_refuses_writes_and_keeps_the_rest(tmp_path: Path, keys: Sequence[bytes]) -> None:
    refused = 0
    for calls in range(26, 110, 3):
        place = tmp_path / str(calls)
        (place / "stash").mkdir(parents=True)
        files = FailingFiles(place / "stash", calls, OSError(errno.ENOSPC, "No space left on device"))
        expected: dict[str, int] = {}
        async with opened(place / "root", files, keys, MIN_LOG) as store:
            await store.create_index(docs())
            for value in range(1, 12):
                ids = IDS[value % 6 :][:4]
                (error,) = await asyncio.gather(store.upsert("docs", batch_of(ids, value)), return_exceptions=True)
                if error is not None:
                    assert isinstance(error, Retryable)
                    assert error.reason in {"VolumeFull", "StoreFailed"}
                    refused += 1
                    if store.broken:
                        break  # the flush itself failed: nobody knows what is on the disk
                    continue
                expected |= dict.fromkeys(ids, value)
                await store.settled()
            assert store.broken or await held(store) == expected
            broken = store.broken
        async with opened(place / "root", keys=keys) as store:
            if not broken:
                assert await held(store) == expected
                assert (await store.statistics("docs")).details["damaged_parts"] == 0
    assert refused > 3


async def test_marks_and_settings_are_old_or_new_after_a_crash(tmp_path: Path) -> None:
    mark = OwnershipMark("install", "team", "docs")
    for calls in range(14):
        root, stash = tmp_path / f"root-{calls}", tmp_path / f"stash-{calls}"
        stash.mkdir()
        async with opened(root) as store:
            await store.create_index(docs())
        files = FailingFiles(stash, calls)
        done = 0
        try:
            async with opened(root, files) as store:
                await store.set_mark("docs", mark, "model-1")
                done = 1
                await store.update_index("docs", {"ivf.probes": 3})
                done = 2
        except (PowerCut, Retryable):
            pass
        files.lose(root, names=True, data=True)
        async with opened(root) as store:
            seen = await store.describe_index("docs")
            assert seen.mark in ((None, mark) if done == 0 else (mark,))
            assert dict(seen.settings) in ({}, {"ivf.probes": 3}) if done < 2 else {"ivf.probes": 3}
