"""The workload that runs a Qdrant server: whether it can be restarted without a request being refused, and restarting
it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vectorwright.api.v1alpha1.common import GROUP
from vectorwright.errors import Retryable, Terminal
from vectorwright.kube.client import KubeClient, Object
from vectorwright.kube.rollout import progress
from vectorwright.kube.secret_users import refers_to
from vectorwright.kube.tenure import process_tenure
from vectorwright.kube.workloads import Target, WorkloadName, find_workloads, refusal, restart

ANNOTATION = f"{GROUP}/server-keys-change"
"""On the server's pod template: apart from that of restarts of those who use a key."""
FIELD_MANAGER = "vectorwright-server-keys"
LOOK_AGAIN = 2.0
"""Seconds between two looks at a rollout: one takes minutes where replicas have data to load."""


class ServerWorkload:
    """The workload that ``spec.identity.qdrantServer`` names."""

    def __init__(self, client: KubeClient, identity: Mapping[str, Any], namespace: str) -> None:
        workload = identity["workload"]
        self.name = WorkloadName(workload["kind"], namespace, workload["name"])
        self._client = client
        self._secret = str(identity["secretName"])
        self._refusals_are_fine = bool(identity.get("allowSingleReplica"))

    async def find(self) -> Object:
        """The workload, where it can be restarted.

        Raises Terminal (``RestartTargetNotFound``, ``RestartTargetForbidden``, ``RestartTargetRefused``,
        ``TooFewReplicas``), Retryable.
        """
        target = Target(self.name.kind, self.name.namespace, name=self.name.name)
        (workload,) = await find_workloads(self._client, [target])
        if told := refusal(workload):
            raise Terminal(told, reason="RestartTargetRefused")
        if not refers_to(workload["spec"]["template"], self._secret):
            raise Terminal(
                f"{self.name} takes nothing from Secret {self._secret}: let its container have the server's keys from "
                "there (QDRANT__SERVICE__API_KEY and QDRANT__SERVICE__ALT_API_KEY)",
                reason="RestartTargetRefused",
            )
        if not self._refusals_are_fine and (told := _would_be_away(workload)):
            raise Terminal(
                f"{self.name} {told}: requests would be refused while it restarts; mend that, or set "
                "spec.identity.qdrantServer.allowSingleReplica",
                reason="TooFewReplicas",
            )
        return workload

    async def restarted(self, change: str) -> None:
        """Have every pod started since a change of the Secret. Raises Retryable (``InProgress``) until that is so,
        Terminal."""
        workload = await self.find()
        process_tenure().require()
        await restart(self._client, workload, change, annotation=ANNOTATION, field_manager=FIELD_MANAGER)
        state = await progress(self._client, self.name, change, annotation=ANNOTATION)
        if not state.done:
            raise Retryable(
                f"the server restarts with its new keys: {state.message}", reason="InProgress", after=LOOK_AGAIN
            )


def _would_be_away(workload: Object) -> str | None:
    """Why nobody answers for a moment when the workload is restarted; None where somebody always does."""
    spec = workload["spec"]
    replicas = spec.get("replicas")
    wanted = 1 if replicas is None else int(replicas)
    if wanted < 2:
        return f"has {wanted} replica{'' if wanted == 1 else 's'}, not 2 or more"
    strategy = spec.get("strategy" if workload["kind"] == "Deployment" else "updateStrategy") or {}
    if strategy.get("type") == "Recreate":
        return "ends all its pods before it starts new ones (Recreate)"
    unavailable = (strategy.get("rollingUpdate") or {}).get("maxUnavailable")
    if unavailable is not None and _share(unavailable, wanted) >= wanted:
        return f"may restart all its pods at once (maxUnavailable {unavailable})"
    containers = spec["template"]["spec"].get("containers") or ()
    if not any(container.get("readinessProbe") for container in containers):
        return "has no readiness probe, so that requests reach pods that do not answer yet"
    return None


def _share(amount: int | str, of: int) -> int:
    """A number of pods, or a percentage of them."""
    text = str(amount)
    return of * int(text.removesuffix("%")) // 100 if text.endswith("%") else int(text)
