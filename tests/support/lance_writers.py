"""Writers to Lance tables in processes of their own, to be killed and paused.

``python -m tests.support.lance_writers`` loads the library once and then forks a writer for each line that it is told:
a process that is killed a hundred times must not load it a hundred times. What a writer was promised it notes in a
file, before and after each batch, with the clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np

from vectorwright.errors import Retryable
from vectorwright.stores.base import FieldDefinition, IndexDefinition, RecordBatch, Store
from vectorwright.stores.registry import Connection, StoreCredentials

ROOT = Path(__file__).resolve().parents[2]
DIMENSION = 16
INDEX = "docs"
LEASE_SECONDS = 0.5
"""Of these writers, so that a killed one is not waited for long."""


def definition() -> IndexDefinition:
    """The index that writers write to: files are merged often."""
    return IndexDefinition(INDEX, DIMENSION, "euclidean", fields=(FieldDefinition("batch", "integer"),))


def shorten_leases() -> None:
    """For this process: leases that run out soon."""
    from vectorwright.stores.lance import bucket_store, lease

    for module in (lease, bucket_store):
        setattr(module, "LEASE_SECONDS", LEASE_SECONDS)  # noqa: B010 - of this process alone
    lease.RENEW_SECONDS = LEASE_SECONDS / 4


def batch_of(writer: int, number: int, ids: list[int]) -> RecordBatch:
    """What this writer writes as its batch ``number``: vector, metadata and text tell who and which."""
    count = len(ids)
    vectors = np.full((count, DIMENSION), number % 1000, np.float32)
    vectors[:, 0], vectors[:, 1] = writer, ids
    stamp = writer * 1_000_000 + number
    return RecordBatch(
        [f"id-{one}" for one in ids], vectors, [{"batch": stamp} for _ in ids], [f"{stamp}:{one}" for one in ids]
    )


@dataclass(frozen=True, slots=True)
class Written:
    """A batch as a writer noted it. ``acknowledged`` is None where it was not, before the writer ended."""

    stamp: int
    ids: tuple[int, ...]
    began: float
    acknowledged: float | None


def notes(path: Path) -> list[Written]:
    """What a writer noted; a line that its death cut off is left out."""
    begun: dict[int, tuple[tuple[int, ...], float]] = {}
    ended: dict[int, float] = {}
    text = path.read_text() if path.exists() else ""
    for line in text.split("\n")[:-1]:
        note = json.loads(line)
        if "ids" in note:
            begun[note["stamp"]] = (tuple(note["ids"]), note["at"])
        else:
            ended[note["stamp"]] = note["at"]
    return [Written(stamp, ids, at, ended.get(stamp)) for stamp, (ids, at) in begun.items()]


def problems(records: dict[str, list[tuple[int, str | None, Any]]], written: list[Written]) -> list[str]:
    """What is wrong with the records of a table, by id, given all that its writers noted.

    Each id is there once, whole, as some writer wrote it, and not as it was before a write that was acknowledged and
    had begun when that was over.
    """
    by_id: dict[int, list[Written]] = {}
    for one in written:
        for number in one.ids:
            by_id.setdefault(number, []).append(one)
    wrong = []
    for number, writes in by_id.items():
        found = records.get(f"id-{number}", [])
        acknowledged = [one for one in writes if one.acknowledged is not None]
        if len(found) > 1 or (acknowledged and not found):
            wrong.append(f"id-{number} is there {len(found)} times")
        for stamp, text, vector in found:
            this = next((one for one in writes if one.stamp == stamp), None)
            if this is None or text != f"{stamp}:{number}" or vector[1] != number or vector[0] != stamp // 1_000_000:
                wrong.append(f"id-{number} is a mixture: {stamp} {text} {vector[:2]}")
            elif any(one.began > (this.acknowledged or float("inf")) for one in acknowledged):
                wrong.append(f"id-{number} is older than what was acknowledged last")
    return wrong


async def records_of(store: Store) -> dict[str, list[tuple[int, str | None, Any]]]:
    """All records of the index, by id: those that are there twice, too."""
    found: dict[str, list[tuple[int, str | None, Any]]] = {}
    async for page in store.scroll(INDEX, vectors=True):
        for record in page:
            stamp = record.metadata["batch"]
            assert isinstance(stamp, int)
            found.setdefault(record.id, []).append((stamp, record.text, record.vector))
    return found


class Writers:
    """Starts writers. Use as a context manager: what is left of them is killed at its end."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "operator")))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.lance_writers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self._alive: set[int] = set()
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, **told: Any) -> int:
        """Start a writer; its process id. See :func:`_write` for what it is told."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        pid = int(self._answer())
        self._alive.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        """End it as a crash would, and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)
        self.wait(pid)

    def wait(self, pid: int) -> int:
        """Wait until it ends; its exit status (minus the signal that killed it)."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"wait": pid}) + "\n")
        self._process.stdin.flush()
        self._alive.discard(pid)
        return int(self._answer())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def _batches(chance: random.Random, told: dict[str, Any]) -> Iterator[tuple[int, list[int]]]:
    """Batches of ids: each id of ``ids`` once in ``rounds`` rounds, or (without rounds) some anew for ever."""
    ids: int = told["ids"]
    numbers = itertools.count(told.get("first", 0))
    for _ in range(told["rounds"]) if told.get("rounds") else itertools.count():
        order = chance.sample(range(ids), ids)
        for start in range(0, ids, told["size"]):
            yield next(numbers), sorted(order[start : start + told["size"]])


def _notebook(path: str) -> TextIO:
    return Path(path).open("a")


async def _write(told: dict[str, Any]) -> None:
    """``settings`` (a block of lance; with ``username`` and ``password``) or ``folder``: where; ``writer``: its number;
    ``notes``: its file; ``ids``, ``size``, ``rounds``, ``first``: see :func:`_batches`."""
    from vectorwright.stores.lance import upkeep
    from vectorwright.stores.registry import open_store

    upkeep.MIN_COMMITS = 6
    store: Store
    if "folder" in told:
        from vectorwright.stores.lance.store import open_lance

        store = await open_lance(Path(told["folder"]))
    else:
        shorten_leases()
        credentials = StoreCredentials(username=told["username"], password=told["password"])
        store = open_store(Connection("lance", told["settings"], credentials=credentials))
    with _notebook(told["notes"]) as file:

        def note(**one: Any) -> None:
            file.write(json.dumps({**one, "at": time.monotonic()}) + "\n")
            file.flush()

        async with store:
            for number, ids in _batches(random.Random(told["writer"]), told):
                batch = batch_of(told["writer"], number, ids)
                stamp = batch.metadata[0]["batch"]
                note(stamp=stamp, ids=ids)
                while True:
                    try:
                        await store.upsert(INDEX, batch)
                    except Retryable:
                        continue
                    break
                note(stamp=stamp)


def _say(answer: object) -> None:
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()


def _main() -> None:
    import lancedb  # noqa: F401 - loaded here, once, and not in every writer

    from vectorwright.stores.lance import bucket_store, bucket_table, store  # noqa: F401

    warnings.filterwarnings("ignore", message="lancedb fork support", category=RuntimeWarning)
    _say("ready")
    for line in sys.stdin:
        told = json.loads(line)
        if "wait" in told:
            _, status = os.waitpid(told["wait"], 0)
            _say(os.waitstatus_to_exitcode(status))
            continue
        pid = os.fork()
        if pid:
            _say(pid)
            continue
        status = 1
        try:
            asyncio.run(_write(told))
            status = 0
        finally:
            os._exit(status)


if __name__ == "__main__":
    _main()
