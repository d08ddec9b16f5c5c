"""Workers as children of the operator.

What is checked: a directory that only we may read; an environment without what is the operator's; results, progress and
deaths as they are told; a worker that does not stop, and what it started, are killed; nothing is left behind, also
where a worker cannot be started; credentials that change; the real worker, once. What a worker does is tried in
test_worker_process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.support.runs import FILES, SECRET_VALUE, ingestion_job, run_inputs, run_spec

from vectorwright.api.v1alpha1.ingestionjob import Counts, DeadLetter, Phase
from vectorwright.errors import Retryable
from vectorwright.ingest.runspec import RunState, StoreTarget
from vectorwright.reconcile import runner_child, worker_exchange
from vectorwright.reconcile.handover import RunFile
from vectorwright.reconcile.runner_base import Look, WorkerBudget
from vectorwright.reconcile.runner_child import ChildRunner
from vectorwright.reconcile.worker_exchange import exchange

STAND_IN = """
    import json, os, pathlib, signal, subprocess, sys, time

    directory = pathlib.Path(sys.argv[sys.argv.index("--directory") + 1])
    result = pathlib.Path(sys.argv[sys.argv.index("--termination-log") + 1])
    run = json.loads((directory / "run.json").read_text())
    (directory / "seen.json").write_text(json.dumps({"environ": dict(os.environ), "args": sys.argv[1:]}))
    what = run["runId"]
    if what == "succeeds":
        result.write_text(json.dumps({"runId": what, "phase": "Succeeded", "counts": {"vectorsWritten": 7}}))
    elif what == "rubbish":
        result.write_text("{")
        sys.exit(5)
    elif what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "polite":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        time.sleep(60)
    elif what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        (directory / "child.pid").write_text(str(child.pid))
        time.sleep(60)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``python -m vectorwright worker`` finds: the rest of the environment is not handed on."""
    package = tmp_path / "path" / "vectorwright"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(textwrap.dedent(STAND_IN))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


@pytest.fixture
def woken() -> list[tuple[str, str]]:
    return []


@pytest.fixture
async def runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, woken: list[tuple[str, str]]
) -> AsyncIterator[ChildRunner]:
    place = tmp_path / "runs"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(runner_child, "GRACE", 0.5)
    made = ChildRunner(lambda namespace, job: woken.append((namespace, job)))
    yield made
    await made.stop_all()
    assert list(place.iterdir()) == [], "something is left behind"


async def start(runner: ChildRunner, what: str) -> Path:
    await runner.start(ingestion_job(), f"{what}-1", run_inputs(run_spec(run_id=what)))
    return runner._children["team-a", f"{what}-1"].directory


async def ended(runner: ChildRunner, name: str) -> Look:
    return await looked(runner, name, lambda look: look.finished)


async def looked(runner: ChildRunner, name: str, wanted: Callable[[Look], bool], seconds: float = 30) -> Look:
    deadline = time.monotonic() + seconds
    while not wanted(look := await runner.look("team-a", name)):
        assert time.monotonic() < deadline, look
        await asyncio.sleep(0.02)
    return look


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def appears(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not (text := text_of(path)):
        assert time.monotonic() < deadline, f"{path.name} never came"
        await asyncio.sleep(0.02)
    return text


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.usefixtures("stand_in")
async def test_what_a_worker_is_handed_only_we_may_read(runner: ChildRunner) -> None:
    directory = await start(runner, "polite")
    for file in FILES:
        assert (directory / file.path).read_bytes() == file.content
    check_modes(directory)
    assert SECRET_VALUE not in (directory / "run.json").read_text()


def check_modes(directory: Path) -> None:
    """Nobody but us may look into the directory or read a file in it."""
    found = [directory, *(path for path in directory.rglob("*") if not path.is_symlink())]
    for path in found:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert path.name in {"seen.json", "child.pid"} or mode == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.usefixtures("stand_in")
async def test_what_changed_is_put_in_place_of_what_was(runner: ChildRunner) -> None:
    directory = await start(runner, "polite")
    data, run = directory / "..data", (directory / "run.json").stat().st_ino
    changed = [RunFile("credentials/source/password", "Secret", "s", "password", b"another")]
    assert await runner.renew("team-a", "polite-1", changed)
    before = data.resolve()
    assert await runner.renew("team-a", "polite-1", changed)
    assert data.resolve() == before, "what did not change is left alone"
    assert (directory / "credentials/source/password").read_text() == "another"
    assert not (directory / "credentials/store/token").exists()
    assert (directory / "run.json").stat().st_ino == run
    check_modes(directory)


@pytest.mark.usefixtures("stand_in")
async def test_nobody_there_has_nothing_to_be_handed(runner: ChildRunner, tmp_path: Path) -> None:
    assert not await runner.renew("team-a", "polite-1", FILES[:1])
    directory = await start(runner, "polite")
    stopping = asyncio.create_task(runner.stop("team-a", "polite-1"))
    await asyncio.sleep(0)
    assert not await runner.renew("team-a", "polite-1", FILES[:1])
    await stopping
    assert not directory.exists()


@pytest.mark.usefixtures("stand_in")
async def test_a_worker_sees_nothing_of_the_operators_environment(
    runner: ChildRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "KUBECONFIG",
        "AWS_SECRET_ACCESS_KEY",
        "VECTORWRIGHT_INSTALLATION_ID",
        "HTTPS_PROXY",
        "GIT_SSH_COMMAND",
    ):
        monkeypatch.setenv(name, "of the operator")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/x.pem")
    directory = await start(runner, "polite")
    seen = json.loads(await appears(directory / "seen.json"))
    environ: dict[str, str] = seen["environ"]
    kept = {"PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONPATH"}
    assert set(environ) <= kept | {"HOME", "TMPDIR", "LC_CTYPE"}
    assert (environ["HOME"], environ["TMPDIR"]) == (str(directory), str(directory))
    assert environ["SSL_CERT_FILE"] == "/etc/ssl/x.pem"
    assert seen["args"][0] == "worker"
    assert "--exit-on-stdin-eof" in seen["args"]
    assert SECRET_VALUE not in json.dumps(seen)


@pytest.mark.usefixtures("stand_in")
async def test_a_result_is_read_and_the_job_is_woken(runner: ChildRunner, woken: list[tuple[str, str]]) -> None:
    await start(runner, "succeeds")
    look = await ended(runner, "succeeds-1")
    assert look == Look(
        exists=True,
        finished=True,
        state=RunState(run_id="succeeds", phase=Phase.SUCCEEDED, counts=Counts(vectors_written=7)),
    )
    await asyncio.sleep(0)
    assert woken == [("team-a", "docs")]
    assert await runner.look("team-a", "succeeds-1") == look, "as often as one looks"


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("rubbish", "the worker ended with exit code 5"),
        ("killed", "the worker was killed by signal 9"),
        ("silent", "the worker ended with exit code 0"),
    ],
)
async def test_a_worker_that_told_no_result_died(runner: ChildRunner, what: str, why: str) -> None:
    await start(runner, what)
    assert await ended(runner, f"{what}-1") == Look(exists=True, finished=True, died=why)


@pytest.mark.usefixtures("stand_in")
async def test_started_twice_is_started_once(runner: ChildRunner) -> None:
    await start(runner, "polite")
    first = runner._children["team-a", "polite-1"].process.pid
    await start(runner, "polite")
    assert runner._children["team-a", "polite-1"].process.pid == first
    assert len(runner._children) == 1


@pytest.mark.usefixtures("stand_in")
async def test_a_worker_of_another_process_is_gone_with_it(runner: ChildRunner) -> None:
    assert await runner.look("team-a", "polite-1") == Look(exists=False)
    await runner.stop("team-a", "polite-1")


@pytest.mark.usefixtures("stand_in")
async def test_a_worker_that_stops_is_not_killed(
    runner: ChildRunner, woken: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_child, "GRACE", 30.0)
    directory = await start(runner, "polite")
    await appears(directory / "seen.json")
    process = runner._children["team-a", "polite-1"].process
    begun = time.monotonic()
    await runner.stop("team-a", "polite-1")
    assert process.returncode in (0, -15)
    assert time.monotonic() - begun < runner_child.GRACE / 2
    assert not directory.exists()
    assert await runner.look("team-a", "polite-1") == Look(exists=False)
    await asyncio.sleep(0.01)
    assert woken == [], "who stopped it knows"


@pytest.mark.usefixtures("stand_in")
async def test_a_worker_that_does_not_stop_is_killed_with_what_it_started(runner: ChildRunner) -> None:
    directory = await start(runner, "stubborn")
    grandchild = int(await appears(directory / "child.pid"))
    process = runner._children["team-a", "stubborn-1"].process
    assert alive(grandchild)
    await runner.stop("team-a", "stubborn-1")
    assert process.returncode == -9
    deadline = time.monotonic() + 5
    while alive(grandchild):
        assert time.monotonic() < deadline, "it outlived its worker"
        await asyncio.sleep(0.02)
    assert not directory.exists()


@pytest.mark.usefixtures("stand_in")
async def test_all_are_stopped_at_once(runner: ChildRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_child, "GRACE", 2.0)
    for number in range(3):
        await runner.start(ingestion_job(), f"stubborn-{number}", run_inputs(run_spec(run_id="stubborn")))
    for child in list(runner._children.values()):
        await appears(child.directory / "child.pid")
    begun = time.monotonic()
    await runner.stop_all()
    assert time.monotonic() - begun < 2 * runner_child.GRACE, "one after the other"
    assert runner._children == {}


async def test_a_worker_that_cannot_be_started_leaves_no_credentials_behind(
    runner: ChildRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Retryable) as caught:
        await runner.start(ingestion_job(), "docs-1", run_inputs())
    assert caught.value.reason == "WorkerNotStarted"
    assert caught.value.message == "a worker could not be started: No such file or directory"
    assert await runner.look("team-a", "docs-1") == Look(exists=False)


async def test_the_real_worker_tells_that_its_store_cannot_be_reached(runner: ChildRunner) -> None:
    store = StoreTarget(
        provider="memory",
        settings={"server": "unix:///nowhere/store.sock"},
        index="docs",
        incarnation="i1",
        dimension=4,
        metric="cosine",
        timeout=1.0,
    )
    inputs = run_inputs(run_spec(store=store, precomputed_field="vector"), files=())
    await runner.start(ingestion_job(), "docs-1", inputs)
    look = await looked(runner, "docs-1", lambda found: found.finished, 90)
    assert look.state is not None, look.died
    assert (look.state.phase, look.state.retryable) == (Phase.FAILED, True)


# -- the exchange with a worker --
@contextlib.asynccontextmanager
async def worker_at(socket: Path, answer: Callable[[web.Request], Any]) -> AsyncIterator[list[Any]]:
    """A worker's side: what it is told is recorded."""
    told: list[Any] = []

    async def budget(request: web.Request) -> web.Response:
        told.append(await request.json())
        return web.Response(status=204)

    application = web.Application()
    application.router.add_post("/budget", budget)
    application.router.add_get("/progress", answer)
    server = web.AppRunner(application)
    await server.setup()
    await web.UnixSite(server, str(socket)).start()
    try:
        yield told
    finally:
        await server.cleanup()


def big_state() -> RunState:
    letters = [DeadLetter(document=f"doc-{number}", reason="Unparseable", message="x" * 1000) for number in range(20)]
    return RunState(run_id="r", phase=Phase.RUNNING, dead_letters=letters)


async def test_progress_that_comes_in_pieces_is_read_whole(tmp_path: Path) -> None:
    body = big_state().model_dump_json(by_alias=True).encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start_at in range(0, len(body), 1400):
            await response.write(body[start_at : start_at + 1400])
            await asyncio.sleep(0.001)
        return response

    async with worker_at(tmp_path / "w.sock", answer):
        assert await exchange("http://worker", None, socket=str(tmp_path / "w.sock")) == big_state()


async def test_an_answer_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_exchange, "TIMEOUT", 30.0)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " * 65536)
        return response

    async with worker_at(tmp_path / "w.sock", answer):
        begun = time.monotonic()
        assert await exchange("http://worker", None, socket=str(tmp_path / "w.sock")) is None
        assert time.monotonic() - begun < worker_exchange.TIMEOUT / 2


async def test_a_budget_goes_out_before_progress_comes_in(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=RunState(run_id="r", phase=Phase.RUNNING).model_dump_json(by_alias=True))

    budget = WorkerBudget(requests_per_second=2.5, embed_tokens_per_minute=100.0)
    async with worker_at(tmp_path / "w.sock", answer) as told:
        state = await exchange("http://worker", budget, socket=str(tmp_path / "w.sock"))
        assert state == RunState(run_id="r", phase=Phase.RUNNING)
        assert told == [{"requestsPerSecond": 2.5, "embedTokensPerMinute": 100.0}]
        await exchange("http://worker", WorkerBudget(), socket=str(tmp_path / "w.sock"))
        assert len(told) == 1, "nothing is limited: nothing is told"


@pytest.mark.parametrize("answer", [web.Response(status=500), web.Response(text="no JSON"), web.Response(text="{}")])
async def test_a_worker_that_answers_rubbish_is_asked_again_later(tmp_path: Path, answer: web.Response) -> None:
    async def reply(_: web.Request) -> web.Response:
        return answer

    async with worker_at(tmp_path / "w.sock", reply):
        assert await exchange("http://worker", None, socket=str(tmp_path / "w.sock")) is None


async def test_a_worker_that_is_not_there_is_asked_again_later(tmp_path: Path) -> None:
    assert await exchange("http://worker", WorkerBudget(1.0), socket=str(tmp_path / "none.sock")) is None
