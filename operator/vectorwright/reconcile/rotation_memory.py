"""The private Secret in which a rotation's state is kept, written by compare-and-swap."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from vectorwright.api.v1alpha1.common import GROUP
from vectorwright.errors import Conflict, NotFound, Retryable, Terminal
from vectorwright.kube import resources
from vectorwright.kube.client import KubeClient, Object
from vectorwright.kube.watched import data_of
from vectorwright.rotation.state import RotationState, from_data, to_data
from vectorwright.stores.base import OwnershipMark

from .cache import Key
from .rotation_consent import find_secret, secret_forbidden

OWNER_ANNOTATION = f"{GROUP}/owner"
ROTATION_LABEL = f"{GROUP}/rotation"
STATE_LABEL = f"{GROUP}/rotation-state"
STATE_TYPE = f"{GROUP}/rotation-state"
SUFFIX = ".key-rotation"
_LONGEST_NAME = 253
_LONGEST_LABEL = 63


def state_name(name: str) -> str:
    """Name of the private Secret of a resource. Names of more than 240 characters are cut."""
    return name[: _LONGEST_NAME - len(SUFFIX)].rstrip(".-") + SUFFIX


def label_of(name: str) -> str:
    """A resource's name as the value of a label, cut where it is longer than one may be."""
    return name[:_LONGEST_LABEL].rstrip(".-")


def changed_meanwhile(namespace: str, name: str) -> Retryable:
    """Somebody else wrote a Secret between our reading and our writing."""
    return Retryable(f"Secret {namespace}/{name} was changed meanwhile", reason="ChangedMeanwhile", after=0.1)


@dataclass(slots=True)
class Memory:
    """What a resource remembers. ``version`` is the resourceVersion that the next write has to meet."""

    client: KubeClient
    key: Key
    owner: OwnershipMark
    version: str | None = None
    damaged: bool = False
    """Whether there is a Secret that cannot be read: it is written anew."""

    @property
    def name(self) -> str:
        """Name of the Secret."""
        return state_name(self.key.name)

    async def load(self) -> RotationState | None:
        """What is remembered; None when nothing is. Raises Terminal (``SecretNotOurs``, ``SecretForbidden``),
        Retryable."""
        body = await find_secret(self.client, self.key.namespace, self.name)
        if body is None:
            self.version = None
            return None
        self._require_ours(body)
        self.version = body["metadata"]["resourceVersion"]
        state = from_data(data_of(body, resources.SECRETS))
        self.damaged = state is None
        return state

    async def save(self, state: RotationState) -> None:
        """Write the state, if nobody wrote since it was read. Raises Retryable (``ChangedMeanwhile``), Terminal."""
        data = {name: base64.b64encode(value.encode()).decode() for name, value in to_data(state).items()}
        body: Object = {
            "metadata": {
                "name": self.name,
                "namespace": self.key.namespace,
                "labels": {
                    "app.kubernetes.io/managed-by": "vectorwright",
                    STATE_LABEL: "true",
                    ROTATION_LABEL: label_of(self.key.name),
                },
                "annotations": {OWNER_ANNOTATION: str(self.owner)},
            },
            "type": STATE_TYPE,
            "data": data,
        }
        try:
            if self.version is None:
                written = await self.client.create(resources.SECRETS, body, self.key.namespace)
            else:
                body["metadata"]["resourceVersion"] = self.version
                written = await self.client.replace(resources.SECRETS, self.name, self.key.namespace, body)
        except (Conflict, NotFound):
            raise changed_meanwhile(self.key.namespace, self.name) from None
        except Terminal as error:
            raise secret_forbidden(error, self.key.namespace, self.name) from None
        self.version = written["metadata"]["resourceVersion"]

    async def require_unchanged(self) -> None:
        """Raise Retryable (``ChangedMeanwhile``) when another process wrote since the state was read. Before what
        cannot be undone and is not named by the state."""
        body = await find_secret(self.client, self.key.namespace, self.name)
        if body is None or body["metadata"]["resourceVersion"] != self.version:
            raise changed_meanwhile(self.key.namespace, self.name)

    def _require_ours(self, body: Object) -> None:
        """Raise Terminal (``SecretNotOurs``) for a Secret of that name that is not this rotation's."""
        mark = (body["metadata"].get("annotations") or {}).get(OWNER_ANNOTATION)
        if mark == str(self.owner):
            return
        told = f"Secret {self.key.namespace}/{self.name} is where this rotation keeps what it has to remember, and is "
        other = OwnershipMark.parse(mark)
        if other is not None and (other.namespace, other.name) == (self.owner.namespace, self.owner.name):
            told += (
                f"that of the installation {other.installation}, as after a move to another cluster: keep it, and "
                f"start the operator with --installation-id={other.installation}"
            )
        else:
            told += "another's: give the resource another name"
        raise Terminal(told, reason="SecretNotOurs")

    async def delete(self) -> None:
        """Forget everything. Fine when nothing is there; what is another's stays. Raises Terminal, Retryable."""
        body = await find_secret(self.client, self.key.namespace, self.name)
        if body is None or (body["metadata"].get("annotations") or {}).get(OWNER_ANNOTATION) != str(self.owner):
            return
        try:
            await self.client.delete(resources.SECRETS, self.name, self.key.namespace, uid=body["metadata"]["uid"])
        except NotFound:
            self.version = None
        except Terminal as error:
            raise secret_forbidden(error, self.key.namespace, self.name) from None
        except Conflict:
            raise changed_meanwhile(self.key.namespace, self.name) from None
