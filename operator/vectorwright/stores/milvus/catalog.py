"""The collections of one database as indexes: found, made, marked, dropped; their aliases and partitions."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Mapping, Sequence

import orjson

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal, VectorwrightError

from ..absent import ClosingStore
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
from ..server_checks import check_definition, check_fields, check_name, check_settings
from .building import Building, index_plan
from .errors import IndexNotFound, Missing
from .names import from_milvus, to_milvus
from .rpc import MilvusApi
from .schema import (
    FIELDS,
    FINGERPRINT,
    IDENTITY,
    INDEX,
    MARK,
    MAX_VARCHAR,
    METRICS,
    MMAP,
    SETTINGS,
    Collection,
    schema_of,
)
from .settings import (
    CONSISTENCY_LEVELS,
    KNOWN_SETTINGS,
    MUTABLE,
    VectorIndex,
    check_update,
    check_values,
    recorded,
    vector_index,
)
from .stubs import milvus_pb2, pairs

CAPABILITIES = Capabilities(
    metrics=frozenset(METRICS),
    max_dimension=32_768,
    # Also names that begin with an underscore: collections of others have them.
    name_pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$",
    max_batch_bytes=32 * 2**20,
    max_metadata_bytes=65_000,
    max_text_bytes=MAX_VARCHAR,
    mutable_settings=MUTABLE,
    list_metadata=True,
    aliases=True,
    atomic_alias_swap=True,
    namespaces=True,
    filtered_count=True,
    sparse_vectors=True,
    rotation_strategies=frozenset({"InPlace", "DualIdentity"}),
    filter_limits=("Ranges without bounds, and numbers that are not finite, are refused.",),
)


REMEMBER_SECONDS = 30.0
_NAMED = re.compile(r"[A-Za-z0-9._-]+")
"""What the name of a collection or an alias can be read as: whatever else is asked for does not exist."""


def absent(name: str) -> NotFound:
    """The error for an index that is not there."""
    return NotFound(f"index {name[:200]!r} does not exist in this store")


def _properties(definition: IndexDefinition, index: VectorIndex) -> dict[str, str]:
    """What a collection is made with, beside its columns."""
    settings = recorded(definition.settings)
    made = {
        FIELDS: orjson.dumps({field.name: field.type for field in definition.fields}).decode(),
        IDENTITY: secrets.token_hex(8),
        INDEX: index_plan(index, definition.metric),
    }
    if definition.mark is not None:
        made[MARK] = str(definition.mark)
    if definition.model_fingerprint is not None:
        made[FINGERPRINT] = definition.model_fingerprint
    if settings:
        made[SETTINGS] = orjson.dumps(settings).decode()
    if "mmap" in settings:
        made[MMAP] = "true" if settings["mmap"] else "false"
    return made


class MilvusCatalog(ClosingStore):
    """What is done with collections; :class:`.store.MilvusStore` adds what is done with their records."""

    def __init__(self, connection: Connection) -> None:
        self.capabilities = CAPABILITIES
        self._api = MilvusApi(connection)
        self._building = Building(self._api)
        self._known: dict[str, Collection] = {}
        self._seen: dict[str, float] = {}

    async def close(self) -> None:
        """Release the connection. Safe to call twice."""
        await self._api.close()

    async def probe(self) -> StoreInfo:
        """The version. Milvus has no identity of its own: the backend is the address and the database.

        Raises Terminal (``AccessDenied``, ``DatabaseNotFound``), Retryable.
        """
        version = await self._building.version()
        # Versions are told to anybody; who may not list is told here.
        await self._api.call("ShowCollections", milvus_pb2.ShowCollectionsRequest(), "ShowCollectionsResponse")
        identity = f"milvus:{self._api.endpoint}/{self._api.database}"
        return StoreInfo(version, identity, self._api.endpoint, self.capabilities)

    async def list_indexes(self) -> list[IndexDescription]:
        """Every collection of the database: one request for all, and two for each."""
        shown = await self._api.call("ShowCollections", milvus_pb2.ShowCollectionsRequest(), "ShowCollectionsResponse")
        found = await asyncio.gather(*(self._found(name) for name in shown.collection_names))
        collections = [one for one in found if one is not None]
        return sorted((one.describe() for one in collections), key=lambda one: one.name)

    async def _found(self, theirs: str) -> Collection | None:
        try:
            return await self._described(theirs)
        except Missing:
            return None  # dropped while it was listed

    async def _described(self, theirs: str) -> Collection:
        request = milvus_pb2.DescribeCollectionRequest(collection_name=theirs)
        answer = await self._api.call("DescribeCollection", request, "DescribeCollectionResponse")
        try:
            indexes = await self._api.call(
                "DescribeIndex", milvus_pb2.DescribeIndexRequest(collection_name=theirs), "DescribeIndexResponse"
            )
        except IndexNotFound:
            return Collection.parse(answer, ())
        return Collection.parse(answer, indexes.index_descriptions)

    async def _resolve(self, name: str) -> Collection:
        """The collection as it is now, by its name or alias. Raises NotFound."""
        self._known.pop(name, None)
        if not _NAMED.fullmatch(name):
            raise absent(name)
        try:
            collection = await self._described(to_milvus(name))
        except NotFound:
            raise absent(name) from None
        if collection.name == name:  # an alias may point elsewhere at any moment
            self._known[name] = collection
            self._seen[name] = time.monotonic()
        return collection

    def _remembered(self, name: str) -> Collection | None:
        """What was seen of a collection a short while ago: one that was made again may have other columns."""
        if time.monotonic() - self._seen.get(name, 0.0) > REMEMBER_SECONDS:
            self._known.pop(name, None)
        return self._known.get(name)

    async def _own(self, name: str) -> Collection:
        """The collection of that very name. Raises NotFound, also for an alias."""
        collection = await self._resolve(name)
        if collection.name != name:
            raise NotFound(f"index {name[:200]!r} does not exist in this store: it is an alias of {collection.name!r}")
        return collection

    async def describe_index(self, name: str) -> IndexDescription:
        """One index, by its name or alias. Raises NotFound."""
        return (await self._resolve(name)).describe()

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make a collection with its indexes and load it; what was made is dropped again where that fails.

        Raises Conflict when a collection or an alias has the name, Terminal for a bad definition.
        """
        check_definition(definition, self.capabilities, KNOWN_SETTINGS)
        check_values(definition.settings)
        index, theirs = vector_index(definition.settings), to_milvus(definition.name)
        nullable = await self._building.nullable()
        taken = await self._found(theirs)
        if taken is not None:
            what = "a collection" if taken.theirs == theirs else "an alias"
            raise Conflict(f"{what} named {definition.name!r} exists already in this store", reason="AlreadyExists")
        level, properties = definition.settings.get("consistency_level"), _properties(definition, index)
        request = milvus_pb2.CreateCollectionRequest(
            collection_name=theirs,
            schema=schema_of(definition, theirs, nullable=nullable).SerializeToString(),
            shards_num=int(definition.settings.get("shards", 0)),
            # Bounded is Milvus' own default; a request without one would mean Strong.
            consistency_level=CONSISTENCY_LEVELS.index(str(level or "Bounded")),
            properties=pairs(properties),
        )
        try:
            await self._api.call("CreateCollection", request)
        except Conflict:
            raise Conflict(f"a collection named {definition.name!r} exists already", reason="AlreadyExists") from None
        except (Terminal, Retryable):
            await self._check_ours(definition.name, properties[IDENTITY])  # somebody else may have been faster
            raise
        made = await self._check_ours(definition.name, properties[IDENTITY])
        try:
            if made is not None:
                await self._building.finish(made)
        except VectorwrightError:
            await self._api.call("DropCollection", milvus_pb2.DropCollectionRequest(collection_name=theirs))
            raise
        return await self.describe_index(definition.name)

    async def _check_ours(self, name: str, identity: str) -> Collection | None:
        """The collection of that name, if there is one. Raises Conflict where somebody else made it."""
        found = await self._found(to_milvus(name))
        if found is not None and found.properties.get(IDENTITY) != identity:
            raise Conflict(f"a collection named {name!r} was made by somebody else just now", reason="AlreadyExists")
        return found

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change how an index is searched, built and loaded, declare fields, finish a rebuild that broke off.

        A field that is added later gets no column: it is filtered by its place in ``metadata``. Raises NotFound,
        Terminal.
        """
        check_settings(settings, KNOWN_SETTINGS)
        check_values(settings)
        check_fields(new_fields, self.capabilities)
        collection = await self._own(name)
        changed = {key: value for key, value in settings.items() if collection.settings.get(key) != value}
        check_update(changed)
        fields = dict(collection.fields or {})
        for one in new_fields:
            if fields.get(one.name, one.type) != one.type:
                raise Terminal(
                    f"index {name}: metadata field {one.name!r} is declared as {fields[one.name]} already",
                    reason="InvalidField",
                )
            fields[one.name] = one.type
        index = vector_index(settings, collection.planned)
        written: dict[str, str] = {}
        if new_fields and fields != collection.fields:
            written[FIELDS] = orjson.dumps(fields).decode()
        if changed:
            written[SETTINGS] = orjson.dumps(collection.recorded | recorded(settings)).decode()
        rebuilt = index != collection.planned or (collection.ours and collection.index is None)
        if rebuilt:
            written[INDEX] = index_plan(index, collection.metric)
        reloaded = {key: value for key, value in changed.items() if key in {"replicas", "mmap"}}
        if written:
            await self._alter(collection, written)
        if rebuilt or reloaded:
            await self._building.rebuild(await self._own(name), index if rebuilt else None, mmap=reloaded.get("mmap"))
        self._known.pop(name, None)

    async def _alter(self, collection: Collection, properties: dict[str, str]) -> None:
        request = milvus_pb2.AlterCollectionRequest(collection_name=collection.theirs, properties=pairs(properties))
        await self._api.call("AlterCollection", request)
        self._known.pop(collection.name, None)

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or (None) empty the properties with mark and fingerprint; other properties stay.

        Raises NotFound, and Terminal (``UnsupportedCollection``) for a mark on a collection with other columns.
        """
        collection = await self._own(name)
        if mark is not None and not collection.ours:
            raise Terminal(
                f"collection {name!r} cannot be taken over: it needs the columns id (VARCHAR, primary), vector "
                "(FLOAT_VECTOR), text (VARCHAR), metadata (JSON) and vw_mixed (BOOL), no partition key, and all others "
                "nullable. Copy it into a new index with an IngestionJob",
                reason="UnsupportedCollection",
            )
        wanted = {MARK: str(mark or ""), FINGERPRINT: model_fingerprint or ""}
        changed = {key: value for key, value in wanted.items() if collection.properties.get(key, "") != value}
        if changed:
            await self._alter(collection, changed)

    async def delete_index(self, name: str) -> None:
        """Drop a collection with its aliases: Milvus refuses to drop one that has any. Raises NotFound."""
        collection = await self._own(name)
        for alias in await self._aliases_of(collection.theirs):
            await self._drop_alias(alias)
        await self._api.call("DropCollection", milvus_pb2.DropCollectionRequest(collection_name=collection.theirs))
        self._known.pop(name, None)

    async def _aliases_of(self, theirs: str = "") -> list[str]:
        request = milvus_pb2.ListAliasesRequest(collection_name=theirs)
        return list((await self._api.call("ListAliases", request, "ListAliasesResponse")).aliases)

    async def _drop_alias(self, theirs: str) -> None:
        await self._api.call("DropAlias", milvus_pb2.DropAliasRequest(alias=theirs))

    async def aliases(self) -> dict[str, str]:
        """Alias → index: one request for all names, and one for each."""
        names = await self._aliases_of()
        targets = await asyncio.gather(*(self._target(alias) for alias in names))
        found = sorted(zip(names, targets, strict=True))
        return {from_milvus(alias): from_milvus(target) for alias, target in found if target}

    async def _target(self, theirs: str) -> str:
        request = milvus_pb2.DescribeAliasRequest(alias=theirs)
        try:
            return str((await self._api.call("DescribeAlias", request, "DescribeAliasResponse")).collection)
        except Missing:
            return ""

    async def set_alias(self, alias: str, index: str) -> None:
        """Point an alias at an index, in one step. Raises NotFound, and Conflict where an index has that name."""
        check_name(alias, self.capabilities)
        collection, theirs = await self._own(index), to_milvus(alias)
        if theirs in await self._aliases_of():
            kind, method = milvus_pb2.AlterAliasRequest, "AlterAlias"
        elif await self._found(theirs) is not None:
            raise Conflict(f"an index is named {alias!r}: an alias cannot have its name", reason="AlreadyExists")
        else:
            kind, method = milvus_pb2.CreateAliasRequest, "CreateAlias"
        await self._api.call(method, kind(alias=theirs, collection_name=collection.theirs))
        self._known.pop(alias, None)

    async def delete_alias(self, alias: str) -> None:
        """Remove an alias. Raises NotFound."""
        theirs = to_milvus(alias) if _NAMED.fullmatch(alias) else ""
        if not theirs or theirs not in await self._aliases_of():
            raise NotFound(f"alias {alias[:200]!r} does not exist in this store")
        await self._drop_alias(theirs)
        self._known.pop(alias, None)
