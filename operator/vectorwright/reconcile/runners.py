"""Where workers run: a Kubernetes Job, or a child of the operator."""

from __future__ import annotations

from collections.abc import Callable

from vectorwright.api.v1alpha1.ingestionjob import IngestionJob, RunnerType
from vectorwright.errors import Terminal
from vectorwright.kube.client import KubeClient
from vectorwright.settings import Settings

from .runner_base import Runner
from .runner_child import ChildRunner
from .runner_job import JobRunner


class Runners:
    """The runners of this installation."""

    def __init__(self, settings: Settings, client: KubeClient, wake: Callable[[str, str], None]) -> None:
        """``wake(namespace, job)`` is called when a child process ended."""
        self._settings = settings
        self._runners: dict[RunnerType, Runner] = {
            RunnerType.JOB: JobRunner(client, settings.worker_image, settings.worker_service_account),
            RunnerType.IN_PROCESS: ChildRunner(wake),
        }

    def get(self, kind: RunnerType) -> Runner:
        """The runner of a kind, for a run that exists already."""
        return self._runners[kind]

    def choose(self, job: IngestionJob) -> RunnerType:
        """The kind of runner that a job asks for. Raises Terminal when the installation does not allow it."""
        kind = (job.spec.runner.type if job.spec.runner else None) or RunnerType.JOB
        if kind is RunnerType.IN_PROCESS and not self._settings.allow_in_process:
            raise Terminal(
                "spec.runner.type InProcess is not allowed here: use Job, or start the operator with "
                "--allow-in-process (for trials: the worker shares the operator's machine)",
                reason="InProcessNotAllowed",
            )
        if kind is RunnerType.JOB and not self._settings.worker_image:
            raise Terminal("spec.runner.type Job needs the operator's --worker-image", reason="WorkerImageMissing")
        return kind

    async def stop_all(self) -> None:
        """Stop what must not outlive this process."""
        for runner in self._runners.values():
            await runner.stop_all()
