"""Real worker processes over a store in another process: exit statuses, messages, signals, and what a kill leaves."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from typing import Any

import pytest
from tests.support.git import GitServer
from tests.support.openai import Fault, FaultKind, OpenAIServer
from tests.support.store_server import StartStoreServer, StoreServer
from tests.support.workers import StartWorker, Worker

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.ingest.embedders.local import revision
from vectorwright.ingest.embedders.registry import fingerprint
from vectorwright.ingest.runspec import EXIT_RETRYABLE, EXIT_SUCCESS, EXIT_TERMINAL, EmbedderTarget, RunState
from vectorwright.stores.base import IndexDefinition, Record
from vectorwright.stores.registry import Connection, StoreCredentials, open_store


@pytest.fixture
def server(start_store_server: StartStoreServer) -> StoreServer:
    return start_store_server()


def connection(server: StoreServer) -> Connection:
    return Connection("memory", {"server": server.url}, StoreCredentials(token=server.token))


async def make_index(server: StoreServer, dimension: int) -> str:
    async with open_store(connection(server)) as store:
        return (await store.create_index(IndexDefinition("docs", dimension, "cosine"))).incarnation


async def records(server: StoreServer) -> dict[str, Record]:
    found: dict[str, Record] = {}
    async with open_store(connection(server)) as store:
        async for page in store.scroll("docs", vectors=True):
            for record in page:
                assert record.id not in found
                found[record.id] = record
    return found


def run_of(
    server: StoreServer, incarnation: str, *, openai: OpenAIServer | None = None, **overrides: Any
) -> dict[str, Any]:
    embedder: dict[str, Any] = {"local": {"model": "wordllama"}}
    if openai is not None:
        embedder = {"openAI": {"baseUrl": openai.base_url, "model": openai.model, "batchSize": 8}}
    target = EmbedderTarget.model_validate({"spec": embedder, "fingerprint": "unknown"})
    found = fingerprint(target.spec, revision() if openai is None else None, normalized=False)
    return {
        "runId": "run-1",
        "job": "team/docs",
        "sourceName": "team/docs",
        "source": {"configMap": {"name": "documents"}},
        "chunk": {"size": 100},
        "store": {
            "provider": "memory",
            "settings": {"server": server.url},
            "index": "docs",
            "incarnation": incarnation,
            "dimension": 256 if openai is None else openai.dimension,
            "metric": "cosine",
        },
        "embedder": {"spec": embedder, "fingerprint": found},
    } | overrides


def files_of(server: StoreServer, documents: dict[str, str], openai: OpenAIServer | None = None) -> dict[str, str]:
    files = {f"configmap/{name}": text for name, text in documents.items()}
    files["credentials/store/token"] = server.token + "\n"
    if openai is not None:
        files["credentials/embedder/token"] = openai.key
    return files


def text(seed: int, sentences: int) -> str:
    rng = random.Random(seed)
    words = ["index", "vector", "store", "search", "cluster", "operator", "chunk", "token", "batch", "ledger"]
    return "\n\n".join(" ".join(rng.choices(words, k=10)) + f" {seed} {number}" for number in range(sentences))


async def test_a_run_from_directory_to_exit_status(server: StoreServer, start_worker: StartWorker) -> None:
    run = run_of(server, await make_index(server, 256))
    documents = {f"{n}.md": f"# Title {n}\n\n{text(n, 3)}" for n in range(5)}
    worker = start_worker(run, files=files_of(server, documents))
    assert worker.wait() == EXIT_SUCCESS, worker.log
    state = worker.state
    assert (state.phase, state.verification, state.run_id) == (Phase.SUCCEEDED, "Exact", "run-1")
    assert state.counts.documents_new == 5
    assert state.counts.vectors_written == len(await records(server))
    assert {line["correlation_id"] for line in worker.lines if "kind" in line} == {"run-1"}
    assert server.token not in worker.log
    again = start_worker(run, files=files_of(server, documents))
    assert again.wait() == EXIT_SUCCESS
    assert (again.state.counts.documents_unchanged, again.state.counts.vectors_embedded) == (5, 0)


async def test_a_git_repository_is_followed_commit_by_commit(
    server: StoreServer, start_worker: StartWorker, git_server: GitServer
) -> None:
    repository = git_server.repository()
    first = repository.commit({f"docs/{n:02}.md": f"# Page {n}\n\n{text(n, 4)}" for n in range(12)} | {"x.bin": "no"})
    run = run_of(
        server,
        await make_index(server, 256),
        source={"git": {"url": repository.url, "include": ["docs/**"]}},
        sync={"mode": "Sync"},
        network={"allowNetworks": ["127.0.0.0/8"]},
    )
    files = files_of(server, {})

    async def finished() -> RunState:
        worker = start_worker(run, files=files)
        assert worker.wait() == EXIT_SUCCESS, worker.log
        return worker.state

    state = await finished()
    assert (state.phase, state.revision, state.counts.documents_new) == (Phase.SUCCEEDED, first, 12)
    before = await records(server)
    state = await finished()
    assert (state.counts.documents_unchanged, state.counts.bytes_read, state.counts.vectors_written) == (12, 0, 0)
    second = repository.commit({"docs/03.md": "# Changed", "docs/04.md": None, "docs/new.md": "# New"})
    state = await finished()
    counts = state.counts
    assert state.revision == second
    assert (counts.documents_replaced, counts.documents_deleted, counts.documents_new) == (1, 1, 1)
    after = await records(server)
    (changed,) = [record for record in after.values() if record.metadata["vw_doc"] == "docs/03.md"]
    assert (changed.metadata["commit"], changed.text) == (second, "# Changed")
    kept = {name for name, record in before.items() if record.metadata["vw_doc"] not in {"docs/03.md", "docs/04.md"}}
    assert kept < set(after)


async def test_exit_statuses_tell_what_may_be_done(
    server: StoreServer, start_worker: StartWorker, openai_server: OpenAIServer
) -> None:
    incarnation = await make_index(server, openai_server.dimension)
    run = run_of(server, incarnation, openai=openai_server)
    files = files_of(server, {"a.txt": "hello"}, openai_server)

    wrong = start_worker(run | {"store": run["store"] | {"incarnation": "another"}}, files=files)
    assert (wrong.wait(), wrong.state.reason) == (EXIT_TERMINAL, "IncarnationChanged")

    refused = start_worker(run, files=files | {"credentials/embedder/token": "sk-wrong-key-0123"})
    assert (refused.wait(), refused.state.reason, refused.state.retryable) == (EXIT_TERMINAL, "AccessDenied", False)
    assert "sk-wrong-key-0123" not in refused.log + refused.termination_log.read_text()

    refused = start_worker(run, files=files | {"credentials/store/token": "wrong-token-0123"})
    assert (refused.wait(), refused.state.reason) == (EXIT_TERMINAL, "AccessDenied")
    assert "wrong-token-0123" not in refused.log + refused.termination_log.read_text()

    mismatch = start_worker(run | {"embedder": run["embedder"] | {"fingerprint": "another"}}, files=files)
    assert (mismatch.wait(), mismatch.state.reason) == (EXIT_TERMINAL, "ModelMismatch")

    broken = start_worker({"runId": 7}, files=files)
    assert (broken.wait(), broken.state.reason) == (EXIT_TERMINAL, "InvalidRun")

    openai_server.always = Fault(FaultKind.RUBBISH)
    rubbish = start_worker(run, files=files)
    assert (rubbish.wait(), rubbish.state.reason, rubbish.state.retryable) == (
        EXIT_RETRYABLE,
        "EmbedderBadAnswer",
        True,
    )
    openai_server.always = None
    assert await records(server) == {}

    poison = start_worker(run, files=files | {"configmap/b.bin": "\0\1\2"})
    assert (poison.wait(), poison.state.phase) == (EXIT_SUCCESS, Phase.SUCCEEDED_WITH_ERRORS)
    (letter,) = [line for line in poison.lines if line["msg"] == "dead letter"]
    assert letter["document"] == "b.bin"


async def test_a_store_that_dies_in_the_middle_ends_the_run_as_retryable(
    server: StoreServer, start_worker: StartWorker, openai_server: OpenAIServer
) -> None:
    openai_server.delay = 0.02
    run = run_of(server, await make_index(server, openai_server.dimension), openai=openai_server)
    worker = start_worker(run, files=files_of(server, {"big.txt": text(1, 2000)}, openai_server))
    worker.wait_for(lambda state: state.counts.vectors_written > 0)
    server.kill()
    assert worker.wait() == EXIT_RETRYABLE
    assert (worker.state.phase, worker.state.retryable) == (Phase.FAILED, True)
    assert worker.state.counts.documents_failed == 0


async def test_sigterm_finishes_what_is_in_flight(
    server: StoreServer, start_worker: StartWorker, openai_server: OpenAIServer
) -> None:
    openai_server.delay = 0.05
    run = run_of(server, await make_index(server, openai_server.dimension), openai=openai_server)
    worker = start_worker(run, files=files_of(server, {"big.txt": text(1, 3000)}, openai_server))
    worker.wait_for(lambda state: state.counts.vectors_written > 0)
    asked = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait(15) == EXIT_RETRYABLE
    assert time.monotonic() - asked < 10
    state = worker.state
    assert (state.reason, state.retryable) == ("Interrupted", True)
    assert state.counts.vectors_written == len(await records(server)) == len(openai_server.embedded)


async def test_it_dies_with_its_parent(
    server: StoreServer, start_worker: StartWorker, openai_server: OpenAIServer
) -> None:
    openai_server.delay = 0.2
    run = run_of(server, await make_index(server, openai_server.dimension), openai=openai_server)
    files = files_of(server, {"big.txt": text(1, 2000)}, openai_server)
    worker = start_worker(run, files=files, flags=("--exit-on-stdin-eof",), pipe=True)
    worker.wait_for(lambda state: state.counts.vectors_embedded > 0)
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert worker.wait(30) == EXIT_RETRYABLE
    assert worker.state.reason == "Interrupted"


async def test_a_budget_slows_it_down(
    server: StoreServer, start_worker: StartWorker, openai_server: OpenAIServer
) -> None:
    run = run_of(server, await make_index(server, openai_server.dimension), openai=openai_server)
    slow = {"limits": {"requestsPerMinute": 120}}
    run["embedder"]["spec"] = run["embedder"]["spec"] | slow
    started = time.monotonic()
    worker = start_worker(run, files=files_of(server, {"big.txt": text(1, 400)}, openai_server))
    worker.wait_for(lambda state: state.counts.vectors_embedded > 0)
    await asyncio.sleep(2.0)
    assert len(openai_server.requests) <= 3 + 2 * (time.monotonic() - started)
    with worker.client() as client:
        assert client.post("/budget", json={"embedRequestsPerMinute": None}).status_code == 204
    assert worker.wait() == EXIT_SUCCESS
    assert worker.state.counts.vectors_written == len(await records(server))


@pytest.mark.timeout(600)
async def test_killed_at_any_moment_and_started_again_it_ends_the_same(
    start_store_server: StartStoreServer, start_worker: StartWorker, openai_server: OpenAIServer
) -> None:
    """Fifteen times SIGKILL while a first version is written and then replaced by a second one."""
    first = {f"{n:03}.md": text(n, 12) for n in range(60)}
    second = {
        name: content if n % 3 else text(1000 + n, 9) for n, (name, content) in enumerate(first.items()) if n % 10
    }
    sync = {"sync": {"mode": "Sync", "maxDeletePercent": 50}}

    async def final(server: StoreServer, documents: dict[str, str]) -> Worker:
        run = run_of(server, incarnations[server.port], openai=openai_server, **sync)
        worker = start_worker(run, files=files_of(server, documents, openai_server))
        assert worker.wait() == EXIT_SUCCESS, worker.log
        assert worker.state.verification == "Exact"
        return worker

    incarnations: dict[int, str] = {}
    calm, stormy = start_store_server(), start_store_server()
    for server in (calm, stormy):
        incarnations[server.port] = await make_index(server, openai_server.dimension)
    rng = random.Random(7)
    killed = paid_twice = 0
    for documents in (first, second):
        openai_server.delay = 0.0
        openai_server.embedded.clear()
        await final(calm, documents)
        needed = len(openai_server.embedded)
        openai_server.embedded.clear()
        openai_server.delay = 0.1
        run = run_of(stormy, incarnations[stormy.port], openai=openai_server, **sync)
        for _ in range(9):
            worker = start_worker(run, files=files_of(stormy, documents, openai_server))
            worker.wait_for(lambda state: state.phase is not Phase.PENDING)
            await asyncio.sleep(rng.uniform(0.02, 0.6))
            killed += worker.process.poll() is None
            worker.kill()
        openai_server.delay = 0.0
        await final(stormy, documents)
        paid_twice += len(openai_server.embedded) - needed
        left, right = await records(calm), await records(stormy)
        assert set(left) == set(right)
        for record_id, record in left.items():
            assert record.metadata == right[record_id].metadata
            assert record.text == right[record_id].text
            assert record.vector == pytest.approx(right[record_id].vector)
        assert len({(one.metadata["vw_doc"], one.metadata["vw_n"]) for one in right.values()}) == len(right)
    assert killed >= 15
    # At most the 4 calls of 8 texts in flight, and the 100 that wait for their write.
    assert paid_twice <= killed * (32 + 100)
