"""Rolling restarts of Deployments, StatefulSets and DaemonSets, so that their pods read a Secret anew.

A restart is one annotation on the pod template, ``RESTART_ANNOTATION``, written by server-side apply under a field
manager that owns it and nothing else: whoever applies the workload's manifest, client-side or server-side, leaves it
alone, and it conflicts with nobody. Whether a rollout is through: :mod:`vectorwright.kube.rollout`. Which pods still
hold a Secret: :mod:`vectorwright.kube.secret_users`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal, VectorwrightError

from .client import KubeClient, Object
from .resources import DAEMON_SETS, DEPLOYMENTS, STATEFUL_SETS, ResourceType

RESTART_ANNOTATION = "vectorwright.dev/key-revision"
FIELD_MANAGER = "vectorwright-key-rotation"
RIGHTS_COMPONENT = "deploy/kustomize/components/key-rotation"
"""Where the Role is that restarts need, to be applied in each namespace where workloads may be restarted."""

WorkloadKind = Literal["Deployment", "StatefulSet", "DaemonSet"]
WORKLOADS: Mapping[WorkloadKind, ResourceType] = {
    "Deployment": DEPLOYMENTS,
    "StatefulSet": STATEFUL_SETS,
    "DaemonSet": DAEMON_SETS,
}

_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?", re.ASCII)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """Workloads of one kind in one namespace: the one of that ``name``, or all that have every one of ``match_labels``.

    Raises ValueError unless exactly one of the two is given; labels that are empty would mean every workload.
    """

    kind: WorkloadKind
    namespace: str
    name: str | None = None
    match_labels: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if bool(self.name) == bool(self.match_labels):
            raise ValueError("a restart target has either a name or labels")


@dataclass(frozen=True, slots=True, order=True)
class WorkloadName:
    """Which workload. As text: "Deployment team-a/search"."""

    kind: WorkloadKind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def name_of(workload: Object) -> WorkloadName:
    """The name of an object that :func:`find_workloads` returned."""
    metadata = workload["metadata"]
    return WorkloadName(workload["kind"], metadata["namespace"], metadata["name"])


async def find_workloads(client: KubeClient, targets: Iterable[Target]) -> list[Object]:
    """Every workload that the targets name, each once, ordered by kind, namespace and name.

    Labels that match nothing are no error. Raises Terminal (``RestartTargetNotFound`` for a name that does not exist,
    ``RestartTargetForbidden``, ``InvalidSpec`` for a label that cannot be one) and Retryable.
    """
    found: dict[WorkloadName, Object] = {}
    for target in targets:
        for workload in await _matching(client, target):
            found[name_of(workload)] = workload
    return [found[name] for name in sorted(found)]


async def _matching(client: KubeClient, target: Target) -> list[Object]:
    try:
        if target.name is None:
            selector = label_selector({"matchLabels": target.match_labels})
            return await client.list(WORKLOADS[target.kind], target.namespace, label_selector=selector)
        return [await client.get(WORKLOADS[target.kind], target.name, target.namespace)]
    except NotFound:
        missing = WorkloadName(target.kind, target.namespace, target.name or "")
        raise Terminal(
            f"{missing} does not exist: create it, or take it out of the restart targets",
            reason="RestartTargetNotFound",
        ) from None
    except Terminal as error:
        raise explained(error, target.namespace) from None


def explained(error: VectorwrightError, namespace: str) -> VectorwrightError:
    """A 403 for want of a right, told as the right that is wanting; anything else as it is."""
    # An admission webhook answers 403, too: only the authorizer's sentence says what a user "cannot" do.
    if not isinstance(error, Terminal) or error.reason != "Forbidden" or " cannot " not in error.message:
        return error
    return Terminal(
        f"the operator may not read and restart workloads in namespace {namespace}: apply the Role of "
        f"{RIGHTS_COMPONENT} there (get, list and patch on deployments, statefulsets and daemonsets of apps)",
        reason="RestartTargetForbidden",
    )


def label_selector(selector: Mapping[str, Any] | None) -> str:
    """A ``metav1.LabelSelector`` as the API server takes it in a list's query; empty for one that selects all.

    Raises Terminal (``InvalidSpec``) for what cannot be a label: a comma in a value would select something else.
    """
    given = selector or {}
    labels, expressions = given.get("matchLabels") or {}, given.get("matchExpressions") or []
    parts = [f"{_key(key)}={_value(value)}" for key, value in sorted(labels.items())]
    for expression in expressions:
        key, values = _key(expression["key"]), ",".join(_value(value) for value in expression.get("values") or ())
        match expression["operator"]:
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case "DoesNotExist":
                parts.append(f"!{key}")
            case other:
                raise Terminal(f"label selector: {other!r} is no operator", reason="InvalidSpec")
    return ",".join(parts)


def _key(key: str) -> str:
    if not _LABEL_KEY.fullmatch(key):
        raise Terminal(f"{key!r} cannot be the key of a label", reason="InvalidSpec")
    return key


def _value(value: str) -> str:
    if not _LABEL_VALUE.fullmatch(value):
        raise Terminal(f"{value!r} cannot be the value of a label", reason="InvalidSpec")
    return value


def refusal(workload: Object) -> str | None:
    """Why a rolling restart of it would never end, and what to change; None when it can be waited for."""
    name, spec = name_of(workload), workload["spec"]
    if name.kind == "Deployment":
        if spec.get("paused"):
            return f"{name} is paused, so that a restart would not begin: resume it (kubectl rollout resume)"
        return None
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return (
            f"{name} replaces a pod only when somebody deletes it (OnDelete): change spec.updateStrategy.type to "
            "RollingUpdate, or take it out of the restart targets and delete its pods by hand"
        )
    partition = (strategy.get("rollingUpdate") or {}).get("partition") if name.kind == "StatefulSet" else None
    if partition:
        return (
            f"{name} is partitioned, so that its pods below {partition} keep the old template: set "
            "spec.updateStrategy.rollingUpdate.partition to 0"
        )
    return None


def template_revision(workload: Object, annotation: str = RESTART_ANNOTATION) -> str | None:
    """The revision that the pod template carries; None without one."""
    metadata = (workload["spec"].get("template") or {}).get("metadata") or {}
    revision = (metadata.get("annotations") or {}).get(annotation)
    return revision if isinstance(revision, str) else None


async def restart(
    client: KubeClient,
    workload: Object,
    revision: str,
    *,
    annotation: str = RESTART_ANNOTATION,
    field_manager: str = FIELD_MANAGER,
) -> bool:
    """Set the revision on the workload's pod template, which makes its controller replace the pods.

    Returns False, and sends nothing, when the template carries that revision already or the workload is being deleted;
    False as well when it is gone. Whoever calls it again for a workload whose progress says ``reverted`` and gets True
    again is in a fight with another writer of the template, and should count such calls.

    Whoever restarts for another reason uses an ``annotation`` and a ``field_manager`` of its own: an apply takes away
    what the same manager had set and does not set again.

    Raises Terminal (``RestartTargetForbidden``; ``RestartRefused`` with the API server's words, when admission or
    validation refuses the change) and Retryable (``RestartTargetReplaced``: another one has its name now; find again).
    """
    name, metadata = name_of(workload), workload["metadata"]
    if template_revision(workload, annotation) == revision or metadata.get("deletionTimestamp"):
        return False
    body: Object = {
        "apiVersion": WORKLOADS[name.kind].api_version,
        "kind": name.kind,
        # The UID: one that is gone must not be made anew from a single annotation.
        "metadata": {"name": name.name, "namespace": name.namespace, "uid": metadata["uid"]},
        "spec": {"template": {"metadata": {"annotations": {annotation: revision}}}},
    }
    try:
        await client.patch(
            WORKLOADS[name.kind],
            name.name,
            name.namespace,
            body,
            content_type="apply",
            field_manager=field_manager,
            # A manifest that was exported from the cluster may hold the annotation: it is ours all the same.
            force=True,
        )
    except NotFound:
        return False
    except (Conflict, Terminal) as error:
        told = explained(error, name.namespace)
        if told is not error:
            raise told from None
        # A UID that is not the stored one is a conflict when there is none, and a validation error when there is.
        if not await _is_still_there(client, name, metadata["uid"]):
            return False
        if isinstance(error, Conflict):
            raise Retryable(error.message, after=1) from None
        if error.reason in {"Forbidden", "Invalid", "BadRequest"}:
            raise Terminal(f"{name} cannot be restarted: {error.message}", reason="RestartRefused") from None
        raise
    return True


async def _is_still_there(client: KubeClient, name: WorkloadName, uid: str) -> bool:
    """Whether the workload exists. Raises Retryable when there is another one of its name."""
    try:
        found = await client.get(WORKLOADS[name.kind], name.name, name.namespace)
    except NotFound:
        return False
    except Terminal as error:
        raise explained(error, name.namespace) from None
    if found["metadata"]["uid"] != uid:
        raise Retryable(f"{name} was replaced by another one of its name", reason="RestartTargetReplaced", after=1)
    return True
