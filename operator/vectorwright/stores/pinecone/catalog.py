"""The indexes of one Pinecone project: found, made, changed, marked, dropped."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import Mapping, Sequence

import httpx
from pinecone.models.indexes.index import IndexModel

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal

from ..absent import StoreWithoutAliases
from ..base import (
    Capabilities,
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    OwnershipMark,
    Setting,
    StoreInfo,
)
from ..registry import Connection
from ..server_checks import check_definition, check_fields, check_settings
from . import tags as tagging
from .indexes import DENSE_FIELD, KNOWN_SETTINGS, MUTABLE, PineconeIndex, configuration, deployment, read_capacity
from .metadata import MAX_BYTES
from .records import MAX_ID_LENGTH
from .sdk import API_VERSION, PineconeApi

CAPABILITIES = Capabilities(
    metrics=frozenset({"cosine", "dotproduct", "euclidean"}),
    max_dimension=20_000,
    # No datetime: Pinecone compares numbers only.
    field_types=frozenset({"keyword", "integer", "float", "bool"}),
    max_batch_records=1_000,
    # A request may have 2 MiB, and a float32 takes up to 13 characters of JSON for its 4 bytes.
    max_batch_bytes=640 * 2**10,
    max_metadata_bytes=MAX_BYTES,
    max_text_bytes=MAX_BYTES,
    # 45 characters and no hyphen at an end: what the SDK's own check of names asks.
    name_pattern=r"^[a-z0-9]([a-z0-9-]{0,43}[a-z0-9])?$",
    id_pattern=rf"^[\x01-\x7f]{{1,{MAX_ID_LENGTH}}}$",
    mutable_settings=MUTABLE,
    list_metadata=True,
    namespaces=True,
    read_after_write=False,
    sparse_vectors=True,
    backups=True,
    rotation_strategies=frozenset({"DualKey"}),
    filter_limits=(
        "It has no datetime fields and no ranges of strings.",
        "It cannot negate a range.",
        "It cannot compare with numbers between 2^53 and 2^63.",
    ),
    exact_counts=False,
    filtered_count=True,
)

READY_WITHIN = 180.0
"""Seconds that a new index may take until it takes writes. Serverless ones take seconds, pods a minute or two."""
GONE_WITHIN = 60.0
"""Seconds that a deleted index may take until its name is free."""
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 3.0
_FAILED_STATES = {"InitializationFailed", "Disabled"}


class PineconeCatalog(StoreWithoutAliases):
    """What is done with indexes; :class:`.store.PineconeStore` adds what is done with their records."""

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.capabilities = CAPABILITIES
        self._api = PineconeApi(connection, transport)
        self._key_id = hashlib.sha256(f"vectorwright\n{connection.credentials.token}".encode()).hexdigest()[:16]
        self._project = str(connection.settings.get("projectId") or "")
        self._known: dict[str, PineconeIndex] = {}

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._api.close()

    async def probe(self) -> StoreInfo:
        """Whether the project answers. Raises Terminal (``AccessDenied``), Retryable."""
        await self._list()
        return StoreInfo(API_VERSION, self._backend_id(), self._api.endpoint, self.capabilities)

    def _backend_id(self) -> str:
        """The project. Only the hosts of its indexes tell which it is: an empty one is told by the key that reaches it.

        A project that became empty while this session looked keeps its identity.
        """
        return f"pinecone:{self._project}" if self._project else f"pinecone:key:{self._key_id}"

    def _learn_project(self, index: PineconeIndex) -> None:
        """Hosts are ``<index>-<project>.svc.…``."""
        found = re.search(rf"\b{re.escape(index.name)}-([0-9a-z]+)\.svc\b", index.host or "")
        if found and not self._project:
            self._project = found[1]

    async def list_indexes(self) -> list[IndexDescription]:
        """Every index of the project, in one request."""
        return sorted(await self._list(), key=lambda index: index.name)

    async def _list(self) -> list[IndexDescription]:
        found = await self._api.listing()
        listed = {one if isinstance(one, str) else one.name for one in found}
        self._known = {name: index for name, index in self._known.items() if name in listed}
        return [
            IndexDescription(one, None, None, incarnation=f"unreadable:{one}")
            if isinstance(one, str)
            else self._keep(one).describe()
            for one in found
        ]

    def _keep(self, model: IndexModel) -> PineconeIndex:
        index = PineconeIndex.read(model, plain_http=self._api.plain_http)
        self._known[index.name] = index
        self._learn_project(index)
        return index

    async def describe_index(self, name: str) -> IndexDescription:
        """One index. Raises NotFound."""
        return (await self._resolve(name)).describe()

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make an index and wait until it takes writes.

        Raises Conflict when the name is taken, Terminal for a bad definition, Retryable (``IndexNotReady``) where it
        takes longer than ``READY_WITHIN``: it is there then, with its mark.
        """
        check_definition(definition, self.capabilities, KNOWN_SETTINGS)
        tags = tagging.changes({}, self._tags(definition))
        where, capacity = deployment(definition.settings), read_capacity(definition.settings)
        protection = definition.settings.get("deletion_protection")
        dense = {"type": "dense_vector", "dimension": definition.dimension, "metric": definition.metric}
        try:
            made = await self._api.control(
                lambda indexes: indexes.create(
                    name=definition.name,
                    schema={"fields": {DENSE_FIELD: dense}},
                    deployment=where,
                    read_capacity=capacity,
                    deletion_protection=None if protection is None else str(protection),
                    tags=tags,
                    timeout=-1,
                )
            )
        except Conflict:
            raise Conflict(
                f"an index named {definition.name!r} exists already in this project", reason="AlreadyExists"
            ) from None
        return (await self._ready(self._keep(made))).describe()

    def _tags(self, definition: IndexDefinition) -> dict[str, str | None]:
        values = {
            tagging.MARK: None if definition.mark is None else str(definition.mark),
            tagging.FINGERPRINT: definition.model_fingerprint,
            tagging.INCARNATION: str(uuid.uuid4()),
        }
        taken = len(tagging.changes({}, values))
        return {**values, tagging.FIELDS: tagging.encode_fields(definition.fields, taken)}

    async def _ready(self, index: PineconeIndex) -> PineconeIndex:
        until, pause = time.monotonic() + READY_WITHIN, _FIRST_PAUSE
        while not (index.ready and index.host):
            if index.state in _FAILED_STATES:
                raise Terminal(
                    f"index {index.name}: Pinecone could not make it (state {index.state}): look at it in the console, "
                    "delete it, and try again",
                    reason="IndexFailed",
                )
            if time.monotonic() > until:
                raise Retryable(
                    f"index {index.name} is not ready {READY_WITHIN:g} s after it was made (state {index.state})",
                    reason="IndexNotReady",
                    after=10.0,
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            index = await self._resolve(index.name)
        return index

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change mutable settings, declare fields. Raises NotFound, Terminal."""
        check_settings(settings, KNOWN_SETTINGS)
        check_fields(new_fields, self.capabilities)
        index = await self._resolve(name)
        arguments = configuration(settings, index)
        if new_fields:
            fields = {field.name: field for field in tagging.read_fields(index.tags) or ()}
            fields |= {field.name: field for field in new_fields}
            taken = sum(not tag.startswith(tagging.FIELDS) for tag in index.tags)
            tags = tagging.changes(index.tags, {tagging.FIELDS: tagging.encode_fields(tuple(fields.values()), taken)})
            arguments |= {"tags": tags} if tags else {}
        await self._configure(index, arguments)

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint; other tags of the index stay. Raises NotFound."""
        index = await self._resolve(name)
        values = {tagging.MARK: None if mark is None else str(mark), tagging.FINGERPRINT: model_fingerprint}
        tags = tagging.changes(index.tags, values)
        await self._configure(index, {"tags": tags} if tags else {})

    async def _configure(self, index: PineconeIndex, arguments: Mapping[str, object]) -> None:
        if not arguments:
            return
        try:
            changed = await self._api.control(lambda indexes: indexes.configure(index.name, **arguments))  # type: ignore[arg-type]
        except NotFound:
            raise absent(index.name) from None
        self._keep(changed)

    async def delete_index(self, name: str) -> None:
        """Drop an index, and wait until its name is free.

        Raises NotFound, Terminal (``DeletionProtected``), Retryable (``IndexNotGone``).
        """
        index = await self._resolve(name)
        if index.protected:
            raise Terminal(
                f"index {name} is protected from deletion: set deletionProtection: disabled in spec.tuning.pinecone of "
                "its VectorIndex, or in Pinecone's console, and delete it again",
                reason="DeletionProtected",
            )
        try:
            await self._api.control(lambda indexes: indexes.delete(name, timeout=-1))
        except NotFound:
            raise absent(name) from None
        until, pause = time.monotonic() + GONE_WITHIN, _FIRST_PAUSE
        while name in {one.name for one in await self._list()}:
            if time.monotonic() > until:
                raise Retryable(
                    f"index {name} is still being deleted after {GONE_WITHIN:g} s", reason="IndexNotGone", after=10.0
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._known.pop(name, None)

    async def _resolve(self, name: str) -> PineconeIndex:
        """The index of that name, as it is now. Raises NotFound."""
        if not re.fullmatch(self.capabilities.name_pattern, name):
            raise absent(name)  # what cannot be an index is not asked for by its path
        try:
            return self._keep(await self._api.control(lambda indexes: indexes.describe(name)))
        except NotFound:
            self._known.pop(name, None)
            raise absent(name) from None


def absent(name: str) -> NotFound:
    """The error for an index that the project does not hold."""
    return NotFound(f"index {name[:200]!r} does not exist in this project")
