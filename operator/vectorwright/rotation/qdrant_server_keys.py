"""The two keys of a self-hosted Qdrant server, through the workload that runs it: strategy DualKey, when asked for.

The server reads ``service.api_key`` and ``service.alt_api_key`` when it starts, and takes either. A new key goes in as
the second one and the server is restarted, replica by replica; from then on every replica takes both. To revoke the
first, the second takes its place, and the server is restarted once more. At each moment every replica takes the
published key: before and after a restart it is one of the two.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from vectorwright.errors import Conflict, Retryable, Terminal

from .base import Assignment, IssuedKey, IssuerTraits, KeyMaterial, KeyRequest, LiveKey
from .names import numbered, revision_of
from .passwords import random_token
from .qdrant_server_secret import HANDED_OVER, SEALED, ServerKeys, ServerSecret
from .qdrant_server_workload import ServerWorkload
from .qdrant_trial import refusal, require_version

OLDEST = (1, 17)
"""The first with ``service.alt_api_key``."""
TRIALS = 8
"""Connections by which a key is tried: a Service deals them out, and one of two replicas is missed by 8 once in 128."""


class QdrantServerKeys:
    """Keys that are in a server's Secret. No admin is needed: the Secret holds the server's own key."""

    traits = IssuerTraits(generates=True)

    def __init__(self, assignment: Assignment) -> None:
        if assignment.client is None:
            raise Terminal(
                "keys of a Qdrant server are changed through the workload that runs it, by the operator in its cluster",
                reason="InvalidSpec",
            )
        self._connection = assignment.connection
        self._owner = assignment.owner
        self._secret = ServerSecret(assignment.client, assignment.identity, assignment.owner)
        self._workload = ServerWorkload(assignment.client, assignment.identity, assignment.owner.namespace)

    def name_of(self, revision: int) -> str:
        """As :meth:`.base.KeyIssuer.name_of`."""
        return numbered(self._owner, revision)

    def draft(self, request: KeyRequest) -> KeyMaterial:
        """A random key."""
        return KeyMaterial(token=random_token())

    async def check(self) -> None:
        """Raises Terminal (``UnsupportedVersion``, ``AccessDenied``, ``AuthorizationDisabled``, and what reading the
        Secret and finding the workload tell), Conflict, Retryable."""
        keys = await self._secret.read()
        self._require_known(keys)
        await self._workload.find()
        await require_version(self._connection, OLDEST, "a second API key")
        if await refusal(self._connection, random_token()) is None:
            raise Terminal(
                f"the server takes any key: let it take its API key from {self._secret}, and restart it",
                reason="AuthorizationDisabled",
            )
        if told := await refusal(self._connection, keys.primary):
            raise Terminal(
                f"the server does not take the key that {self._secret} holds ({told}): let it take its API key from "
                "there, and restart it",
                reason="AccessDenied",
            )

    def _require_known(self, keys: ServerKeys) -> None:
        """Raise Conflict (``BothKeysInUse``) where the second key is somebody's, and would be lost."""
        if keys.has_second and revision_of(self._owner, keys.alternative_id) is None:
            raise Conflict(
                f"{self._secret} holds a second key that this rotation did not make: remove it there when nobody uses "
                "it any more; its place is needed",
                reason="BothKeysInUse",
            )

    async def create(self, request: KeyRequest) -> IssuedKey:
        """Put the key in as the second one, and restart the server.

        Raises Retryable (``InProgress``) until every replica has it, Terminal, Conflict (``BothKeysInUse``).
        """
        material = request.draft or self.draft(request)
        keys = await self._secret.read()
        if (keys.alternative_id, keys.alternative) != (request.name, material.token):
            keys = await self._write(self._with_second(keys, request, material))
        await self._restart(keys)
        return IssuedKey(request.name, material)

    def _with_second(self, keys: ServerKeys, request: KeyRequest, material: KeyMaterial) -> ServerKeys:
        """Both keys as they are to be. Raises Conflict where that would end a key that is in use."""
        self._require_known(keys)
        current = request.current.token if request.current is not None else None
        if request.name == keys.primary_id or (current is not None and current == material.token):
            raise Conflict(f"key {request.name} of {self._secret} is the one in use", reason="KeyInUse")
        if keys.has_second and current == keys.alternative:
            raise Conflict(
                f"{self._secret} holds the published key as the second one and an earlier one ({keys.primary_id}) as "
                "the first: that one must be revoked before there is room for another",
                reason="BothKeysInUse",
            )
        if current is not None and current != keys.primary:
            raise Conflict(
                f"{self._secret} no longer holds the key that is published: somebody else wrote it; put that key back, "
                "or delete the published Secret when nobody uses it",
                reason="KeyInUse",
            )
        if current is None and keys.has_second and keys.alternative_id != request.name:
            raise Conflict(
                f"{self._secret} holds key {keys.alternative_id} of this rotation, which may be in use: it must be "
                "revoked first",
                reason="BothKeysInUse",
            )
        return replace(keys, alternative=material.token or "", alternative_id=request.name, owner=str(self._owner))

    async def accepts(self, key: KeyMaterial) -> bool:
        """Whether the server takes the key: asked by several connections, which reach its replicas in turn.

        Raises Retryable (``InProgress``) where some replicas take it and others do not.
        """
        told = {await refusal(self._connection, key.token) is None for _ in range(TRIALS)}
        if len(told) > 1:
            raise Retryable("some replicas of the server take the key, and others do not", reason="InProgress", after=2)
        return told == {True}

    async def revoke(self, key: LiveKey) -> None:
        """Take the key out of the Secret and restart the server.

        In the place of the only key comes a random one, which is in the server's Secret alone; the key that was handed
        over stays where it is the only one. Raises Retryable (``InProgress``) until no replica takes the key any more,
        Terminal, Conflict.
        """
        keys = await self._secret.read()
        if keys.owner is None and keys.change is None:
            return  # nothing of ours was ever there
        if (without := self._without(keys, key)) is not None:
            keys = await self._write(without)
        await self._restart(keys)

    def _without(self, keys: ServerKeys, key: LiveKey) -> ServerKeys | None:
        """Both keys without one; None where there is nothing to change."""
        if key.id not in {keys.primary_id, keys.alternative_id}:
            return None
        if keys.has_second and key.id == keys.alternative_id:
            return replace(keys, alternative=keys.primary, alternative_id=keys.primary_id)
        if keys.has_second:
            return replace(keys, primary=keys.alternative, primary_id=keys.alternative_id)
        if revision_of(self._owner, key.id) is None:
            return None  # not made here, and nothing could take its place
        # Without a key the server would let everybody in.
        sealed = random_token()
        return replace(keys, primary=sealed, alternative=sealed, primary_id=SEALED, alternative_id=SEALED, owner=None)

    async def live(self) -> list[LiveKey]:
        """The keys of this resource that the server's Secret holds."""
        keys = await self._secret.read()
        names = dict.fromkeys((keys.primary_id, keys.alternative_id))
        found = {name: revision_of(self._owner, name) for name in names}
        return [LiveKey(name, name, revision) for name, revision in found.items() if revision is not None]

    async def predecessor(self) -> IssuedKey | None:
        """The key that the server had before: the spec hands it over by naming the Secret."""
        keys = await self._secret.read()
        return IssuedKey(HANDED_OVER, KeyMaterial(token=keys.primary)) if keys.primary_id == HANDED_OVER else None

    async def close(self) -> None:
        """Nothing stays open."""

    async def _write(self, keys: ServerKeys) -> ServerKeys:
        """Write both keys under a new name of the change, so that the server is restarted for it: if it can be."""
        await self._workload.find()
        changed = replace(keys, change=secrets.token_hex(6))
        await self._secret.write(changed)
        return changed

    async def _restart(self, keys: ServerKeys) -> None:
        if keys.change is not None:
            await self._workload.restarted(keys.change)


def open_issuer(assignment: Assignment) -> QdrantServerKeys:
    """As every strategy's module has it."""
    return QdrantServerKeys(assignment)
