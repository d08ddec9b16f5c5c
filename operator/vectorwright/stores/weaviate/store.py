"""Weaviate: collections over its REST API, records over gRPC, without its SDK's client.

What a collection's description holds of ours is said in :mod:`.collection`, how metadata is indexed in :mod:`.terms`,
how names are mapped in :mod:`.names`. A namespace is a tenant of a collection with multi-tenancy; writing makes it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import httpx
import numpy as np

from vectorwright.errors import BatchRejected, Retryable, Terminal

from ..base import IndexStatistics, Match, Record, RecordBatch, Store, Vectors
from ..filters import Filter
from ..registry import Connection
from ..safe_text import safe_text
from ..server_checks import check_batch, check_query
from .catalog import WeaviateCatalog, absent, not_divided
from .channel import Declined, NoSuchCollection, NoSuchTenant, is_busy, load_messages
from .collection import Collection
from .filters import EVERYTHING, ID, Clause, joined, translate
from .messages import decode_matches, decode_records, encode_batch, encode_filter, search_request
from .scrolling import scroll_all, scroll_matching
from .transport import Absent, Refused

T = TypeVar("T")
IDS_PAGE = 1_000
"""Ids in one request."""
MOST_TENANTS = 1_000
"""Tenants that are counted, by a request each; statistics leave out those beyond, and are no longer exact."""
BLAMED = 5
"""Ids that a message names."""
FIRST_ID = "00000000-0000-0000-0000-000000000000"


class WeaviateStore(WeaviateCatalog):
    """A Weaviate server, 1.33 or newer."""

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__(connection, transport)
        level = connection.settings.get("consistencyLevel")
        self._consistency = str(level) if level else None

    async def _on(self, name: str, action: Callable[[Collection], Awaitable[T]], nothing: T | None = None) -> T:
        """Do something with a collection, once more where it changed meanwhile. Raises NotFound, Terminal, Retryable.

        ``nothing`` is the answer where the namespace does not exist.
        """
        collection = await self._known_or_resolved(name)
        for last in (False, True):
            self._check_namespace(name, collection)
            try:
                return await action(collection)
            except NoSuchTenant:
                if nothing is None:
                    raise self._vanished(name) from None
                return nothing
            except NoSuchCollection:
                collection = await self._resolve(name)
                if last:
                    raise absent(name) from None
            except Declined as error:
                before, collection = collection, await self._resolve(name)
                if last or before.body == collection.body:
                    raise Terminal(
                        f"index {name}: Weaviate refused the request: {error.told}", reason="InvalidRequest"
                    ) from None
        raise self._vanished(name)

    def _vanished(self, name: str) -> Retryable:
        return Retryable(
            f"index {name}: Weaviate's parts do not agree whether it exists: it is made or dropped just now"
        )

    def _check_namespace(self, name: str, collection: Collection) -> None:
        if self._namespace and not collection.multi_tenant:
            raise not_divided(name, self._namespace)
        if collection.multi_tenant and not self._namespace:
            raise Terminal(
                f"index {name} is divided into tenants, and has no records outside of them: name a namespace",
                reason="UnsupportedNamespace",
            )

    def _check_vector(self, name: str, collection: Collection) -> None:
        if collection.vector is None:
            raise Terminal(
                f"index {name}: its collection has several vectors or none; Vectorwright writes to and searches those "
                "with one",
                reason="InvalidRequest",
            )

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds: exact, up to 1,000 tenants that are all active. Raises NotFound."""
        collection = await self._resolve(name)
        if not collection.multi_tenant:
            return IndexStatistics(await self._on(name, lambda found: self._count(found, None, "")))
        tenants = await self._tenants(name, collection)
        counted = [tenant for tenant, active in tenants.items() if active][:MOST_TENANTS]

        async def count(tenant: str) -> int:
            try:
                return await self._count(collection, None, tenant)
            except NoSuchTenant:
                return 0
            except NoSuchCollection:
                raise absent(name) from None
            except Declined as error:
                raise Retryable(f"index {name}: tenant {tenant} could not be counted: {error.told}") from None

        counts = dict(zip(counted, await asyncio.gather(*map(count, counted)), strict=True))
        return IndexStatistics(
            sum(counts.values()),
            exact=len(counted) == len(tenants),
            namespaces=counts,
            details={"tenants": len(tenants), "inactive_tenants": sum(not active for active in tenants.values())},
        )

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of records in the namespace. Raises NotFound, Terminal."""

        async def count(collection: Collection) -> int:
            clause = True if where is None else translate(where, collection)
            if clause is False:
                return 0
            return await self._count(collection, None if clause is True else clause, self._namespace)

        return await self._on(name, count, 0)

    async def _count(self, collection: Collection, clause: Clause | None, tenant: str) -> int:
        messages = await load_messages()
        request = messages.aggregate.AggregateRequest(collection=collection.name, tenant=tenant, objects_count=True)
        if clause is not None:
            request.filters.CopyFrom(encode_filter(messages, clause))
        return int((await self._grpc.call("Aggregate", request)).single_result.objects_count)

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records, replacing what is there. Raises BatchRejected, BatchTooLarge, Retryable, NotFound."""
        collection = await self._resolve(name)
        self._check_namespace(name, collection)
        self._check_vector(name, collection)
        encoded = check_batch(
            batch,
            index=name,
            dimension=collection.dimension or (batch.vectors.shape[1] if batch.vectors.ndim == 2 else 0),
            metric=collection.metric or "",
            capabilities=self.capabilities,
        )
        for record_id in batch.ids:
            if not self._holds(record_id):
                raise BatchRejected(
                    f"index {name}: id {record_id[:64]!r} is no UUID in small letters, which Weaviate's ids are"
                )
        if not batch.ids:
            return
        if missing := collection.missing_properties():
            for body in missing:
                await self._add_property(name, collection, body)
            collection = await self._resolve(name)
        messages = await load_messages()
        request = encode_batch(
            messages, collection, batch, encoded, tenant=self._namespace, consistency=self._consistency
        )
        answer = await self._write(name, collection, request)
        if any("tenant not found" in str(one.error).lower() for one in answer.errors):
            await self._make_tenant(name, collection)
            answer = await self._write(name, collection, request)
        await self._check_items(name, batch, list(answer.errors))

    async def _write(self, name: str, collection: Collection, request: Any) -> Any:
        try:
            return await self._grpc.call("BatchObjects", request, writes=True)
        except NoSuchTenant:
            await self._make_tenant(name, collection)
            raise Retryable(f"index {name}: namespace {self._namespace} was made just now: write again") from None
        except NoSuchCollection:
            raise absent(name) from None
        except Declined as error:
            raise Terminal(f"index {name}: Weaviate refused the write: {error.told}", reason="InvalidRequest") from None

    def _holds(self, record_id: str) -> bool:
        return re.fullmatch(self.capabilities.id_pattern or "", record_id) is not None

    async def _check_items(self, name: str, batch: RecordBatch, errors: Sequence[Any]) -> None:
        """Raise where the server did not take every record."""
        if not errors:
            return
        told = safe_text(str(errors[0].error))
        if any(is_busy(str(one.error)) for one in errors):
            raise Retryable(f"index {name}: Weaviate could not write {len(errors)} of {len(batch)} records: {told}")
        await self._resolve(name)  # records are not to blame for an index that is gone
        wrong = sorted({batch.ids[one.index] for one in errors if 0 <= one.index < len(batch)})
        more = f" and {len(wrong) - BLAMED} more" if len(wrong) > BLAMED else ""
        reason = "DimensionMismatch" if "dimensions do not match" in told or "lengths don't" in told else None
        raise BatchRejected(f"index {name}, records {', '.join(wrong[:BLAMED])}{more}: {told}", reason=reason)

    async def _make_tenant(self, name: str, collection: Collection) -> None:
        """Make the namespace in a collection that does not by itself."""
        try:
            await self._rest.call("POST", f"/schema/{collection.name}/tenants", [{"name": self._namespace}])
        except Absent:
            raise absent(name) from None
        except Refused as error:
            self._refuse(name, error)

    async def _search(self, collection: Collection, **wanted: Any) -> Any:
        messages = await load_messages()
        request = search_request(messages, collection, tenant=self._namespace, consistency=self._consistency, **wanted)
        return await self._grpc.call("Search", request)

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The records that exist, by id. Raises NotFound for the index."""
        possible = [record_id for record_id in ids if self._holds(record_id)]

        async def fetch(collection: Collection) -> dict[str, Record]:
            found: dict[str, Record] = {}
            for start in range(0, len(possible), IDS_PAGE):
                part = tuple(possible[start : start + IDS_PAGE])
                answer = await self._search(
                    collection, limit=len(part), clause=("any", ID, part), vectors=vectors, metadata=metadata
                )
                found |= {record.id: record for record in decode_records(answer, metadata=metadata)}
            return found

        return await self._on(name, fetch, {})

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The nearest, by Weaviate's own index: approximate in a large collection. Raises NotFound, Terminal."""
        asked = np.ascontiguousarray(vector, "<f4")
        known = self._known.get(name)
        if known is not None and known[1].dimension != len(asked):
            del self._known[name]  # it may have been made again

        async def query(collection: Collection) -> list[Match]:
            self._check_vector(name, collection)
            clause = True if where is None else translate(where, collection)
            dimension = collection.dimension or len(asked)
            check_query(asked, top_k, index=name, dimension=dimension, metric=collection.metric or "")
            if clause is False:
                return []
            answer = await self._search(
                collection,
                limit=top_k,
                clause=None if clause is True else clause,
                near=asked.tobytes(),
                vectors=vectors,
            )
            return decode_matches(answer, collection.metric)

        return await self._on(name, query, [])

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete records. Raises NotFound for the index."""
        possible = [record_id for record_id in ids if self._holds(record_id)]

        async def delete(collection: Collection) -> bool:
            for start in range(0, len(possible), IDS_PAGE):
                await self._delete(collection, ("any", ID, tuple(possible[start : start + IDS_PAGE])))
            return True

        await self._on(name, delete, True)

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all records that match, 10,000 at a time as servers are set. Raises NotFound, Terminal."""

        async def delete(collection: Collection) -> bool:
            clause = translate(where, collection)
            if clause is True:
                clause = EVERYTHING if collection.own else ("gte", ID, (FIRST_ID,))
            if clause is not False:
                while await self._delete(collection, clause):
                    pass
            return True

        await self._on(name, delete, True)

    async def _delete(self, collection: Collection, clause: Clause) -> int:
        """Delete what matches, as many as the server does at once; how many there were."""
        messages = await load_messages()
        request = messages.batch_delete.BatchDeleteRequest(
            collection=collection.name, filters=encode_filter(messages, clause), tenant=self._namespace or None
        )
        if self._consistency is not None:
            request.consistency_level = getattr(messages.base, f"CONSISTENCY_LEVEL_{self._consistency}")
        answer = await self._grpc.call("BatchDelete", request)
        if answer.failed:
            raise Retryable(f"index {collection.index}: Weaviate could not delete {answer.failed} records")
        return int(answer.successful)

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """All records that match, each once; what is written meanwhile may be missed. Raises NotFound, Terminal."""

        async def search(**wanted: Any) -> list[Record]:
            async def read(collection: Collection) -> list[Record]:
                answer = await self._search(collection, vectors=vectors, metadata=metadata, **wanted)
                return decode_records(answer, metadata=metadata)

            return await self._on(name, read, [])

        async def translated(collection: Collection) -> Any:
            return True if where is None else translate(where, collection)

        async def count(clause: Clause) -> int:
            return await self._on(name, lambda collection: self._count(collection, clause, self._namespace), 0)

        clause = await self._on(name, translated)
        if clause is False:
            return
        collection = await self._known_or_resolved(name)
        most = max(1, min(page, _most_at_once(collection.dimension, vectors=vectors)))
        pages: AsyncGenerator[list[Record], None]
        if clause is True:
            pages = scroll_all(search, most)
        else:
            pages = scroll_matching(search, count, lambda part: joined("and", (clause, part)), most)
        async with aclosing(pages):
            async for records in pages:
                yield records


def _most_at_once(dimension: int | None, *, vectors: bool) -> int:
    """Records in one answer: 32 MB of vectors, and what a server gives at most as servers are set."""
    return min(10_000, 2**25 // (4 * (dimension or 8_192))) if vectors else 10_000


def open_store(connection: Connection) -> Store:
    """A store for ``connection.settings`` (url, grpcHost, grpcPort, consistencyLevel). No request is made yet."""
    return WeaviateStore(connection)
