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

_ATTEMPTS = 5
"""Tries of a restart while the workload's version moves on: its status changes often while it rolls."""

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
    """The value of the annotation on the pod template, of one or more revisions; None without one."""
    metadata = (workload["spec"].get("template") or {}).get("metadata") or {}
    revision = (metadata.get("annotations") or {}).get(annotation)
    return revision if isinstance(revision, str) else None


def scoped(scope: str, revision: str) -> str:
    """A revision that shares the annotation with those of other scopes: "search-keys=7".

    A workload may use several Secrets, each of which changes in its own time: the name of the Secret is the scope, so
    that a restart for one neither undoes nor repeats that for another. Neither part may hold a comma or ``=``.
    """
    return f"{scope}={revision}"


def carries(value: str | None, revision: str) -> bool:
    """Whether an annotation of this value holds the revision, which may be a scoped one."""
    return value is not None and revision in value.split(",")


def rival_of(value: str | None, revision: str) -> str | None:
    """The revision of the same scope that an annotation of this value holds, if any."""
    return next((entry for entry in (value or "").split(",") if entry and _scope(entry) == _scope(revision)), None)


def _with(value: str | None, revision: str) -> str:
    """The value with this revision in place of the one of its scope; those of other scopes stay."""
    others = [entry for entry in (value or "").split(",") if entry and _scope(entry) != _scope(revision)]
    return ",".join(sorted([*others, revision]))


def _scope(entry: str) -> str:
    return entry.rpartition("=")[0]


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
    False as well when it is gone. Revisions of other scopes (see :func:`scoped`) stay. Whoever calls it again for a
    workload whose progress says ``reverted`` and gets True again is in a fight with another writer of the template, and
    should count such calls.

    Whoever restarts for another reason uses an ``annotation`` and a ``field_manager`` of its own: an apply takes away
    what the same manager had set and does not set again.

    Raises Terminal (``RestartTargetForbidden``; ``RestartRefused`` with the API server's words, when admission or
    validation refuses the change) and Retryable (``RestartTargetReplaced``: another one has its name now; find again).
    """
    name, uid = name_of(workload), workload["metadata"]["uid"]
    found: Object | None = workload
    for _ in range(_ATTEMPTS):
        if found is None or found["metadata"].get("deletionTimestamp"):
            return False
        if carries(value := template_revision(found, annotation), revision):
            return False
        try:
            await _apply(client, name, found["metadata"], {annotation: _with(value, revision)}, field_manager)
        except NotFound:
            return False
        except (Conflict, Terminal) as error:
            told = explained(error, name.namespace)
            if told is not error:
                raise told from None
            # A UID that is not the stored one is a conflict when there is none, and a validation error when there is.
            found = await _read_again(client, name, uid)
            if found is None or isinstance(error, Conflict):
                continue
            if error.reason in {"Forbidden", "Invalid", "BadRequest"}:
                raise Terminal(f"{name} cannot be restarted: {error.message}", reason="RestartRefused") from None
            raise
        return True
    raise Retryable(f"{name} changes all the time, and could not be restarted yet", reason="Conflict", after=1)


async def _apply(
    client: KubeClient, name: WorkloadName, based_on: Object, annotations: Mapping[str, str], field_manager: str
) -> None:
    # The UID: one that is gone must not be made anew from a single annotation. The version: another's revision that was
    # written to the same annotation meanwhile must not be lost.
    metadata = {"name": name.name, "namespace": name.namespace, "uid": based_on["uid"]}
    body: Object = {
        "apiVersion": WORKLOADS[name.kind].api_version,
        "kind": name.kind,
        "metadata": {**metadata, "resourceVersion": based_on["resourceVersion"]},
        "spec": {"template": {"metadata": {"annotations": dict(annotations)}}},
    }
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


async def _read_again(client: KubeClient, name: WorkloadName, uid: str) -> Object | None:
    """The workload as it is now, None when it is gone. Raises Retryable when there is another one of its name."""
    try:
        found = await client.get(WORKLOADS[name.kind], name.name, name.namespace)
    except NotFound:
        return None
    except Terminal as error:
        raise explained(error, name.namespace) from None
    if found["metadata"]["uid"] != uid:
        raise Retryable(f"{name} was replaced by another one of its name", reason="RestartTargetReplaced", after=1)
    return found
