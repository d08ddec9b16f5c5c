"""Workers as Kubernetes Jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from vectorwright.api.v1alpha1.ingestionjob import IngestionJob
from vectorwright.errors import Conflict, NotFound, Terminal
from vectorwright.ingest.runspec import RunState
from vectorwright.kube import resources
from vectorwright.kube.client import KubeClient

from .handover import RunFile, RunInputs
from .job_manifest import PROGRESS_PORT, worker_job
from .runner_base import Look, WorkerBudget
from .worker_exchange import exchange


class JobRunner:
    """Starts one Indexed Job a run and reads its pods."""

    def __init__(self, client: KubeClient, image: str | None, service_account: str | None) -> None:
        self._client = client
        self._image = image
        self._service_account = service_account

    async def start(self, job: IngestionJob, name: str, inputs: RunInputs) -> None:
        """Create the Job; one that exists is the same run. Raises Terminal where a pod could not reach the store."""
        places = (inputs.spec.store, inputs.spec.source_store)
        if any(place and str(place.settings.get("server", "")).startswith("unix:") for place in places):
            raise Terminal(
                "this store runs beside the operator, where pods cannot reach it: set spec.runner.type: InProcess, or "
                "give the VectorStore a server",
                reason="StoreNotReachableFromPods",
            )
        manifest = worker_job(job, name, inputs, image=self._image or "", service_account=self._service_account)
        try:
            await self._client.create(resources.JOBS, manifest, job.metadata.namespace)
        except Conflict as conflict:
            if conflict.reason != "AlreadyExists":
                raise

    async def look(self, namespace: str, name: str, budget: WorkerBudget | None = None) -> Look:
        """Look at the Job and, where it runs or ended, at its newest pod."""
        try:
            body = await self._client.get(resources.JOBS, name, namespace)
        except NotFound:
            return Look(exists=False)
        if body["metadata"].get("deletionTimestamp"):
            return Look(exists=True)
        ended = _ended(body)
        pods = await self._client.list(resources.PODS, namespace, label_selector=f"batch.kubernetes.io/job-name={name}")
        pods.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
        if ended is not None:
            return _result(pods, ended)
        running = [pod for pod in pods if pod.get("status", {}).get("phase") == "Running"]
        address = running[-1]["status"].get("podIP") if running else None
        if not address:
            return Look(exists=True)
        host = f"[{address}]" if ":" in address else address
        return Look(exists=True, state=await exchange(f"http://{host}:{PROGRESS_PORT}", budget))

    async def renew(self, namespace: str, name: str, files: Sequence[RunFile]) -> bool:
        """Nothing: the kubelet writes Secrets that changed into the pod's volume, within two minutes."""
        return False

    async def stop(self, namespace: str, name: str) -> None:
        """Delete the Job with its pods."""
        try:
            await self._client.delete(resources.JOBS, name, namespace, propagation="Background")
        except NotFound:
            return

    async def stop_all(self) -> None:
        """Nothing: Jobs go on without the operator."""


def _ended(body: dict[str, Any]) -> str | None:
    """How the Job ended, as Kubernetes says it; None while it has not."""
    for item in body.get("status", {}).get("conditions") or ():
        if item["type"] in ("Complete", "Failed") and item["status"] == "True":
            return str(item.get("message") or item.get("reason") or item["type"])
    return None


def _result(pods: list[dict[str, Any]], ended: str) -> Look:
    """The newest result that a pod left as its termination message."""
    told: list[str] = []
    for pod in reversed(pods):
        status = pod.get("status", {})
        for container in status.get("containerStatuses") or ():
            terminated = container.get("state", {}).get("terminated") or {}
            if terminated.get("reason") == "OOMKilled":
                told.append("the worker ran out of memory: raise spec.runner.resources.limits.memory")
            try:
                state = RunState.model_validate_json(terminated.get("message") or "")
            except ValidationError:
                continue
            return Look(exists=True, finished=True, state=state)
        told += [text for text in (status.get("message"), status.get("reason")) if text]
    return Look(exists=True, finished=True, died=told[0] if told else ended)
