"""Pods that may still hold an earlier value of a Secret.

A Secret's value reaches a process as an environment variable, once, when its container starts, or as a file, which most
programs read once. So a pod that was there before a value was published is taken to hold the one before it, whatever
happened inside it since. What a program reads from the Kubernetes API by itself is not seen here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from vectorwright.errors import Terminal

from .client import KubeClient, Object
from .resources import PODS
from .rollout import LIVING, controller, has_ended, pod_revision, pods_forbidden
from .workloads import carries

SETTLING = timedelta(seconds=2)
"""A node that watches a Secret for other pods hears of its new value this much later at most: its watch is a matter of
milliseconds."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A pod that was there before a Secret's value was published: "pod search-1-abc of ReplicaSet search-1"."""

    pod: str
    controller: str | None
    """What manages it, "ReplicaSet search-1"; None for a pod of its own."""
    created: datetime
    terminating: bool = False

    def __str__(self) -> str:
        of = f" of {self.controller}" if self.controller else ""
        return f"pod {self.pod}{of}{' (terminating)' if self.terminating else ''}"


async def holders(
    client: KubeClient, namespace: str, secret_name: str, published_at: datetime, revision: str
) -> list[Holder]:
    """The namespace's living pods, terminating ones included, that refer to the Secret and are older than its value.

    ``published_at`` is a time of the API server's clock, such as that of the Secret's managed fields: it is compared
    with the creation of pods, to the second. A pod made in the same second counts, unless it is of a template with that
    revision. The oldest come first. Raises Terminal (``PodsForbidden``) and Retryable.
    """

    def is_holder(pod: Object) -> bool:
        return refers_to(pod, secret_name) and is_older(pod, published_at, revision)

    try:
        pods = await client.list(PODS, namespace, field_selector=LIVING, keep=is_holder)
    except Terminal as error:
        raise pods_forbidden(error, namespace) from None
    return sorted((_holder(pod) for pod in pods), key=lambda holder: (holder.created, holder.pod))


def is_older(pod: Object, published_at: datetime, revision: str) -> bool:
    """Whether a living pod may hold an earlier value: it was made before one was published, or so soon afterwards that
    its node may not have heard of it. Times of Kubernetes are whole seconds."""
    if has_ended(pod):
        return False
    created, published = _created(pod), published_at.astimezone(UTC).replace(microsecond=0)
    return created < published or (created <= published + SETTLING and not carries(pod_revision(pod), revision))


def refers_to(pod: Object, secret_name: str) -> bool:
    """Whether its containers get the Secret, as a volume or in their environment.

    Image pull secrets and the credentials of volume drivers do not count: the node uses those, not the containers.
    """
    return secret_name in _secrets(pod["spec"])


def _secrets(spec: Object) -> Iterator[str | None]:
    for volume in spec.get("volumes") or ():
        yield (volume.get("secret") or {}).get("secretName")
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield (source.get("secret") or {}).get("name")
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            for variable in container.get("env") or ():
                yield ((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
            for source in container.get("envFrom") or ():
                yield (source.get("secretRef") or {}).get("name")


def _created(pod: Object) -> datetime:
    return datetime.fromisoformat(pod["metadata"]["creationTimestamp"])


def _holder(pod: Object) -> Holder:
    owner = controller(pod)
    return Holder(
        pod["metadata"]["name"],
        None if owner is None else f"{owner['kind']} {owner['name']}",
        _created(pod),
        terminating=bool(pod["metadata"].get("deletionTimestamp")),
    )
