"""Secrets that change while a run goes on, through the real control loop.

What is checked: a worker is handed what changed, at once, whether or not anything is ready meanwhile; its run is
neither stopped nor started again; a run that fails with the credentials that it took up is not repeated because of
them, one that may not have had them is; a Secret that is gone for a while changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.support.ingestionjob_runs import Workers, apply, look, started, status
from tests.support.reconciling import NAMESPACE, World, resource

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import Retryable
from vectorwright.reconcile import sessions

STORE, EMBEDDER, SOURCE = (f"credentials/{use}/token" for use in ("store", "embedder", "source"))


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
async def world(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with World(runners=workers.runners()) as made:
        monkeypatch.setattr(sessions, "open_store", made.open_store)
        made.backend()
        for name in ("data", "control", "model", "web"):
            made.secrets.set(NAMESPACE, name, token=f"{name}-1")
        made.add_store(controlCredentials={"name": "control"}, dataCredentials={"name": "data"})
        made.models["small"] = (4, "print-1")
        endpoint = {"baseUrl": "https://models.example.com/v1", "model": "small"}
        made.api.apply(resource("EmbeddingModel", "small", {"openAI": endpoint, "credentials": {"name": "model"}}))
        made.add_index(embeddingModelRef={"name": "small"})
        await made.settle()
        web = {"http": {"urls": ["https://docs.example.com/a"], "credentials": {"name": "web"}}}
        await started(made, source=web)
        yield made


async def change(world: World, name: str, value: str) -> None:
    world.secrets.set(NAMESPACE, name, token=value)
    await world.settle()


async def over(world: World, workers: Workers, reason: str) -> None:
    """The run failed for good, and was looked at often enough to be repeated where it should be."""
    workers.tell(Phase.FAILED, reason=reason, message="it failed")
    for _ in range(3):
        await look(world)


@pytest.mark.parametrize("changed", ["data", "model", "web"])
async def test_a_worker_is_handed_what_changed_and_goes_on(world: World, workers: Workers, changed: str) -> None:
    run = status(world)["run"]
    for turn in range(2, 5):
        await change(world, changed, f"{changed}-{turn}")
        expected = {"data": b"data-1", "model": b"model-1", "web": b"web-1", changed: f"{changed}-{turn}".encode()}
        assert workers.renewed[-1] == {STORE: expected["data"], EMBEDDER: expected["model"], SOURCE: expected["web"]}
    assert status(world)["run"] == run
    assert workers.log == [f"start {run['id']}-1"]
    workers.tell(Phase.SUCCEEDED)
    for _ in range(3):
        await look(world)
    assert workers.log == [f"start {run['id']}-1", f"stop {run['id']}-1"]


async def test_it_is_handed_over_while_the_store_is_not_ready(world: World, workers: Workers) -> None:
    world.backends["http://vectors"].failures["*"] = Retryable("down")
    await change(world, "control", "control-2")
    assert world.conditions("vectors", "VectorStore")["Ready"][0] != "True"
    await change(world, "data", "data-2")
    assert workers.renewed[-1][STORE] == b"data-2"
    assert len(workers.log) == 1


async def test_a_secret_that_is_gone_for_a_while_changes_nothing(world: World, workers: Workers) -> None:
    told = len(workers.renewed)
    world.secrets.remove(NAMESPACE, "data")
    await world.settle()
    await look(world)
    assert (len(workers.renewed), len(workers.log), status(world)["phase"]) == (told, 1, "Running")
    await change(world, "data", "data-2")
    assert workers.renewed[-1][STORE] == b"data-2"


async def test_a_run_that_failed_with_what_it_took_up_is_not_repeated(world: World, workers: Workers) -> None:
    await change(world, "data", "data-2")
    await over(world, workers, "AccessDenied")
    assert len(workers.log) == 2, "started once, and stopped"
    await change(world, "data", "data-3")
    assert len(workers.log) == 3, "what came afterwards may mend it"


@pytest.mark.parametrize(("reason", "starts"), [("AccessDenied", 2), ("BudgetExceeded", 1)])
async def test_a_pod_that_may_not_have_had_it_is_started_again_where_that_may_help(
    world: World, workers: Workers, reason: str, starts: int
) -> None:
    workers.takes_up = False
    await change(world, "data", "data-2")
    await over(world, workers, reason)
    assert len([line for line in workers.log if line.startswith("start")]) == starts


async def test_documents_that_were_mended_meanwhile_are_a_reason_to_run_again(world: World, workers: Workers) -> None:
    workers.tell(Phase.SUCCEEDED)
    await look(world)
    world.config_maps.set(NAMESPACE, "pages", a="broken")
    apply(world, source={"configMap": {"name": "pages"}})
    await world.settle()
    workers.log.clear()
    world.config_maps.set(NAMESPACE, "pages", a="mended")
    await change(world, "data", "data-2")
    await over(world, workers, "TooManyDeadLetters")
    assert [line.split()[0] for line in workers.log] == ["stop", "start"]
