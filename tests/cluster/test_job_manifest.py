"""The Job of a run, and the runner that starts and reads it, on a real API server with its controllers.

What is checked: accepted as it stands and with everything set, also under the restricted pod security standard; the Job
controller makes its pod, with the files where a worker looks for them; any name of an IngestionJob works; started twice
is started once; how a pod ended is read; stopped and deleted leaves nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from deploy.devcluster import Cluster
from tests.support.runs import SECRET_VALUE, ingestion_job, run_inputs, run_spec

from vectorwright.api.v1alpha1 import IngestionJob
from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import NotFound, Terminal
from vectorwright.ingest.runspec import RunSpec, RunState, StoreTarget
from vectorwright.kube.client import KubeClient
from vectorwright.kube.connection import load_connection
from vectorwright.kube.resources import INGESTION_JOBS, JOBS, PODS
from vectorwright.reconcile.job_manifest import RUN_ANNOTATION, ingestion_job_of, worker_job
from vectorwright.reconcile.runner_job import JobRunner
from vectorwright.reconcile.triggers import Trigger, run_id

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]

EVERYTHING: dict[str, Any] = {
    "runner": {
        "resources": {"requests": {"memory": "4Gi"}, "limits": {"cpu": "2"}},
        "serviceAccountName": "default",
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
    }
}
HARD_NAMES = ["docs", "docs.v2", "d" * 63, "a" * 253, f"{'b' * 38}.{'-'.join(['c'] * 40)}", "1.2.3"]


@pytest.fixture
async def client(devcluster: Cluster) -> AsyncIterator[KubeClient]:
    async with KubeClient(load_connection(devcluster.kubeconfig)) as opened:
        yield opened


@pytest.fixture
def runner(client: KubeClient) -> JobRunner:
    return JobRunner(client, "none.invalid/vectorwright:1", None)


async def stored(client: KubeClient, namespace: str, name: str = "docs", **spec: Any) -> IngestionJob:
    """An IngestionJob that the API server has: its uid is what owns the Job."""
    wanted = ingestion_job(name, namespace, **spec)
    body = await client.create(INGESTION_JOBS, {"metadata": {"name": name}, "spec": wanted.spec.dump()}, namespace)
    return IngestionJob.model_validate(body)


async def pods_of(client: KubeClient, namespace: str, name: str) -> list[dict[str, Any]]:
    for _ in range(200):
        found = await client.list(PODS, namespace, label_selector=f"batch.kubernetes.io/job-name={name}")
        if found:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"no pod of job {name} came in 20 s")


def restrict(devcluster: Cluster, namespace: str) -> None:
    devcluster.kubectl_run("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")


@pytest.mark.parametrize("spec", [{}, EVERYTHING], ids=["plain", "everything set"])
def test_it_is_accepted_as_it_stands_with_no_field_unknown(
    devcluster: Cluster, namespace: str, spec: dict[str, Any]
) -> None:
    manifest = worker_job(
        ingestion_job("docs", namespace, **spec), "docs-1", run_inputs(), image="img:1", service_account="default"
    )
    told = devcluster.kubectl_run(
        "create", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-", "-o", "json",
        input=json.dumps(manifest),
    )  # fmt: skip
    kept = json.loads(told)
    assert kept["spec"]["podReplacementPolicy"] == "Failed"
    assert kept["spec"]["podFailurePolicy"]["rules"] == manifest["spec"]["podFailurePolicy"]["rules"]
    assert kept["spec"]["backoffLimitPerIndex"] == 3


async def test_the_controller_makes_a_pod_with_the_workers_files(
    devcluster: Cluster, client: KubeClient, runner: JobRunner, namespace: str
) -> None:
    """Under the restricted standard of pod security: nothing in it asks for rights."""
    restrict(devcluster, namespace)
    job = await stored(client, namespace, **EVERYTHING)
    await runner.start(job, "docs-1", run_inputs())
    (pod,) = await pods_of(client, namespace, "docs-1")
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert all(not volume["name"].startswith("kube-api-access") for volume in spec["volumes"]), "a token is mounted"
    sources = next(volume for volume in spec["volumes"] if volume["name"] == "run")["projected"]["sources"]
    assert [next(iter(source)) for source in sources] == ["downwardAPI", "secret", "secret", "configMap"]
    assert RunSpec.model_validate_json(pod["metadata"]["annotations"][RUN_ANNOTATION]) == run_spec()
    assert SECRET_VALUE not in json.dumps(pod)
    look = await runner.look(namespace, "docs-1")
    assert (look.exists, look.finished) == (True, False)
    body = await client.get(JOBS, "docs-1", namespace)
    assert ingestion_job_of(body) == "docs"


@pytest.mark.parametrize("name", HARD_NAMES, ids=lambda name: f"{name[:12]}… ({len(name)})")
async def test_any_name_that_the_api_server_takes_runs(
    client: KubeClient, runner: JobRunner, namespace: str, name: str
) -> None:
    job = await stored(client, namespace, name)
    run = f"{run_id(job, Trigger('generation-1-i1', {}))}-1000000"
    await runner.start(job, run, run_inputs())
    (pod,) = await pods_of(client, namespace, run)
    assert pod["spec"]["hostname"] == f"{run}-0"
    assert ingestion_job_of(await client.get(JOBS, run, namespace)) == name


async def test_started_twice_is_started_once(client: KubeClient, runner: JobRunner, namespace: str) -> None:
    job = await stored(client, namespace)
    await runner.start(job, "docs-1", run_inputs())
    first = await client.get(JOBS, "docs-1", namespace)
    await runner.start(job, "docs-1", run_inputs())
    assert (await client.get(JOBS, "docs-1", namespace))["metadata"]["uid"] == first["metadata"]["uid"]
    assert len(await pods_of(client, namespace, "docs-1")) == 1


async def test_a_store_that_pods_cannot_reach_is_refused_in_words(runner: JobRunner, namespace: str) -> None:
    beside = StoreTarget(
        provider="lance",
        settings={"path": "docs", "server": "unix:///run/lance.sock"},
        index="docs",
        incarnation="i1",
        dimension=4,
        metric="cosine",
    )
    with pytest.raises(Terminal) as caught:
        await runner.start(ingestion_job("docs", namespace), "docs-1", run_inputs(run_spec(store=beside)))
    assert caught.value.reason == "StoreNotReachableFromPods"


async def test_resources_that_are_none_are_the_api_servers_to_refuse(
    client: KubeClient, runner: JobRunner, namespace: str
) -> None:
    job = await stored(client, namespace, runner={"resources": {"limits": {"memory": "lots"}}})
    with pytest.raises(Terminal, match=r"quantities must match|must be valid|unmarshal"):
        await runner.start(job, "docs-1", run_inputs())


# -- how it ended: the pod's status is written as its kubelet would --
async def end_pod(client: KubeClient, namespace: str, pod: dict[str, Any], **terminated: Any) -> None:
    status = {
        "phase": "Failed" if terminated.get("exitCode") else "Succeeded",
        "containerStatuses": [
            {
                "name": "worker", "image": "img", "imageID": "", "ready": False, "restartCount": 0, "started": False,
                "state": {"terminated": {"startedAt": _now(), "finishedAt": _now(), **terminated}},
            }
        ],
    }  # fmt: skip
    await client.patch(PODS, pod["metadata"]["name"], namespace, {"status": status}, subresource="status")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


async def ended(runner: JobRunner, namespace: str, name: str) -> Any:
    for _ in range(300):
        look = await runner.look(namespace, name)
        if look.finished:
            return look
        await asyncio.sleep(0.1)
    raise AssertionError("the Job did not end in 30 s")


def told(phase: Phase, **more: Any) -> str:
    return RunState(run_id="docs-0123456789", phase=phase, **more).model_dump_json(by_alias=True, exclude_none=True)


async def test_a_result_is_read_from_the_pod(client: KubeClient, runner: JobRunner, namespace: str) -> None:
    job = await stored(client, namespace)
    await runner.start(job, "docs-1", run_inputs())
    (pod,) = await pods_of(client, namespace, "docs-1")
    await end_pod(
        client, namespace, pod, exitCode=0, reason="Completed", message=told(Phase.SUCCEEDED, verification="Exact")
    )
    look = await ended(runner, namespace, "docs-1")
    assert look.state == RunState(run_id="docs-0123456789", phase=Phase.SUCCEEDED, verification="Exact")
    assert look.died is None


async def test_an_end_that_only_a_person_can_change_starts_no_second_pod(
    client: KubeClient, runner: JobRunner, namespace: str
) -> None:
    job = await stored(client, namespace)
    await runner.start(job, "docs-1", run_inputs())
    (pod,) = await pods_of(client, namespace, "docs-1")
    message = told(Phase.FAILED, reason="BudgetExceeded", message="too many documents")
    await end_pod(client, namespace, pod, exitCode=3, reason="Error", message=message)
    look = await ended(runner, namespace, "docs-1")
    assert look.state is not None
    assert (look.state.phase, look.state.reason, look.state.retryable) == (Phase.FAILED, "BudgetExceeded", False)
    assert len(await pods_of(client, namespace, "docs-1")) == 1


async def test_a_pod_that_ran_out_of_memory_says_what_to_raise(
    client: KubeClient, runner: JobRunner, namespace: str
) -> None:
    """After its last try: before that, Kubernetes starts it again by itself."""
    job = await stored(client, namespace)
    manifest = worker_job(job, "docs-1", run_inputs(), image="img:1")
    manifest["spec"]["backoffLimitPerIndex"] = 0
    await client.create(JOBS, manifest, namespace)
    (pod,) = await pods_of(client, namespace, "docs-1")
    await end_pod(client, namespace, pod, exitCode=137, reason="OOMKilled")
    look = await ended(runner, namespace, "docs-1")
    assert look.state is None
    assert look.died == "the worker ran out of memory: raise spec.runner.resources.limits.memory"


async def test_a_run_over_its_deadline_is_ended_by_kubernetes(
    client: KubeClient, runner: JobRunner, namespace: str
) -> None:
    job = await stored(client, namespace)
    manifest = worker_job(job, "docs-1", run_inputs(), image="img:1")
    manifest["spec"]["activeDeadlineSeconds"] = 1
    await client.create(JOBS, manifest, namespace)
    look = await ended(runner, namespace, "docs-1")
    assert look.died == "Job was active longer than specified deadline"


async def test_stopped_leaves_nothing_and_stopping_nothing_is_fine(
    client: KubeClient, runner: JobRunner, namespace: str
) -> None:
    assert (await runner.look(namespace, "docs-1")).exists is False
    await runner.stop(namespace, "docs-1")
    job = await stored(client, namespace)
    await runner.start(job, "docs-1", run_inputs())
    await pods_of(client, namespace, "docs-1")
    await runner.stop(namespace, "docs-1")
    for _ in range(200):
        pods = await client.list(PODS, namespace)
        look = await runner.look(namespace, "docs-1")
        if not pods and not look.exists:
            break
        await asyncio.sleep(0.1)
    assert pods == []
    assert not look.exists


async def test_a_job_goes_with_its_ingestionjob(client: KubeClient, runner: JobRunner, namespace: str) -> None:
    job = await stored(client, namespace)
    await runner.start(job, "docs-1", run_inputs())
    await client.delete(INGESTION_JOBS, "docs", namespace)
    for _ in range(300):
        try:
            await client.get(JOBS, "docs-1", namespace)
        except NotFound:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the garbage collector did not take the Job in 30 s")
