"""What is done with collections, over REST; :class:`.store.WeaviateStore` adds what is done with their records."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import quote

import httpx
import orjson

from vectorwright.errors import Conflict, NotFound, Terminal

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
from . import settings as tuning
from .channel import WeaviateGrpc
from .collection import TERMS, Collection, creation, properties_of_field
from .names import NAME_PATTERN, collection_name, index_name
from .transport import Absent, Refused, WeaviateRest

OLDEST = (1, 33)
"""Negation in filters came with 1.33, aliases with 1.32."""
KNOWN_SECONDS = 5.0
"""How long reads trust what they know of a collection. Writes ask each time: see :meth:`WeaviateCatalog._resolve`."""

CAPABILITIES = Capabilities(
    metrics=frozenset(tuning.DISTANCES),
    max_dimension=65_535,
    # A batch is indexed before it is acknowledged, and a request has a timeout. Larger ones are not faster.
    max_batch_records=1_000,
    # The server takes 100 MB by default (/v1/meta, grpcMaxMessageSize).
    max_batch_bytes=32 * 2**20,
    name_pattern=NAME_PATTERN,
    # The nil UUID is where a scroll begins.
    id_pattern=r"^(?!0{8}-0{4}-0{4}-0{4}-0{12}$)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    mutable_settings=tuning.MUTABLE,
    list_metadata=True,
    aliases=True,
    atomic_alias_swap=True,
    namespaces=True,
    namespace_pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
    backups=True,
    rotation_strategies=frozenset({"InPlace", "DualIdentity"}),
    filtered_count=True,
    filter_limits=(
        "Ranges are possible of fields that were declared when the index was made, and of vw_n and vw_count.",
        "Indexes that Vectorwright did not make are filtered by reserved fields only.",
    ),
)


class WeaviateCatalog(ClosingStore):
    """The collections of a Weaviate server."""

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.capabilities = CAPABILITIES
        slots = asyncio.Semaphore(connection.max_concurrency)
        self._namespace = connection.namespace
        self._grpc = WeaviateGrpc(connection, slots)
        self._rest = WeaviateRest(connection, slots, transport)
        self._known: dict[str, tuple[float, Collection]] = {}

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._rest.close()
        await self._grpc.close()

    async def probe(self) -> StoreInfo:
        """Version, and whether both of its APIs can be reached.

        Raises Terminal (``UnsupportedVersion``, ``AccessDenied``), Retryable.
        """
        try:
            meta = await self._rest.get("/meta")
        except (Absent, Refused):
            raise self._rest.stranger(404) from None
        version = str(meta.get("version") or "")
        numbers = re.match(r"v?(\d+)\.(\d+)", version)
        if numbers is None:
            raise self._rest.stranger(200)
        if (int(numbers[1]), int(numbers[2])) < OLDEST:
            raise Terminal(
                f"{self._rest.endpoint} is Weaviate {version[:20]}: {OLDEST[0]}.{OLDEST[1]} or newer is needed",
                reason="UnsupportedVersion",
            )
        await self._grpc.reach()
        digest = hashlib.sha256(self._rest.endpoint.encode()).hexdigest()[:32]
        return StoreInfo(version, f"weaviate:{digest}", self._rest.endpoint, self.capabilities)

    async def list_indexes(self) -> list[IndexDescription]:
        """Every collection, in one request."""
        return sorted((one.describe() for one in (await self._schema()).values()), key=lambda index: index.name)

    async def _schema(self) -> dict[str, Collection]:
        """All collections, by their names in Weaviate."""
        try:
            found = (await self._rest.get("/schema")).get("classes")
        except (Absent, Refused):
            raise self._rest.stranger(404) from None
        if not isinstance(found, list):
            raise self._rest.stranger(200)
        return {one.name: one for one in map(Collection.parse, found)}

    async def describe_index(self, name: str) -> IndexDescription:
        """One collection, by its name or alias. Raises NotFound."""
        return (await self._resolve(name)).describe()

    async def _resolve(self, name: str) -> Collection:
        """The collection of that name or alias, as it is now. Raises NotFound.

        Writes ask this first: a server makes a collection by itself where records of one that is gone are written.
        """
        self._known.pop(name, None)
        wanted = collection_name(name)
        if wanted is None:
            raise absent(name)
        try:
            body = await self._rest.get(f"/schema/{wanted}")
        except Refused as error:
            self._refuse(name, error)
        except Absent as error:
            if not error.certain:
                # Anything may have given an answer without a body: that the schema can be read is better proof.
                await self._schema()
            raise absent(name) from None
        found = Collection.parse(body)
        if found.name == wanted:  # an alias may point elsewhere at any moment
            self._known[name] = (time.monotonic(), found)
        return found

    async def _known_or_resolved(self, name: str) -> Collection:
        """The collection as it was at most some seconds ago. Raises NotFound."""
        since, found = self._known.get(name, (0.0, None))
        # One of others' making gets what filters ask with the first write to it.
        if found is not None and found.has(TERMS) and time.monotonic() - since < KNOWN_SECONDS:
            return found
        return await self._resolve(name)

    def _refuse(self, name: str, error: Refused) -> NoReturn:
        raise Terminal(f"index {name[:200]}: Weaviate refused it: {error.told}", reason="InvalidRequest") from None

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make a collection. Raises Conflict when the name is taken, Terminal for a bad definition."""
        check_definition(definition, self.capabilities, tuning.KNOWN)
        name = collection_name(definition.name)
        if name is None:
            raise Terminal(f"index name {definition.name[:200]!r} is not possible in Weaviate", reason="InvalidName")
        try:
            await self._rest.call("POST", "/schema", creation(definition, name))
        except Absent:
            raise self._rest.stranger(404) from None
        except Refused as error:
            if "already exists" in error.told:
                raise Conflict(
                    f"a collection or alias {name!r}, which an index named {definition.name!r} needs, exists already "
                    f"in this store: {error.told}",
                    reason="AlreadyExists",
                ) from None
            raise Terminal(
                f"index {definition.name}: Weaviate refused the definition: {error.told}", reason="InvalidSetting"
            ) from None
        return (await self._resolve(definition.name)).describe()

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change settings, declare fields. Raises NotFound, Terminal.

        A field that is declared later can be filtered by equality like any other, but not by ranges: what was written
        before carries no key of it.
        """
        check_settings(settings, tuning.KNOWN)
        check_fields(new_fields, self.capabilities)
        for setting in sorted(settings.keys() - self.capabilities.mutable_settings.keys()):
            raise Terminal(
                f"index {name}: Weaviate cannot change {setting} after creation: make a new index",
                reason="ImmutableSetting",
            )
        collection = await self._resolve(name)
        declared = {field.name: field for field in collection.fields}
        for field in new_fields:
            if declared.get(field.name, field) != field:
                raise Terminal(
                    f"index {name}: metadata field {field.name!r} is declared as {declared[field.name].type} already",
                    reason="InvalidField",
                )
        added = [field for field in new_fields if field.name not in declared]
        if settings:
            await self._change_settings(name, settings)
        if added:
            await self._add_fields(name, collection, added)

    async def _change_settings(self, name: str, settings: Mapping[str, Setting]) -> None:
        collection = await self._resolve(name)
        if collection.vector is None:
            raise Terminal(
                f"index {name}: its collection has several vectors or none; those with one can be changed",
                reason="UnsupportedSetting",
            )
        body: dict[str, Any] = orjson.loads(orjson.dumps(collection.body))
        holder = body["vectorConfig"][collection.vector] if collection.vector else body
        tuning.apply(holder["vectorIndexConfig"], collection.index_type, settings)
        await self._put(name, collection, body)
        seen = (await self._resolve(name)).describe().settings
        for setting, value in settings.items():
            if seen.get(setting) != value:
                raise Terminal(
                    f"index {name}: Weaviate left {setting} at {seen.get(setting)!r} when {value!r} was asked for: "
                    "make a new index",
                    reason="ImmutableSetting",
                )

    async def _add_fields(self, name: str, collection: Collection, fields: Sequence[FieldDefinition]) -> None:
        for field in fields:
            taken = {one.lower() for one in collection.properties}
            for body in properties_of_field(field, ranged=False, taken=taken):
                await self._add_property(name, collection, body)
        ours = collection.ours
        added = {field.name: field.type for field in fields}
        late = sorted({*(ours.get("late") or ()), *added})
        await self._describe_as(name, {"fields": {**(ours.get("fields") or {}), **added}, "late": late})

    async def _add_property(self, name: str, collection: Collection, body: Mapping[str, Any]) -> None:
        if collection.has(str(body["name"])):
            return
        try:
            await self._rest.call("POST", f"/schema/{collection.name}/properties", dict(body))
        except Refused as error:
            if "already in use" not in error.told:  # another writer added it
                self._refuse(name, error)
        except Absent:
            raise absent(name) from None

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint; what else the description says stays. Raises NotFound."""
        await self._describe_as(name, {"mark": None if mark is None else str(mark), "model": model_fingerprint})

    async def _describe_as(self, name: str, changes: Mapping[str, Any]) -> None:
        collection = await self._resolve(name)
        description = collection.description_with(changes)
        if description != (collection.body.get("description") or ""):
            await self._put(name, collection, {**collection.body, "description": description})

    async def _put(self, name: str, collection: Collection, body: Mapping[str, Any]) -> None:
        self._known.pop(name, None)
        try:
            await self._rest.call("PUT", f"/schema/{collection.name}", dict(body))
        except Refused as error:
            reason = "ImmutableSetting" if "immutable" in error.told else "InvalidSetting"
            raise Terminal(f"index {name}: Weaviate refused the change: {error.told}", reason=reason) from None
        except Absent:
            raise absent(name) from None

    async def delete_index(self, name: str) -> None:
        """Drop a collection by its own name, with the aliases that point to it. Raises NotFound."""
        collection = await self._resolve(name)
        if collection.name != collection_name(name):
            raise absent(name)  # an alias
        self._known.pop(name, None)
        for alias, target in (await self._aliases()).items():
            if target == collection.name:
                await self._drop_alias(alias)
        try:
            await self._rest.call("DELETE", f"/schema/{collection.name}")
        except Absent:
            raise absent(name) from None
        except Refused as error:
            self._refuse(name, error)

    async def delete_namespace(self, name: str, namespace: str) -> None:
        """Delete a tenant with all its records. Raises NotFound, Terminal where the index has no tenants."""
        collection = await self._resolve(name)
        if not collection.multi_tenant:
            raise not_divided(name, namespace)
        missing = NotFound(f"index {name} has no namespace {namespace[:100]!r}")
        if not re.fullmatch(self.capabilities.namespace_pattern, namespace):
            raise missing
        try:
            await self._rest.get(f"/schema/{collection.name}/tenants/{quote(namespace, safe='')}")
            await self._rest.call("DELETE", f"/schema/{collection.name}/tenants", [namespace])
        except Absent:
            raise missing from None
        except Refused as error:
            self._refuse(name, error)

    async def _tenants(self, name: str, collection: Collection) -> dict[str, bool]:
        """The tenants of a collection, and whether each is active."""
        try:
            found = await self._rest.call("GET", f"/schema/{collection.name}/tenants")
        except Absent:
            raise absent(name) from None
        except Refused as error:
            self._refuse(name, error)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self._rest.stranger(200)
        return {str(one.get("name")): one.get("activityStatus") in {"HOT", "ACTIVE"} for one in found}

    async def _aliases(self) -> dict[str, str]:
        """Aliases and their collections, by their names in Weaviate."""
        try:
            found = (await self._rest.get("/aliases")).get("aliases") or []
        except (Absent, Refused):
            raise self._rest.stranger(404) from None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self._rest.stranger(200)
        return {str(one.get("alias")): str(one.get("class")) for one in found}

    async def aliases(self) -> dict[str, str]:
        """Alias → index."""
        return {index_name(alias): index_name(target) for alias, target in (await self._aliases()).items()}

    async def set_alias(self, alias: str, index: str) -> None:
        """Point an alias at an index, in one step. Raises NotFound, Conflict where an index has the name."""
        check_name(alias, self.capabilities)
        target, wanted = (await self._resolve(index)).name, collection_name(alias)
        try:
            await self._rest.call("PUT", f"/aliases/{wanted}", {"class": target})
        except Absent:
            try:
                await self._rest.call("POST", "/aliases", {"alias": wanted, "class": target})
            except Absent:
                raise absent(index) from None
            except Refused as error:
                if "already exists" in error.told:
                    raise Conflict(
                        f"alias {alias!r} cannot be made: an index of that name exists already, or another made it at "
                        "the same time",
                        reason="AlreadyExists",
                    ) from None
                self._refuse(alias, error)
        except Refused as error:
            self._refuse(alias, error)
        self._known.pop(alias, None)

    async def delete_alias(self, alias: str) -> None:
        """Remove an alias. Raises NotFound."""
        wanted = collection_name(alias)
        if wanted is None or not await self._drop_alias(wanted):
            raise NotFound(f"alias {alias[:200]!r} does not exist in this store")
        self._known.pop(alias, None)

    async def _drop_alias(self, alias: str) -> bool:
        try:
            await self._rest.call("DELETE", f"/aliases/{alias}")
        except Absent:
            return False
        except Refused as error:
            self._refuse(alias, error)
        return True


def absent(name: str) -> NotFound:
    """The error for an index that is not there."""
    return NotFound(f"index {name[:200]!r} does not exist in this store")


def not_divided(name: str, namespace: str) -> Terminal:
    """The error for a namespace of an index that has none."""
    return Terminal(
        f"namespace {namespace[:100]!r} of index {name[:200]}: it is not divided into tenants: make an index with "
        "spec.tuning.weaviate.multiTenancy",
        reason="UnsupportedNamespace",
    )
