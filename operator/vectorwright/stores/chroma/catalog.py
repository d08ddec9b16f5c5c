"""The collections of one Chroma database as indexes: found, made, changed, marked, dropped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import orjson

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal

from ..absent import StoreWithoutAliases, StoreWithoutNamespaces
from ..base import (
    Capabilities,
    ChangeClass,
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
from .collection_ids import (
    FIELDS,
    FINGERPRINT,
    IMMUTABLE,
    MARK,
    MUTABLE,
    SPACES,
    Collection,
    creation,
    encode_fields,
    hnsw,
)
from .listing import snapshot
from .transport import ChromaApi

T = TypeVar("T")

CAPABILITIES = Capabilities(
    metrics=frozenset(SPACES),
    max_dimension=65_535,
    # No datetime: Chroma compares numbers only.
    field_types=frozenset({"keyword", "integer", "float", "bool"}),
    # What chromadb 1.5 tells in /pre-flight-checks; a probe puts the server's own figure here.
    max_batch_records=5_461,
    # The server refuses bodies above 40 MiB; base64 adds a third.
    max_batch_bytes=24 * 2**20,
    name_pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,510}[A-Za-z0-9]$",
    mutable_settings={f"hnsw.{name}": ChangeClass.SAFE for name in MUTABLE},
    list_metadata=True,
    # Not at once: a vector is kept as it came until it is built into the HNSW index, some hundred writes later.
    normalises=True,
    rotation_strategies=frozenset({"Generate"}),
    filter_limits=(
        "It has no datetime fields and no ranges of strings.",
        "It cannot ask whether a field exists.",
        "It cannot negate a range.",
    ),
)
KNOWN_SETTINGS = tuple(f"hnsw.{name}" for name in (*IMMUTABLE, *MUTABLE))

COLLECTIONS_PAGE = 2_000
_NIL_ID = "00000000-0000-0000-0000-000000000000"
"""The id of the default database on every server."""


class ChromaCatalog(StoreWithoutAliases, StoreWithoutNamespaces):
    """What is done with collections; :class:`.chroma.ChromaStore` adds what is done with their records."""

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.capabilities = CAPABILITIES
        self._api = ChromaApi(connection, transport)
        self._known: dict[str, Collection] = {}
        self._as_base64: bool | None = None

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._api.close()

    async def probe(self) -> StoreInfo:
        """Version, limits and whether the database is there.

        Raises Terminal (``UnsupportedVersion``, ``DatabaseNotFound``, ``AccessDenied``), Retryable.
        """
        version = str(await self._api.server("GET", "/version"))
        if not re.match(r"[1-9]", version):
            raise Terminal(
                f"{self._api.endpoint} is Chroma {version[:20]!r}: 1.0 or newer is needed", reason="UnsupportedVersion"
            )
        await self._learn_limits()
        return StoreInfo(version, await self._backend_id(), self._api.endpoint, self.capabilities)

    async def _backend_id(self) -> str:
        """A database that somebody made has an id of its own; the default one is told apart by where it is."""
        api = self._api
        database = await self._database()
        if database not in ("", _NIL_ID):
            return f"chroma:{database}"
        place = f"{api.endpoint}\n{api.tenant}\n{api.database}"
        return f"chroma:{hashlib.sha256(place.encode()).hexdigest()[:32]}"

    async def _database(self) -> str:
        """The id of the database. Raises Terminal where there is none: its collections are not "lost"."""
        try:
            found = await self._api.call("GET")
        except NotFound:
            raise Terminal(
                f"{self._api.endpoint} has no database {self._api.database!r} in tenant {self._api.tenant!r}: make it, "
                "or correct spec.chroma",
                reason="DatabaseNotFound",
            ) from None
        return str(found.get("id") or "") if isinstance(found, dict) else ""

    async def _learn_limits(self) -> bool:
        """Ask for the server's limits; whether it takes vectors in base64."""
        limits = await self._api.server("GET", "/pre-flight-checks")
        if not isinstance(limits, dict):
            raise Retryable(
                f"{self._api.endpoint} does not answer like Chroma: check spec.chroma.url", reason=UNEXPECTED_ANSWER
            )
        most = limits.get("max_batch_size")
        if isinstance(most, int) and most > 0:
            self.capabilities = replace(self.capabilities, max_batch_records=most)
        self._as_base64 = bool(limits.get("supports_base64_encoding"))
        return self._as_base64

    async def list_indexes(self) -> list[IndexDescription]:
        """Every collection of the database; one request up to 2,000 of them."""

        async def page(limit: int, offset: int) -> list[Collection]:
            found = await self._api.call("GET", "/collections", params={"limit": limit, "offset": offset})
            return [Collection.parse(body) for body in (found if isinstance(found, list) else [None])]

        found = await snapshot(page, COLLECTIONS_PAGE, key=lambda collection: collection.id)
        if not found:
            await self._database()  # a database that does not exist lists nothing, too
        self._known = {collection.name: collection for collection in found}
        return sorted((collection.describe() for collection in found), key=lambda index: index.name)

    async def describe_index(self, name: str) -> IndexDescription:
        """One collection. Raises NotFound."""
        return (await self._resolve(name)).describe()

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make a collection. Raises Conflict when the name is taken, Terminal for a bad definition."""
        check_definition(definition, self.capabilities, KNOWN_SETTINGS)
        try:
            made = await self._api.call("POST", "/collections", body=orjson.dumps(creation(definition)))
        except Conflict:
            raise Conflict(
                f"an index named {definition.name!r} exists already in this store", reason="AlreadyExists"
            ) from None
        collection = self._known[definition.name] = Collection.parse(made)
        return collection.describe()

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change ``hnsw.ef_search`` and ``hnsw.num_threads``, declare fields. Raises NotFound, Terminal."""
        check_settings(settings, KNOWN_SETTINGS)
        check_fields(new_fields, self.capabilities)
        for setting in settings.keys() - self.capabilities.mutable_settings.keys():
            raise Terminal(
                f"index {name}: Chroma cannot change {setting} after creation: make a new index",
                reason="ImmutableSetting",
            )
        collection = await self._resolve(name)
        changes: dict[str, Any] = {}
        if settings:
            changes["new_configuration"] = {"hnsw": hnsw(settings)}
        if new_fields:
            fields = {field.name: field for field in collection.fields() or ()}
            fields |= {field.name: field for field in new_fields}
            # What is sent replaces all of the metadata, so the rest goes along.
            changes["new_metadata"] = {**collection.metadata, FIELDS: encode_fields(fields.values())}
        await self._change(collection, changes)

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint; other metadata of the collection stays. Raises NotFound."""
        collection = await self._resolve(name)
        values = {MARK: None if mark is None else str(mark), FINGERPRINT: model_fingerprint}
        if any(collection.metadata.get(key) != value for key, value in values.items()):
            # Null removes a key: metadata that is left empty could not be sent otherwise.
            await self._change(collection, {"new_metadata": {**collection.metadata, **values}})

    async def _change(self, collection: Collection, changes: Mapping[str, Any]) -> None:
        if changes:
            await self._api.call("PUT", f"/collections/{collection.id}", body=orjson.dumps(changes))
            self._known.pop(collection.name, None)

    async def delete_index(self, name: str) -> None:
        """Drop a collection. Raises NotFound."""
        await self._resolve(name)
        self._known.pop(name, None)
        try:
            await self._api.call("DELETE", f"/collections/{quote(name, safe='')}")
        except NotFound:
            raise _absent(name) from None

    def _possible(self, name: str) -> bool:
        """Whether a collection can have the name: what cannot be one is not asked for by its path."""
        return re.fullmatch(self.capabilities.name_pattern, name) is not None and ".." not in name

    def _forget_unless(self, name: str, dimension: int) -> None:
        """Look a collection up again where it is remembered with another dimension: it may have been made again."""
        known = self._known.get(name)
        if known is not None and known.dimension not in (None, dimension):
            del self._known[name]

    async def _resolve(self, name: str) -> Collection:
        """The collection of that name, as it is now. Raises NotFound."""
        self._known.pop(name, None)
        if not self._possible(name):
            raise _absent(name)
        try:
            body = await self._api.call("GET", f"/collections/{quote(name, safe='')}")
        except NotFound:
            await self._database()
            raise _absent(name) from None
        collection = self._known[name] = Collection.parse(body)
        return collection

    async def _on(self, name: str, action: Callable[[Collection], Awaitable[T]]) -> T:
        """Do something with a collection by the id that is known, and once more where the name has another id by now.

        Data calls take ids. A collection that was dropped and made again is thus found; one that is gone is NotFound.
        """
        known = self._known.get(name)
        if known is None:
            known = await self._resolve(name)
        try:
            return await action(known)
        except NotFound:
            found = await self._resolve(name)
        try:
            return await action(found)
        except NotFound:
            self._known.pop(name, None)
            raise _absent(name) from None


def _absent(name: str) -> NotFound:
    return NotFound(f"index {name[:200]!r} does not exist in this store")
