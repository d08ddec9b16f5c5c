"""The Secret that a Qdrant server takes its two keys from, and what is remembered beside them: whose they are.

Neither field is ever left empty. Servers before the treatment of empty keys as unset (1.17 among them) compare an empty
``service.alt_api_key`` with an empty header, which lets everybody in; so a second key that is not needed is the first.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vectorwright.api.v1alpha1.common import GROUP
from vectorwright.errors import Conflict, NotFound, Retryable, Terminal
from vectorwright.kube import resources
from vectorwright.kube.client import KubeClient, Object
from vectorwright.kube.secret_managers import manager_of
from vectorwright.kube.tenure import process_tenure
from vectorwright.kube.watched import data_of
from vectorwright.kube.workloads import RIGHTS_COMPONENT
from vectorwright.stores.base import OwnershipMark

ANNOTATION = f"{GROUP}/qdrant-server-keys"
"""Of the Secret, JSON: whose the keys are, the ids of both, and a name of the last change."""
HANDED_OVER = "server-primary"
"""Id of the key that was there before us."""
SEALED = "server-sealed"
"""Id of a key that is in the server's Secret and nowhere else: the one after the last."""
API_KEY_FIELD = "api-key"
ALT_API_KEY_FIELD = "alt-api-key"


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """Both keys of the server, and their ids. The second one is the first, or "", where there is no second key."""

    primary: str = field(repr=False)
    alternative: str = field(repr=False)
    primary_id: str = HANDED_OVER
    alternative_id: str = ""
    owner: str | None = None
    change: str | None = None
    """Stands for this state of the Secret on the server's pods; None before the first change of ours."""
    version: str = ""
    """resourceVersion that was read."""

    @property
    def has_second(self) -> bool:
        """Whether the server takes two keys."""
        return self.alternative not in {"", self.primary}


class ServerSecret:
    """The Secret of one server, read and written by one resource."""

    def __init__(self, client: KubeClient, identity: Mapping[str, Any], owner: OwnershipMark) -> None:
        self._client = client
        self._owner = owner
        self.name = str(identity["secretName"])
        self._primary_field = str(identity.get("apiKeyField") or API_KEY_FIELD)
        self._alternative_field = str(identity.get("altApiKeyField") or ALT_API_KEY_FIELD)

    def __str__(self) -> str:
        return f"Secret {self._owner.namespace}/{self.name}"

    async def read(self) -> ServerKeys:
        """The keys, where we may change them.

        Raises Terminal (``SecretNotFound``, ``SecretForbidden``, ``SecretManaged``, ``SecretImmutable``,
        ``ServerKeyMissing``, ``InvalidSpec``), Conflict (``SecretNotOurs``), Retryable.
        """
        if self._primary_field == self._alternative_field:
            raise Terminal(
                "spec.identity.qdrantServer: apiKeyField and altApiKeyField must differ", reason="InvalidSpec"
            )
        try:
            body = await self._client.get(resources.SECRETS, self.name, self._owner.namespace)
        except NotFound:
            raise Terminal(
                f"{self} does not exist: make it, with the server's API key under {self._primary_field!r}",
                reason="SecretNotFound",
            ) from None
        except Terminal as error:
            raise self._explained(error) from None
        self._check_ours(body)
        primary, alternative = self._value(body, self._primary_field), self._value(body, self._alternative_field)
        if not primary:
            raise Terminal(
                f"{self} has nothing under {self._primary_field!r}: put the server's present API key there; without "
                "one the server would refuse everybody as soon as it gets a second key",
                reason="ServerKeyMissing",
            )
        return self._remembered(body, primary, alternative)

    def _check_ours(self, body: Object) -> None:
        if manager := manager_of(body):
            raise Terminal(
                f"{self} is managed by {manager}, which would undo each change of the server's keys: let the server "
                "take them from a Secret that nobody else writes",
                reason="SecretManaged",
            )
        if body.get("immutable"):
            raise Terminal(
                f"{self} is immutable: let the server take its keys from one that is not", reason="SecretImmutable"
            )

    def _value(self, body: Object, name: str) -> str:
        try:
            return data_of(body, resources.SECRETS).get(name, b"").decode()
        except UnicodeDecodeError:
            raise Terminal(f"{self}: what is under {name!r} is not text", reason="InvalidSpec") from None

    def _remembered(self, body: Object, primary: str, alternative: str) -> ServerKeys:
        version = str(body["metadata"]["resourceVersion"])
        noted = (body["metadata"].get("annotations") or {}).get(ANNOTATION)
        if noted is None:
            return ServerKeys(primary, alternative, version=version)
        try:
            told = json.loads(noted)
            keys = ServerKeys(
                primary, alternative, told["primary"], told["alternative"], told.get("owner"), told["change"], version
            )
        except (ValueError, TypeError, KeyError):
            raise Terminal(
                f"{self}: annotation {ANNOTATION} cannot be read: remove it, and the key under {self._primary_field!r} "
                "is taken for one that was handed over",
                reason="InvalidSpec",
            ) from None
        if keys.owner not in {None, str(self._owner)}:
            raise Conflict(
                f"the keys of {self} are rotated by {keys.owner}: name another Secret, or remove its annotation "
                f"{ANNOTATION} when that one is gone",
                reason="SecretNotOurs",
            )
        return keys

    async def write(self, keys: ServerKeys) -> None:
        """Put both keys and their ids there, if nobody wrote since ``keys`` were read. Raises Terminal, Retryable."""
        process_tenure().require()
        told = {
            "owner": keys.owner,
            "primary": keys.primary_id,
            "alternative": keys.alternative_id,
            "change": keys.change,
        }
        body = {
            "metadata": {"resourceVersion": keys.version, "annotations": {ANNOTATION: json.dumps(told)}},
            "data": {
                self._primary_field: _encoded(keys.primary),
                self._alternative_field: _encoded(keys.alternative),
            },
        }
        try:
            await self._client.patch(resources.SECRETS, self.name, self._owner.namespace, body)
        except (Conflict, NotFound):
            raise Retryable(f"{self} was changed meanwhile", reason="ChangedMeanwhile", after=0.1) from None
        except Terminal as error:
            raise self._explained(error) from None

    def _explained(self, error: Terminal) -> Terminal:
        if error.reason != "Forbidden":
            return error
        return Terminal(
            f"the operator may not read and write {self}: apply the Role of {RIGHTS_COMPONENT} in namespace "
            f"{self._owner.namespace}",
            reason="SecretForbidden",
        )


def _encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()
