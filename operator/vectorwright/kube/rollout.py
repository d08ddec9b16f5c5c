"""Whether a rolling restart is through: no pod of the old template is left, and those of the new one are available."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vectorwright.errors import NotFound, Terminal

from .client import KubeClient, Object
from .resources import PODS
from .workloads import (
    FIELD_MANAGER,
    RESTART_ANNOTATION,
    RIGHTS_COMPONENT,
    WORKLOADS,
    WorkloadName,
    carries,
    explained,
    label_selector,
    name_of,
    refusal,
    rival_of,
    template_revision,
)

LIVING = "status.phase!=Succeeded,status.phase!=Failed"
"""Field selector of pods whose containers may still run, terminating ones included."""

_NAMED = 3
"""Pods that a message names."""
_LONGEST_NAME = 253
_REASON = re.compile(r"[A-Z][A-Za-z]{1,63}")


@dataclass(frozen=True, slots=True)
class RolloutProgress:
    """How far a restart has come."""

    done: bool
    message: str
    """What is there, or what is waited for, with the workload's name."""
    failed: str | None = None
    """Why it will not end by itself, and where to look. It may end all the same once somebody mends it."""
    reverted: bool = False
    """The template does not carry the revision (any more): somebody else wrote it after the restart."""


async def progress(
    client: KubeClient, workload_name: WorkloadName, revision: str, *, annotation: str = RESTART_ANNOTATION
) -> RolloutProgress:
    """How far the restart of a workload with that revision has come.

    A workload that no longer exists is done. Raises Terminal (``RestartTargetForbidden``, ``PodsForbidden``) and
    Retryable.
    """
    try:
        workload = await client.get(WORKLOADS[workload_name.kind], workload_name.name, workload_name.namespace)
    except NotFound:
        return RolloutProgress(True, f"{workload_name} no longer exists")
    except Terminal as error:
        raise explained(error, workload_name.namespace) from None
    # After the workload: a pod that is made between the two calls is of the template that was just read, or newer.
    pods = await living_pods(client, workload, revision, annotation)
    return judge(workload, pods, revision, annotation)


async def living_pods(
    client: KubeClient, workload: Object, revision: str, annotation: str = RESTART_ANNOTATION
) -> list[Object]:
    """The workload's living pods that matter: those of another revision or not ready; all, when it is being deleted."""
    namespace, going = workload["metadata"]["namespace"], bool(workload["metadata"].get("deletionTimestamp"))
    try:
        return await client.list(
            PODS,
            namespace,
            label_selector=label_selector(workload["spec"].get("selector")),
            field_selector=LIVING,
            keep=lambda pod: (
                belongs(pod, workload)
                and (going or not carries(pod_revision(pod, annotation), revision) or not _is_ready(pod))
            ),
        )
    except Terminal as error:
        raise pods_forbidden(error, namespace) from None


def pods_forbidden(error: Terminal, namespace: str) -> Terminal:
    """A 403 of a list of pods, told as the right that is wanting; anything else as it is."""
    if error.reason != "Forbidden":
        return error
    return Terminal(
        f"the operator may not list pods in namespace {namespace}, and cannot tell which of them still use an "
        f"earlier key: apply the Role of {RIGHTS_COMPONENT} there (list on pods)",
        reason="PodsForbidden",
    )


def belongs(pod: Object, workload: Object) -> bool:
    """Whether the workload made the pod. Selectors may overlap, so the pod's owner decides.

    A Deployment's pods have a ReplicaSet as their owner, whose name is made of the Deployment's and of the hash in the
    pod's label: that one may be gone before its last pods are.
    """
    name, owner = name_of(workload), controller(pod)
    if owner is None or not str(owner.get("apiVersion", "")).startswith("apps/"):
        return False
    if name.kind != "Deployment":
        return bool(owner["kind"] == name.kind and owner["name"] == name.name)
    digest = (pod["metadata"].get("labels") or {}).get("pod-template-hash", "")
    start = name.name[: _LONGEST_NAME - 1 - len(digest)]
    return bool(owner["kind"] == "ReplicaSet" and digest and owner["name"] == f"{start}-{digest}")


def controller(pod: Object) -> Object | None:
    """The owner reference of what manages the pod, if anything does."""
    references: Iterable[Object] = pod["metadata"].get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller")), None)


def pod_revision(pod: Object, annotation: str = RESTART_ANNOTATION) -> str | None:
    """The annotation's value on the template that the pod was made from; None without one."""
    revision = (pod["metadata"].get("annotations") or {}).get(annotation)
    return revision if isinstance(revision, str) else None


def _is_ready(pod: Object) -> bool:
    return any(item["type"] == "Ready" and item["status"] == "True" for item in _conditions(pod))


def _conditions(item: Object) -> Sequence[Object]:
    return (item.get("status") or {}).get("conditions") or ()


def has_ended(pod: Object) -> bool:
    """Whether all its containers have ended for good."""
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


@dataclass(frozen=True, slots=True)
class _Counts:
    """Pods of a workload, as its controller counted them. ``total`` does not count terminating ones."""

    desired: int
    total: int
    updated: int
    available: int

    @property
    def complete(self) -> bool:
        return self.total == self.updated == self.desired <= self.available


def _counts(workload: Object) -> _Counts:
    spec, status = workload["spec"], workload.get("status") or {}

    def count(key: str) -> int:
        return int(status.get(key) or 0)

    if workload["kind"] == "DaemonSet":
        desired = count("desiredNumberScheduled")
        # Pods on nodes where none should be are not in its counts; the list of pods has them.
        return _Counts(desired, desired, count("updatedNumberScheduled"), count("numberAvailable"))
    replicas = spec.get("replicas")
    desired = 1 if replicas is None else int(replicas)
    available = count("availableReplicas")
    if workload["kind"] == "StatefulSet" and "availableReplicas" not in status and not spec.get("minReadySeconds"):
        available = count("readyReplicas")
    return _Counts(desired, count("replicas"), count("updatedReplicas"), available)


def judge(
    workload: Object, pods: Iterable[Object], revision: str, annotation: str = RESTART_ANNOTATION
) -> RolloutProgress:
    """The progress, from a workload and its pods: at least those that are of another revision or not ready.

    ``done``: its controller has seen the template with the revision, all pods that are wanted are of it and available,
    and no other pod is left. What the HorizontalPodAutoscaler changes meanwhile counts at once.
    """
    name = name_of(workload)
    living = [pod for pod in pods if belongs(pod, workload) and not has_ended(pod)]
    if workload["metadata"].get("deletionTimestamp"):
        told = _those(living, "still there")
        return RolloutProgress(not living, f"{name} is being deleted" + (f"; {told}" if told else ""))
    if not carries(found := template_revision(workload, annotation), revision):
        return _reverted(workload, revision, found)
    old = [pod for pod in living if not carries(pod_revision(pod, annotation), revision)]
    new = [pod for pod in living if carries(pod_revision(pod, annotation), revision)]
    counts, seen = _counts(workload), _is_seen(workload)
    if seen and counts.complete and not old:
        return RolloutProgress(True, f"{name}: all {counts.desired} pods are of the new template and available")
    obstacle = refusal(workload)
    if obstacle is not None:
        return RolloutProgress(False, obstacle, failed=obstacle)
    if not seen:
        return RolloutProgress(False, f"{name}: its controller has not seen the restart yet")
    message = f"{name}: {_told(counts, old, new)}"
    return RolloutProgress(False, message, failed=_failure(workload, message))


def _is_seen(workload: Object) -> bool:
    observed = (workload.get("status") or {}).get("observedGeneration") or 0
    return int(observed) >= int(workload["metadata"].get("generation") or 0)


def _reverted(workload: Object, revision: str, found: str | None) -> RolloutProgress:
    name, rival = name_of(workload), rival_of(found, revision)
    carried = "no revision" if rival is None else f"revision {rival[:_LONGEST_NAME]}"
    message = f"{name}: its pod template carries {carried} of the key instead of {revision}"
    writer = _last_writer(workload)
    if writer is not None:
        message += f"; field manager {writer} wrote the workload last"
    return RolloutProgress(False, message, reverted=True)


def _last_writer(workload: Object) -> str | None:
    """The field manager other than ours that wrote the pod template last."""
    entries = [
        entry
        for entry in workload["metadata"].get("managedFields") or ()
        if not entry.get("subresource")
        and entry.get("manager") != FIELD_MANAGER
        and "f:template" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    latest = max(entries, key=lambda entry: str(entry.get("time") or ""), default=None)
    return None if latest is None else str(latest.get("manager"))[:128]


def _failure(workload: Object, message: str) -> str | None:
    for condition in _conditions(workload):
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            limit = workload["spec"].get("progressDeadlineSeconds") or 600
            return f"{message} (ProgressDeadlineExceeded: no progress for {limit} s; look at its new pods)"
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return f"{message} ({_reason(condition) or 'ReplicaFailure'}: look at the events of its ReplicaSets)"
    return None


def _told(counts: _Counts, old: Sequence[Object], new: Sequence[Object]) -> str:
    """What is there and what is waited for."""
    parts = [f"{counts.updated} of {counts.desired} pods are of the new template, {counts.available} available"]
    going = [pod for pod in old if pod["metadata"].get("deletionTimestamp")]
    staying = [pod for pod in old if not pod["metadata"].get("deletionTimestamp")]
    waiting = [pod for pod in new if not _is_ready(pod) and not pod["metadata"].get("deletionTimestamp")]
    parts.append(_those(going, "still terminating", of="of the old one "))
    parts.append(_those(staying, "still there", of="of the old one "))
    parts += [
        _those([pod for pod in waiting if _trouble(pod) == reason], f"not ready{reason}")
        for reason in dict.fromkeys(_trouble(pod) for pod in waiting)
    ]
    return "; ".join(part for part in parts if part)


def _those(pods: Sequence[Object], state: str, *, of: str = "") -> str:
    """ "pod a of the old one is still there", "pods a, b, c and 4 more are not ready"; empty for none."""
    if not pods:
        return ""
    names = sorted(pod["metadata"]["name"] for pod in pods)
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return f"{'pod' if len(names) == 1 else 'pods'} {shown} {of}{'is' if len(names) == 1 else 'are'} {state}"


def _trouble(pod: Object) -> str:
    """Why a pod is not ready, in a word of the scheduler's or the kubelet's: " (Unschedulable)". Empty without one."""
    status = pod.get("status") or {}
    for condition in _conditions(pod):
        if condition["type"] == "PodScheduled" and condition["status"] == "False" and _reason(condition):
            return f" ({_reason(condition)})"
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if _reason(waiting):
            return f" ({_reason(waiting)})"
    return ""


def _reason(item: Object) -> str:
    reason = item.get("reason")
    return reason if isinstance(reason, str) and _REASON.fullmatch(reason) else ""
