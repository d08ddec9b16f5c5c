"""The parser pool.

- documents come back as the pure function gives them
- a document that takes too long, too much memory, or kills the parser is rejected; the others go on
- children see nothing of the worker's environment and end with it, even when it is killed
- nothing is left behind
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.polling import until

import vectorwright
from vectorwright.api.v1alpha1.ingestionjob import Chunk as ChunkSettings
from vectorwright.api.v1alpha1.ingestionjob import Parse
from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest import parser_pool
from vectorwright.ingest.contracts import Document, Entry, Fetched, Rejected
from vectorwright.ingest.parser_pool import ParserPool, parse_bytes

DEEP = b"<div>" * 100_000 + b"deep" + b"</div>" * 100_000
"""Takes the HTML parser 10 s: its time grows with the square of the depth."""


@asynccontextmanager
async def pool(
    parse: Parse | None = None, chunk: ChunkSettings | None = None, field: str | None = None, **settings: Any
) -> AsyncIterator[ParserPool]:
    made = ParserPool(parse or Parse(), chunk or ChunkSettings(), field, **settings)
    try:
        yield made
    finally:
        await made.close()


def document(key: str, data: bytes, **entry: Any) -> Fetched:
    return Fetched(Entry(key, **entry), data=data)


def children() -> set[int]:
    """Processes that this one started."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    return {int(pid) for pid in listed.split()}


def of_process(pid: int, name: str) -> str:
    """What the kernel tells of a process."""
    return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def test_documents_come_back_as_the_pure_function_gives_them() -> None:
    table = b'{"id": 7, "text": "a", "m": [1, 2], "v": [0.5, 1]}\n{broken\n{"id": "7", "v": [1e-3, 2]}\n'
    given: list[tuple[Fetched, str | None]] = [
        (document("a.md", b"# T\n\ntext \xc3\xa9", token="blob", metadata={"path": "a.md", "n": 1, "l": ["x"]}), None),
        (document("t.jsonl", table), "v"),
        (document("page", b"<h1>T</h1>n\xe9", media_type="text/html; charset=latin-1"), None),
        (document("x.py", b"\x00"), None),
        (document("empty.md", b""), None),
    ]
    parse = Parse(id_field="id", metadata_fields=["m"])
    for fetched, field in given:
        async with pool(parse, field=field) as parsers:
            assert await parsers.parse(fetched) == parse_bytes(fetched, parse, ChunkSettings(), field)


async def test_a_document_that_takes_too_long_is_rejected_and_the_others_go_on() -> None:
    async with pool(Parse(timeout="500ms")) as parsers:
        (before,) = await parsers.parse(document("a.md", b"one"))
        started = time.monotonic()
        (slow,) = await parsers.parse(document("deep.html", DEEP))
        assert time.monotonic() - started < 5
        (after,) = await parsers.parse(document("b.md", b"two"))
    assert isinstance(before, Document)
    assert isinstance(after, Document)
    assert slow == Rejected(
        "deep.html",
        "ParseTimeout",
        "deep.html: parsing and chunking took more than 0.5 s: raise spec.parse.timeout, or leave it out of the source",
    )


async def test_a_document_that_takes_too_much_memory_is_rejected_and_the_others_go_on() -> None:
    bomb = b"a b c d\n" * 500_000
    async with pool(chunk=ChunkSettings(size=16), memory_bytes=150 << 20) as parsers:
        (greedy,) = await parsers.parse(document("bomb.txt", bomb))
        (after,) = await parsers.parse(document("b.md", b"two"))
    assert isinstance(greedy, Rejected)
    assert greedy.reason in {"ParserOutOfMemory", "ParserCrashed"}
    assert isinstance(after, Document)


async def test_chunks_that_repeat_each_other_without_end_are_rejected() -> None:
    chunk = ChunkSettings(size=20_001, overlap=20_000, strategy="code")
    data = b"\n".join(b"x%d" % n for n in range(20_000))
    async with pool(Parse(timeout="200s"), chunk, memory_bytes=512 << 20) as parsers:
        (found,) = await parsers.parse(document("a.py", data))
        (after,) = await parsers.parse(document("b.md", b"two"))
    assert isinstance(found, Rejected)
    assert found.reason in {"OutputTooLarge", "ParserOutOfMemory", "ParserCrashed"}
    assert isinstance(after, Document)


@pytest.mark.timeout(600)
async def test_a_line_of_a_hundred_megabytes() -> None:
    line = b'{"text": "' + b"word " * 20_000_000 + b'"}'
    async with pool() as parsers:
        (refused,) = await parsers.parse(document("d.jsonl", line))
        assert isinstance(refused, Rejected)
        assert refused.reason == "DocumentTooLarge"
    async with pool(Parse(max_document_bytes=200_000_000, timeout="280s"), ChunkSettings(size=100_000)) as parsers:
        (taken,) = await parsers.parse(document("d.jsonl", line))
        assert isinstance(taken, Document)
        assert sum(chunk.text.count("word") for chunk in taken.chunks) == 20_000_000


async def test_a_parser_that_is_killed_from_outside_is_started_again_and_the_document_kept() -> None:
    before = children()
    async with pool(Parse(timeout="20s")) as parsers:
        await parsers.parse(document("a.md", b"one"))
        (first,) = children() - before
        os.kill(first, signal.SIGKILL)
        (idle,) = await parsers.parse(document("b.md", b"two"))
        assert isinstance(idle, Document)
        (second,) = children() - before
        busy = asyncio.create_task(parsers.parse(document("deep.html", b"<div>" * 40_000 + b"deep")))
        await asyncio.sleep(0.3)
        os.kill(second, signal.SIGKILL)
        (kept,) = await busy
        assert isinstance(kept, Document)


async def test_a_document_that_the_parser_dies_of_is_rejected_with_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = """
import os, sys
sys.path.append(sys.argv[1])
from vectorwright.ingest.parsers import child
parse = child.parse_bytes
def parse_or_die(fetched, *settings):
    return os.kill(os.getpid(), 11) if fetched.entry.key == "poison" else parse(fetched, *settings)
child.parse_bytes = parse_or_die
child.serve()
"""
    monkeypatch.setattr(parser_pool, "_BOOTSTRAP", crashing)
    async with pool() as parsers:
        (before,) = await parsers.parse(document("a.md", b"one"))
        (found,) = await parsers.parse(document("poison", b"x"))
        (after,) = await parsers.parse(document("b.md", b"two"))
    assert isinstance(before, Document)
    assert found == Rejected("poison", "ParserCrashed", "poison: the parser's process died of it (signal 11)")
    assert isinstance(after, Document)


async def test_a_cancelled_document_leaves_no_answer_for_the_next_one() -> None:
    async with pool(Parse(timeout="20s")) as parsers:
        await parsers.parse(document("a.md", b"one"))
        busy = asyncio.create_task(parsers.parse(document("deep.html", b"<div>" * 30_000)))
        await asyncio.sleep(0.2)
        busy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await busy
        (after,) = await parsers.parse(document("b.md", b"two"))
    assert isinstance(after, Document)
    assert after.key == "b.md"


async def test_several_processes_work_at_once_and_one_slow_document_holds_up_only_one() -> None:
    before = children()
    async with pool(Parse(timeout="3s"), processes=2) as parsers:
        slow = asyncio.create_task(parsers.parse(document("deep.html", DEEP)))
        found = await asyncio.gather(*(parsers.parse(document(f"{n}.md", b"text %d" % n)) for n in range(50)))
        assert not slow.done()
        assert [item.key for (item,) in found] == [f"{n}.md" for n in range(50)]
        assert len(children() - before) == 2
        await slow
    assert children() == before


async def test_children_see_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    before = children()
    async with pool() as parsers:
        await parsers.parse(document("a.md", b"one"))
        (child,) = children() - before
        environment = of_process(child, "environ")
        limits = of_process(child, "limits")
    assert "s3cret" not in environment
    names = {item.partition("=")[0] for item in environment.split("\0") if item}
    assert names <= {*parser_pool._KEPT_VARIABLES, *parser_pool._ENVIRONMENT}
    for limit in ("Max core file size        0", "Max file size             0"):
        assert limit in limits


async def test_children_end_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    """The child is in the middle of a long document, so it does not see that its pipe was closed."""
    program = f"""
import asyncio, os
from pathlib import Path
from vectorwright.api.v1alpha1.ingestionjob import Chunk, Parse
from vectorwright.ingest.contracts import Entry, Fetched
from vectorwright.ingest.parser_pool import ParserPool

async def main():
    pool = ParserPool(Parse(), Chunk())
    await pool.parse(Fetched(Entry("a.md"), data=b"one"))
    listed = Path(f"/proc/self/task/{{os.getpid()}}/children").read_text()
    Path({str(tmp_path / "child")!r}).write_text(listed)
    await pool.parse(Fetched(Entry("a.html"), data=b"<div>" * 200_000))

asyncio.run(main())
"""
    root = str(Path(vectorwright.__file__).parent.parent)
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=os.environ | {"PYTHONPATH": root})
    try:
        await until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip(), 60, 0.02)
        child = int((tmp_path / "child").read_text())
        await asyncio.sleep(0.3)
        assert alive(child)
    finally:
        worker.kill()
        await worker.wait()
    await until(lambda: not alive(child), 5, 0.02)


async def test_closing_twice_leaves_no_process() -> None:
    before = children()
    made = ParserPool(Parse(), ChunkSettings(), processes=2)
    await made.parse(document("a.md", b"one"))
    await made.close()
    await made.close()
    assert children() == before


async def test_failed_fetches_and_large_documents_never_reach_a_child() -> None:
    before = children()
    async with pool(Parse(max_document_bytes=10)) as parsers:
        failed = Fetched(Entry("a"), error=Retryable("server is down", reason="Unavailable"))
        assert await parsers.parse(failed) == [Rejected("a", "Unavailable", "server is down")]
        (large,) = await parsers.parse(document("b", b"x" * 11))
        assert isinstance(large, Rejected)
        assert large.reason == "DocumentTooLarge"
        assert children() == before


async def test_a_parser_that_cannot_start_is_no_fault_of_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser_pool, "_BOOTSTRAP", "raise SystemExit(9)")
    async with pool() as parsers:
        with pytest.raises(Retryable) as failed:
            await parsers.parse(document("a.md", b"one"))
    assert failed.value.reason == "ParserUnavailable"
    assert failed.value.message == "the parser's process ended with status 9"


def test_settings_that_cannot_be_used_are_refused_at_once() -> None:
    with pytest.raises(Terminal):
        ParserPool(Parse(), ChunkSettings(size=100, overlap=100))
