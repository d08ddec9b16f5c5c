"""All that one pass over an APIKeyRotation works with: what is wanted, who makes keys, what is remembered and
published."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

import orjson
from pydantic import ValidationError

from vectorwright.api.v1alpha1.apikeyrotation import APIKeyRotation, Strategy
from vectorwright.api.v1alpha1.common import ANNOTATION_CONSENT_ADMIN, Credentials
from vectorwright.api.v1alpha1.vectorstore import VectorStore
from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.kube.workloads import Target, scoped
from vectorwright.rotation.base import Assignment, IssuerTraits, KeyIssuer
from vectorwright.rotation.registry import KINDS, choose, open_issuer
from vectorwright.rotation.state import RotationState, Step
from vectorwright.stores.base import OwnershipMark
from vectorwright.stores.registry import Connection, StoreCredentials

from .cache import Key
from .connections import Reference, connection_digest, read_credentials, store_address
from .context import Context
from .digests import secret_digest
from .rotation_consent import find_secret, require_consent
from .rotation_memory import Memory
from .rotation_secret import Filling, Publication


@dataclass(slots=True)
class RotationPass:
    """One pass. ``state`` is replaced by each step; what it is replaced by was saved before."""

    context: Context
    key: Key
    resource: APIKeyRotation
    now: datetime
    provider: str
    strategy: Strategy
    identity: str
    """Digest of what keys are made for: another one asks for another key."""
    connection: Connection
    """Without credentials."""
    opened: KeyIssuer | VectorwrightError
    """Who makes keys, or why nobody can: what is published is looked after all the same."""
    memory: Memory
    publication: Publication
    state: RotationState

    @property
    def issuer(self) -> KeyIssuer:
        """Who makes keys. Raises Terminal, Retryable where the admin's credentials cannot be had."""
        if isinstance(self.opened, VectorwrightError):
            raise copy.copy(self.opened)
        return self.opened

    @property
    def traits(self) -> IssuerTraits:
        """How keys of this kind come and go."""
        return self.issuer.traits

    @property
    def label(self) -> str:
        """What pod templates carry that use the published key: of this Secret alone, as they may use several."""
        current, again = self.state.current, self.state.republished
        label = current.label if current is not None else ""
        return scoped(self.publication.spec.name, f"{label}-{again}" if again else label)

    @property
    def endpoint(self) -> str:
        """The address of the store: keys of one may mean nothing at another."""
        settings = self.connection.settings
        parts = (settings.get(name) for name in ("url", "controlUrl", "host", "port", "database"))
        return " ".join(str(part) for part in (self.provider, *parts) if part)

    @property
    def targets(self) -> list[Target]:
        """The workloads that are restarted after a publication."""
        return [
            Target(
                item.kind,
                self.publication.namespace,
                item.name,
                item.selector.match_labels if item.selector is not None else None,
            )
            for item in self.resource.spec.rollout_restart_targets or ()
        ]

    @property
    def filling(self) -> Filling | None:
        """What the Secret is to hold now; None while there is no key whose value is known."""
        current = self.state.current
        if current is None or current.material is None:
            return None
        previous = self.state.previous
        without = self.filled(replace(self.state, previous=None))
        if previous is None or self.state.step in (Step.IDLE, Step.VERIFY_REFUSED):
            return without
        if self.state.step is Step.REVOKE and not self.publication.differences(without):
            return without  # it was taken out already, and that was not remembered
        return self.filled(self.state)

    def filled(self, state: RotationState) -> Filling:
        """What the Secret holds in a state that has a current key."""
        settings = self.connection.settings
        url = urlsplit(str(settings.get("url") or settings.get("controlUrl") or ""))
        host = str(settings.get("host") or url.hostname or "")
        port = str(settings.get("port") or url.port or {"https": "443", "http": "80"}.get(url.scheme, ""))
        if not url.netloc and host:
            port = port or "5432"
        endpoint = url.geturl() or (f"{host}:{port}" if host else "")
        if state.current is None:
            raise Terminal("no key was issued yet", reason="NoKey")
        previous = state.previous.material if state.previous is not None else None
        return Filling(state.current, previous, endpoint, host, port)

    async def save(self, state: RotationState) -> None:
        """Remember a state; from then on it is the truth. Raises Retryable when another process wrote meanwhile."""
        await self.memory.save(state)
        self.state = state


async def begin(context: Context, key: Key, resource: APIKeyRotation, used: list[Reference]) -> RotationPass:
    """Read everything that a pass works with. ``used`` is told of Secrets and ConfigMaps before they are read.

    The state that it begins with is empty where nothing is remembered. Raises Terminal, Retryable.
    """
    spec, owner = resource.spec, owner_mark(context, key)
    store = _store(context, key, resource)
    try:
        kind = spec.identity.kind
    except ValueError as error:
        raise Terminal(str(error), reason="InvalidSpec") from None
    connection = await store_address(context, Key("VectorStore", key.namespace, store.metadata.name), store.spec, used)
    strategy = choose(kind, connection.provider, spec.strategy)
    block = getattr(spec.identity, _attribute(kind)).dump()
    # Watched for our own sake: whoever deletes or edits what is published wakes this resource.
    namespace = spec.secret.namespace or key.namespace
    used.append(Reference("Secret", namespace, spec.secret.name))
    memory = Memory(context.client, key, owner)
    used.append(Reference("Secret", key.namespace, memory.name))
    for reference in used[-2:]:
        await context.secrets.get(reference.namespace, reference.name)
    opened: KeyIssuer | VectorwrightError
    try:
        admin = await _admin(context, key, resource, used)
        assignment = Assignment(
            replace(connection, credentials=admin or StoreCredentials()), block, owner, context.client
        )
        opened = await _issuer(context, key, kind, strategy, assignment)
    except VectorwrightError as error:
        opened = error
    # First what is remembered, then what is published: a Secret that is older would look as if somebody edited it.
    state = await memory.load() or RotationState()
    published = await find_secret(context.client, namespace, spec.secret.name)
    return RotationPass(
        context=context,
        key=key,
        resource=resource,
        now=datetime.now(UTC),
        provider=connection.provider,
        strategy=strategy,
        identity=identity_digest(strategy, kind, block),
        connection=connection,
        opened=opened,
        memory=memory,
        publication=Publication(context.client, key, owner, spec.secret, published),
        state=state,
    )


def owner_mark(context: Context, key: Key) -> OwnershipMark:
    """The mark of a resource: without its UID, so that it survives a rebuilt cluster."""
    return OwnershipMark(context.installation, key.namespace, key.name)


_NOT_OF_A_KEY = frozenset({"adminUrl", "loginUrl", "apiUrl", "allowSingleReplica", "terminateSessions", "workload"})
"""Fields of identities that say how keys are made and ended, and nothing of the keys themselves."""


def identity_digest(strategy: Strategy, kind: str, block: dict[str, object]) -> str:
    """Changes with what keys are made for. Nothing in it is secret."""
    made_for = {name: value for name, value in block.items() if name not in _NOT_OF_A_KEY}
    content = orjson.dumps([strategy.value, kind, made_for], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:16]


async def close_issuer(context: Context, key: Key) -> None:
    """Close the issuer that a resource keeps open between passes."""
    known = context.issuers.pop(key, None)
    if known is not None:
        with contextlib.suppress(VectorwrightError):
            await known[1].close()


async def _issuer(context: Context, key: Key, kind: str, strategy: Strategy, assignment: Assignment) -> KeyIssuer:
    """The issuer, kept open between passes: it may hold an access token, and connections."""
    what = orjson.dumps([kind, strategy.value, assignment.identity, str(assignment.owner)], option=orjson.OPT_SORT_KEYS)
    digest = connection_digest(assignment.connection) + secret_digest(what)
    known = context.issuers.get(key)
    if known is not None and known[0] == digest:
        return known[1]
    issuer = open_issuer(kind, strategy, assignment)
    await close_issuer(context, key)
    context.issuers[key] = (digest, issuer)
    return issuer


def _attribute(kind: str) -> str:
    """The name of an identity's block in Python: ``qdrantToken`` → ``qdrant_token``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind)


def _store(context: Context, key: Key, resource: APIKeyRotation) -> VectorStore:
    """The VectorStore, ready or not. Raises Terminal, and Retryable for one that may still come."""
    name = resource.spec.store_ref.name
    body = context.cache.get("VectorStore", key.namespace, name)
    if body is None:
        told, reason = f"VectorStore {name} does not exist in namespace {key.namespace}: create it", "StoreNotFound"
        if resource.status.revision:
            raise Terminal(told, reason=reason)
        # Both may be applied at once: its arrival wakes the rotation.
        raise Retryable(told, reason=reason)
    try:
        return VectorStore.model_validate(body)
    except ValidationError:
        raise Terminal(f"VectorStore {name} is not valid: its status says why", reason="StoreInvalid") from None


async def _admin(
    context: Context, key: Key, resource: APIKeyRotation, used: list[Reference]
) -> StoreCredentials | None:
    """The admin's credentials; None where the spec names none. Raises Terminal, Retryable."""
    spec, named = resource.spec, resource.spec.admin_credentials
    if named is None:
        if KINDS[spec.identity.kind].needs_admin:
            raise Terminal(
                f"spec.adminCredentials: keys of spec.identity.{spec.identity.kind} are made with credentials that may "
                "do so: name a Secret that holds them",
                reason="InvalidSpec",
            )
        return None
    namespace = named.namespace or key.namespace
    if (namespace, named.name) == (spec.secret.namespace or key.namespace, spec.secret.name):
        raise Terminal(
            "spec.adminCredentials and spec.secret name the same Secret: whoever may use a key could make keys; keep "
            "the admin's credentials in one of their own",
            reason="InvalidSpec",
        )
    if namespace != key.namespace:
        used.append(Reference("Secret", namespace, named.name))
        found = await find_secret(context.client, namespace, named.name)
        require_consent(found, namespace, named.name, key, ANNOTATION_CONSENT_ADMIN)
    chosen = Credentials(
        name=named.name,
        token_key=named.token_key,
        username_key=named.username_key,
        password_key=named.password_key,
    )
    return await read_credentials(context, namespace, chosen, used)
