"""From an IngestionJob that copies an index to what its worker is handed, and what is refused before it starts.

What is checked: both places are resolved, with credentials for each; jobs that write to another namespace of an index
are no rivals; a namespace that a store cannot have, another vector space, and an index onto itself stop the job before
any run; a source that is not ready is waited for, and wakes the job; a worker on the real files.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.copying import SOURCE, TARGET, Pair, all_of, described, put, some
from tests.support.ingestionjob_runs import Workers, conditions, message, status
from tests.support.reconciling import NAMESPACE, World, resource
from tests.support.store_server import StoreServer
from tests.support.workers import StartWorker
from tests.unit.test_run_inputs import INDEX_STATUS, READY, WAITING, Cluster

from vectorwright.api.v1alpha1 import IngestionJob
from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.controllers import vectorindex
from vectorwright.errors import Conflict, Retryable, Terminal
from vectorwright.ingest.runspec import EXIT_SUCCESS
from vectorwright.reconcile import sessions
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.job_manifest import worker_job
from vectorwright.reconcile.run_budget import share
from vectorwright.reconcile.runner_base import WorkerBudget
from vectorwright.stores.base import IndexDefinition
from vectorwright.stores.memory import MemoryStore
from vectorwright.stores.registry import Connection, StoreCredentials, open_store

OLD_STATUS = {**INDEX_STATUS, "physicalName": "old", "incarnation": "i0", "backendId": "b0", "modelFingerprint": "f"}
COPY = {"vectorIndex": {"name": "old", "indexNamespace": "tenant"}}


@pytest.fixture
def cluster() -> Cluster:
    found = Cluster()
    credentials = {"controlCredentials": {"name": "control"}, "dataCredentials": {"name": "data"}}
    found.put("VectorStore", "elsewhere", {"chroma": {"url": "http://elsewhere:8000"}, **credentials}, READY)
    found.secrets.set(NAMESPACE, "data", token="data-token-value")
    found.put("VectorIndex", "old", {"storeRef": {"name": "elsewhere"}, "dimension": 4}, OLD_STATUS)
    return found


def restate(cluster: Cluster, name: str, status_: dict[str, Any]) -> None:
    cluster.context.cache.put("VectorIndex", cluster.api.set_status("VectorIndex", NAMESPACE, name, status_))


def copying(cluster: Cluster, name: str = "copy", **spec: Any) -> IngestionJob:
    return cluster.job(name, source=COPY, **spec)


# -- resolved --
async def test_both_places_are_resolved_with_their_credentials(cluster: Cluster) -> None:
    inputs = await cluster.gather(copying(cluster, indexNamespace="mine"))
    spec = inputs.spec
    assert (spec.embedder, spec.precomputed_field) == (None, None)
    assert spec.source_store is not None
    assert (spec.source_store.provider, spec.source_store.settings) == ("chroma", {"url": "http://elsewhere:8000"})
    assert (spec.source_store.index, spec.source_store.namespace, spec.source_store.incarnation) == (
        "old", "tenant", "i0",
    )  # fmt: skip
    assert (spec.store.index, spec.store.namespace, spec.store.backend_id) == ("docs-g1", "mine", "b1")
    assert [(file.path, file.name, file.key, file.content) for file in inputs.files] == [
        ("credentials/source_store/token", "data", "token", b"data-token-value")
    ]
    assert "data-token-value" not in spec.model_dump_json()
    manifest = worker_job(copying(cluster), "copy-1", inputs, image="image")
    volume = manifest["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"]
    assert volume[1]["secret"] == {
        "name": "data",
        "items": [{"key": "token", "path": "credentials/source_store/token"}],
    }


async def test_what_the_worker_is_handed_changes_with_the_source_store(cluster: Cluster) -> None:
    before = (await cluster.gather(copying(cluster))).digest()
    cluster.put("VectorStore", "elsewhere", {"chroma": {"url": "http://other:8000"}}, READY)
    assert (await cluster.gather(copying(cluster))).digest() != before


@pytest.mark.parametrize(("adopted", "expected"), [(False, True), (True, False), (None, False)])
async def test_an_index_that_its_resource_made_held_nothing_before(
    cluster: Cluster, adopted: bool | None, expected: bool
) -> None:
    restate(cluster, "docs", {**INDEX_STATUS, "adopted": adopted})
    assert (await cluster.gather(copying(cluster))).spec.store.made_for_us is expected


async def test_jobs_that_write_elsewhere_in_the_index_are_no_rivals(cluster: Cluster) -> None:
    first = cluster.job("first", sourceName="docs")
    second = cluster.job("second", sourceName="docs", indexNamespace="mine")
    third = cluster.job("third", sourceName="more", indexNamespace="mine")
    assert (await cluster.gather(first)).spec.store.sole_writer is True
    store = (await cluster.gather(second)).spec.store
    assert (store.sole_writer, store.other_sources, store.namespace) == (False, ["more"], "mine")
    assert (await cluster.gather(third)).spec.store.other_sources == ["docs"]
    assert (await cluster.refused(cluster.job("zz", sourceName="docs", indexNamespace="mine"))).reason == (
        "SourceNameTaken"
    )


# -- refused --
@pytest.mark.parametrize(
    ("changed", "kind", "reason"),
    [
        ({"dimension": 5}, Terminal, "WrongDimension"),
        ({"metric": "cosine"}, Terminal, "WrongMetric"),
        ({"modelFingerprint": "another"}, Conflict, "ModelMismatch"),
    ],
)
async def test_another_vector_space_is_refused(
    cluster: Cluster, changed: dict[str, Any], kind: type[Exception], reason: str
) -> None:
    restate(cluster, "docs", {**INDEX_STATUS, "modelFingerprint": "f", **changed})
    error = await cluster.refused(copying(cluster))
    assert isinstance(error, kind)
    assert error.reason == reason
    assert "VectorIndex old" in error.message
    assert "VectorIndex docs" in error.message


async def test_one_index_under_two_names_is_not_copied_onto_itself(cluster: Cluster) -> None:
    restate(cluster, "old", {**OLD_STATUS, "backendId": "b1", "physicalName": "docs-g1"})
    assert (await cluster.refused(copying(cluster, indexNamespace="tenant"))).reason == "CopyOntoItself"
    await cluster.gather(copying(cluster, indexNamespace="another"))


async def test_two_copies_into_one_index_do_not_delete_what_the_other_brings(cluster: Cluster) -> None:
    copying(cluster, "first", metadata={"creationTimestamp": "2026-01-01T00:00:00Z"})
    later = {"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}}
    await cluster.gather(copying(cluster, "second", **later))
    error = await cluster.refused(copying(cluster, "third", sync={"mode": "Sync"}, **later))
    assert error.reason == "SeveralCopies"


async def test_a_source_that_is_not_ready_is_waited_for(cluster: Cluster) -> None:
    restate(cluster, "old", WAITING)
    error = await cluster.refused(copying(cluster))
    assert isinstance(error, Retryable)
    assert error.reason == "IndexNotReady"
    assert list(vectorindex.CONTROLLER.dependents(cluster.context, Key("VectorIndex", NAMESPACE, "old"))) == [
        Key("IngestionJob", NAMESPACE, "copy")
    ]
    error = await cluster.refused(cluster.job(source={"vectorIndex": {"name": "absent"}}))
    assert (error.reason, isinstance(error, Retryable)) == ("IndexNotFound", True)


# -- limits --
async def test_a_copy_takes_its_share_of_both_stores(cluster: Cluster) -> None:
    limited = {"limits": {"requestsPerSecond": 12}}
    cluster.put("VectorStore", "elsewhere", {"chroma": {"url": "http://elsewhere:8000"}, **limited}, READY)
    names = {"first": copying(cluster, "first"), "fill": cluster.job("fill", sourceName="more")}
    for name, job in names.items():
        inputs = await cluster.gather(job)
        cluster.context.runs[Key("IngestionJob", NAMESPACE, name)] = (inputs.backend_id, inputs.spec)
    copy = Key("IngestionJob", NAMESPACE, "first")
    assert share(cluster.context, copy) == WorkerBudget(source_requests_per_second=12.0)
    cluster.context.runs[Key("IngestionJob", NAMESPACE, "second")] = cluster.context.runs[copy]
    assert share(cluster.context, copy) == WorkerBudget(source_requests_per_second=6.0)
    # Another job writes to the store that these two read from.
    writer = cluster.context.runs[Key("IngestionJob", NAMESPACE, "fill")][1]
    cluster.context.runs[Key("IngestionJob", NAMESPACE, "fill")] = ("b0", writer)
    assert share(cluster.context, copy) == WorkerBudget(source_requests_per_second=4.0)
    assert share(cluster.context, Key("IngestionJob", NAMESPACE, "fill")) == WorkerBudget(requests_per_second=4.0)


async def test_reads_keep_to_the_limit_of_the_source_and_take_its_grants() -> None:
    pair = await Pair.make(MemoryStore(), MemoryStore(), sourceStore={"requestsPerSecond": 50})
    run = pair.prepare()
    assert (run.limits.source_requests.rate, run.limits.requests.rate) == (50, None)
    run.limits.grant({"sourceRequestsPerSecond": 5})
    assert run.limits.source.requests.rate == 5


# -- through the control loop --
@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
async def world(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with World(runners=workers.runners()) as made:
        monkeypatch.setattr(sessions, "open_store", made.open_store)
        made.backend()
        made.add_store()
        made.add_index("docs")
        made.add_index("old")
        await made.settle()
        yield made


@pytest.mark.parametrize(
    "spec",
    [
        {"source": {"vectorIndex": {"name": "old"}}, "indexNamespace": "tenant"},
        {"source": {"vectorIndex": {"name": "old", "indexNamespace": "tenant"}}},
    ],
    ids=["of the index", "of the source"],
)
async def test_a_namespace_that_the_store_cannot_have_starts_no_run(
    world: World, workers: Workers, spec: dict[str, Any]
) -> None:
    world.api.apply(resource("IngestionJob", "fill", {"indexRef": {"name": "docs"}, **spec}))
    await world.settle()
    assert conditions(world)["Stalled"] == ("True", "UnsupportedNamespace")
    assert "'tenant'" in message(world)
    assert (workers.log, status(world)["phase"]) == ([], "Failed")
    assert "run" not in status(world)


async def test_a_copy_starts_and_its_result_is_recorded(world: World, workers: Workers) -> None:
    spec = {"indexRef": {"name": "docs"}, "source": {"vectorIndex": {"name": "old"}}}
    world.api.apply(resource("IngestionJob", "fill", spec))
    await world.settle()
    assert workers.handed[0].spec.source_store is not None
    assert workers.handed[0].spec.store.made_for_us is True
    workers.tell(Phase.SUCCEEDED, counts={"vectors_written": 3}, verification="Exact")
    world.driver.queue.add(Key("IngestionJob", NAMESPACE, "fill"))
    await world.settle()
    assert (status(world)["phase"], status(world)["verification"]) == ("Succeeded", "Exact")


async def test_an_index_that_is_only_observed_can_be_copied(world: World, workers: Workers) -> None:
    made = await world.backend().create_index(IndexDefinition("found", 4, "cosine"))
    await world.tick()
    world.add_index("seen", indexName="found", managementPolicy="Observe")
    await world.settle()
    spec = {"indexRef": {"name": "docs"}, "source": {"vectorIndex": {"name": "seen"}}}
    world.api.apply(resource("IngestionJob", "fill", spec))
    await world.settle()
    assert workers.handed, message(world)
    origin = workers.handed[0].spec.source_store
    assert origin is not None
    assert (origin.index, origin.incarnation, origin.dimension) == ("found", made.incarnation, 4)


# -- the real worker --
async def test_a_worker_copies_between_stores_with_the_credentials_of_each(
    start_worker: StartWorker, store_server: StoreServer
) -> None:
    settings = {"server": store_server.url, "path": "copy-inputs"}
    connection = Connection("lance", settings, credentials=StoreCredentials(token=store_server.token))
    records = some(20)
    async with open_store(connection) as store:
        made = [await store.create_index(IndexDefinition(name, 8, "cosine")) for name in (SOURCE, TARGET)]
        await put(store, SOURCE, records)
        places = [
            {"provider": "lance", "settings": settings, "index": one.name, "incarnation": one.incarnation,
             "dimension": 8, "metric": "cosine"}
            for one in made
        ]  # fmt: skip
        run = {
            "runId": "copy-1", "job": "team/copy", "sourceName": "team/copy",
            "source": {"vectorIndex": {"name": "old"}}, "store": places[1], "sourceStore": places[0],
        }  # fmt: skip
        files = {f"credentials/{use}/token": store_server.token for use in ("store", "source_store")}
        worker = start_worker(run, files=files)
        assert worker.wait() == EXIT_SUCCESS, worker.log
        assert (worker.state.phase, worker.state.counts.vectors_written) == (Phase.SUCCEEDED, 20)
        assert described((await all_of(store, TARGET)).values()) == described(records)
        without = start_worker(run, files={"credentials/store/token": store_server.token})
        without.wait()
        assert without.state.reason == "AccessDenied"
