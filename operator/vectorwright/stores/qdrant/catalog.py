"""The collections of one Qdrant server as indexes: found, made, changed, marked, named, dropped.

The server lists names only, and tells the rest one collection at a time: a listing is one request and one a collection,
several at once over one connection. Its telemetry would tell all configurations at once, but wants rights to the whole
server, leaves out payload indexes, and carries every shard.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from google.protobuf.message import Message

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal

from ..absent import StoreWithoutNamespaces
from ..base import (
    Capabilities,
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    OwnershipMark,
    Setting,
    StoreInfo,
)
from ..http_errors import UNEXPECTED_ANSWER
from ..registry import Connection
from ..server_checks import check_definition, check_fields, check_settings
from . import settings as tuning
from .collection import (
    DISTANCES,
    FIELD_TYPES,
    FINGERPRINT,
    INCARNATION,
    MARK,
    OWN_FIELDS,
    READY,
    Collection,
    metadata_of,
)
from .filters import FILTER_LIMITS
from .messages import grpc
from .names import ID_PATTERN
from .transport import QdrantApi

Answer = TypeVar("Answer", bound=Message)

CAPABILITIES = Capabilities(
    metrics=frozenset(DISTANCES),
    max_dimension=65_535,
    # The server's default for a request of its REST API is 32 MiB; gRPC is kept to the same.
    max_batch_bytes=30 * 2**20,
    # What the server refuses in names, "/" and its like, and what other stores refuse besides.
    name_pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$",
    id_pattern=ID_PATTERN,
    mutable_settings=tuning.MUTABLE,
    list_metadata=True,
    aliases=True,
    atomic_alias_swap=True,
    normalises=True,
    sparse_vectors=True,
    backups=True,
    rotation_strategies=frozenset({"DualKey", "Token"}),
    filter_limits=FILTER_LIMITS,
    counts_in_listing=True,
    filtered_count=True,
)
OLDEST = (1, 13)
OLDEST_WITH_METADATA = (1, 16)

CHEAP_COUNT = 10_000
"""Points up to which describing one collection counts them exactly."""
REMEMBERED = 10.0
"""Seconds that what is known of a collection is used unasked: it may have been made again with another metric."""


class QdrantCatalog(StoreWithoutNamespaces):
    """What is done with collections; :class:`.store.QdrantStore` adds what is done with their points."""

    def __init__(self, connection: Connection) -> None:
        self.capabilities = CAPABILITIES
        self._api = QdrantApi(connection)
        self._timeout = connection.timeout
        self._known: dict[str, tuple[float, Collection]] = {}

    async def close(self) -> None:
        """Release the connection. Safe to call twice."""
        await self._api.close()

    async def probe(self) -> StoreInfo:
        """Version, and whether the credentials are taken. Qdrant has no identity of its own: its address stands for it.

        Raises Terminal (``UnsupportedVersion``, ``AccessDenied``), Retryable.
        """
        found = await self._api.call("Qdrant/HealthCheck", grpc.HealthCheckRequest(), grpc.HealthCheckReply)
        numbers = re.match(r"(\d+)\.(\d+)", found.version)
        if numbers is None or (version := (int(numbers[1]), int(numbers[2]))) < OLDEST:
            raise Terminal(
                f"{self._api.endpoint} is Qdrant {found.version[:20]!r}: 1.13 or newer is needed",
                reason="UnsupportedVersion",
            )
        await self._names()  # a health check asks for no credentials
        self.capabilities = replace(self.capabilities, marks=version >= OLDEST_WITH_METADATA)
        backend = hashlib.sha256(self._api.endpoint.encode()).hexdigest()[:32]
        return StoreInfo(found.version, f"qdrant:{backend}", self._api.endpoint, self.capabilities)

    async def list_indexes(self) -> list[IndexDescription]:
        """Every collection, with the server's estimates of their points; none is called empty by an estimate."""

        async def told(name: str) -> IndexDescription | None:
            try:
                return await self._described(await self._look_up(name), up_to=0)
            except NotFound:
                return None

        names = sorted(await self._names())
        tasks = [asyncio.ensure_future(told(name)) for name in names]
        try:
            found = await asyncio.gather(*tasks)
        finally:  # the first failure is the listing's, and ends the others: they would meet the same
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        missing = {name for name, one in zip(names, found, strict=True) if one is None}
        if missing and (odd := missing & await self._names()):
            raise Retryable(
                f"{self._api.endpoint} lists collection {min(odd)[:200]!r} and does not find it",
                reason=UNEXPECTED_ANSWER,
            )
        return [one for one in found if one is not None]

    async def describe_index(self, name: str) -> IndexDescription:
        """One collection; up to 10,000 points are counted exactly. Raises NotFound."""
        return await self._described(await self._look_up(name), up_to=CHEAP_COUNT)

    async def _described(self, collection: Collection, *, up_to: int) -> IndexDescription:
        if collection.estimate > up_to:
            return collection.describe(collection.estimate, exact=False)
        return collection.describe(await self._count(collection.name, None), exact=True)

    async def _count(self, name: str, where: grpc.Filter | None) -> int:
        request = grpc.CountPoints(collection_name=name, filter=where, exact=True, timeout=self._api.server_timeout)
        return (await self._on_server("Points/Count", request, grpc.CountResponse)).result.count

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make a collection with its payload indexes. Raises Conflict when the name is taken, Terminal, Retryable."""
        check_definition(definition, self.capabilities, tuning.KNOWN)
        name = definition.name
        request = tuning.creation(definition.settings, definition.dimension, DISTANCES[definition.metric])
        request.collection_name, request.timeout = name, self._api.server_timeout
        values = {
            INCARNATION: str(uuid.uuid4()),
            MARK: None if definition.mark is None else str(definition.mark),
            FINGERPRINT: definition.model_fingerprint,
        }
        for key, value in metadata_of({key: value for key, value in values.items() if value is not None}).items():
            request.metadata[key].CopyFrom(value)
        taken = Conflict(f"an index named {name!r} exists already in this store", reason="AlreadyExists")
        try:
            made = await self._api.call("Collections/Create", request, grpc.CollectionOperationResponse)
        except Conflict:
            raise taken from None
        except Terminal as refused:
            # Older servers call a taken name a wrong request.
            raise taken if "already exists" in refused.message else refused from None
        if not made.result:
            raise taken
        await self._until_ready(name)
        await self._index_fields(name, {**OWN_FIELDS, **{field.name: field.type for field in definition.fields}})
        return await self._described(await self._look_up(name), up_to=CHEAP_COUNT)

    async def _until_ready(self, name: str) -> None:
        pause, until = 0.05, time.monotonic() + self._timeout
        while (await self._look_up(name)).info.status not in READY:
            if time.monotonic() > until:
                raise Retryable(
                    f"index {name}: Qdrant made the collection, and it does not take writes yet", reason="IndexNotReady"
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _index_fields(self, name: str, fields: Mapping[str, str]) -> None:
        for field, kind in fields.items():
            request = grpc.CreateFieldIndexCollection(
                collection_name=name,
                field_name=field,
                field_type=grpc.FieldType.Value(FIELD_TYPES[kind]),
                wait=True,
                timeout=self._api.server_timeout,
            )
            await self._on_server("Points/CreateFieldIndex", request, grpc.PointsOperationResponse)

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change settings and index fields. Raises NotFound, Terminal."""
        check_settings(settings, tuning.KNOWN)
        check_fields(new_fields, self.capabilities)
        for setting in settings.keys() - tuning.MUTABLE.keys():
            raise Terminal(
                f"index {name}: Qdrant cannot change {setting} after creation: make a new index",
                reason="ImmutableSetting",
            )
        collection = await self._look_up(name)
        for field in new_fields:
            if collection.types.get(field.name, field.type) != field.type:
                raise Terminal(
                    f"index {name}: metadata field {field.name!r} is indexed as {collection.types[field.name]} already",
                    reason="InvalidField",
                )
        if settings:
            vector = collection.vector or grpc.VectorParams()
            await self._change(name, tuning.change(settings, collection.settings(), vector, collection.vector_name))
        if new_fields:
            wanted = {**OWN_FIELDS, **{field.name: field.type for field in new_fields}}
            await self._index_fields(name, {key: wanted[key] for key in wanted if key not in collection.types})
        self._known.pop(name, None)

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint; other metadata of the collection stays. Raises NotFound."""
        collection = await self._look_up(name)
        values = {MARK: None if mark is None else str(mark), FINGERPRINT: model_fingerprint}
        changed = {key: value for key, value in values.items() if collection.text(key) != value}
        if changed:
            request = grpc.UpdateCollection()
            for key, value in metadata_of(changed).items():
                request.metadata[key].CopyFrom(value)
            await self._change(name, request)

    async def _change(self, name: str, request: grpc.UpdateCollection) -> None:
        request.collection_name, request.timeout = name, self._api.server_timeout
        self._known.pop(name, None)
        await self._on_server("Collections/Update", request, grpc.CollectionOperationResponse)

    async def delete_index(self, name: str) -> None:
        """Drop a collection with the aliases that point to it. Raises NotFound, also for an alias."""
        self._known.pop(name, None)
        self._check_possible(name)
        request = grpc.DeleteCollection(collection_name=name, timeout=self._api.server_timeout)
        deleted = await self._on_server("Collections/Delete", request, grpc.CollectionOperationResponse)
        if not deleted.result:
            raise absent(name)

    async def aliases(self) -> dict[str, str]:
        """Alias → collection."""
        found = await self._api.call("Collections/ListAliases", grpc.ListAliasesRequest(), grpc.ListAliasesResponse)
        return {one.alias_name: one.collection_name for one in sorted(found.aliases, key=lambda one: one.alias_name)}

    async def set_alias(self, alias: str, index: str) -> None:
        """Point an alias at a collection in one step. Raises NotFound, Conflict where a collection has its name."""
        if not self._possible(alias):
            raise Terminal(
                f"alias {alias[:200]!r} is not taken by this store: it must match {self.capabilities.name_pattern}",
                reason="InvalidName",
            )
        present, names = await self.aliases(), await self._names()
        if index not in names:
            raise absent(index)
        if alias in names:
            raise Conflict(f"an index is named {alias!r}: an alias cannot have its name", reason="AlreadyExists")
        if present.get(alias) == index:
            return
        actions = [
            grpc.AliasOperations(create_alias=grpc.CreateAlias(collection_name=index, alias_name=alias)),
        ]
        if alias in present:
            actions.insert(0, grpc.AliasOperations(delete_alias=grpc.DeleteAlias(alias_name=alias)))
        await self._change_aliases(actions)
        self._known.pop(alias, None)

    async def delete_alias(self, alias: str) -> None:
        """Remove an alias. Raises NotFound."""
        if alias not in await self.aliases():
            raise NotFound(f"alias {alias[:200]!r} does not exist in this store")
        await self._change_aliases([grpc.AliasOperations(delete_alias=grpc.DeleteAlias(alias_name=alias))])
        self._known.pop(alias, None)

    async def _change_aliases(self, actions: Sequence[grpc.AliasOperations]) -> None:
        request = grpc.ChangeAliases(actions=actions, timeout=self._api.server_timeout)
        await self._api.call("Collections/UpdateAliases", request, grpc.CollectionOperationResponse)

    async def _names(self) -> set[str]:
        found = await self._api.call("Collections/List", grpc.ListCollectionsRequest(), grpc.ListCollectionsResponse)
        return {one.name for one in found.collections}

    def _possible(self, name: str) -> bool:
        return re.fullmatch(self.capabilities.name_pattern, name) is not None

    def _check_possible(self, name: str) -> None:
        """Raise NotFound for what no collection can be called, where the server would call it a wrong request."""
        if not name or len(name) > 255 or re.search(r'[/\\<>:"|?*\x00-\x1f]', name):
            raise absent(name)

    async def _look_up(self, name: str) -> Collection:
        """The collection of that name or alias, as it is now; nothing of it is kept. Raises NotFound."""
        self._known.pop(name, None)
        self._check_possible(name)
        request = grpc.GetCollectionInfoRequest(collection_name=name)
        found = await self._on_server("Collections/Get", request, grpc.GetCollectionInfoResponse)
        return Collection(name, found.result)

    async def _resolve(self, name: str) -> Collection:
        """The same, and remembered for what is done with its points."""
        collection = await self._look_up(name)
        self._known[name] = time.monotonic(), collection
        return collection

    async def _recent(self, name: str) -> Collection:
        """The collection as it was at most ten seconds ago. Raises NotFound."""
        when, known = self._known.get(name, (-REMEMBERED, None))
        if known is not None and time.monotonic() - when < REMEMBERED:
            return known
        return await self._resolve(name)

    async def _on_server(
        self, method: str, request: Any, answer: type[Answer], *, name: str = "", writes: bool = False
    ) -> Answer:
        """A call about one collection: what the server does not find is that collection."""
        name = name or request.collection_name
        try:
            return await self._api.call(method, request, answer, writes=writes)
        except NotFound:
            self._known.pop(name, None)
            raise absent(name) from None


def absent(name: str) -> NotFound:
    """The error for an index that does not exist."""
    return NotFound(f"index {name[:200]!r} does not exist in this store")
