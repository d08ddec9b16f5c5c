"""The client of a store server: how the operator and workers reach stores in files and memory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import numpy as np
import orjson

from vectorwright.errors import BatchTooLarge, NotFound, Terminal

from .absent import StoreWithoutNamespaces
from .base import (
    Capabilities,
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    IndexStatistics,
    Match,
    OwnershipMark,
    Record,
    RecordBatch,
    Setting,
    StoreInfo,
    Vectors,
)
from .faiss.settings import FAISS_CAPABILITIES
from .filters import Filter
from .lance.settings import LANCE_CAPABILITIES
from .memory import MEMORY_CAPABILITIES
from .registry import Connection
from .remote_http import StoreServerApi
from .server_checks import check_batch_form, check_name
from .wire import (
    WireError,
    decode_frame,
    decode_records,
    encode_batch,
    encode_filter,
    encode_frame,
)
from .wire_indexes import (
    decode_description,
    decode_info,
    decode_statistics,
    encode_definition,
    encode_fields,
    encode_mark,
)

MAX_REQUEST = 80 * 2**20
"""Bytes that a store server takes in one request."""
_IDS_A_REQUEST = 10_000
_PAGE = 10_000
_CAPABILITIES: Mapping[str, Capabilities] = {
    "faiss": FAISS_CAPABILITIES,
    "lance": LANCE_CAPABILITIES,
    "memory": MEMORY_CAPABILITIES,
}

T = TypeVar("T")


def open_store(connection: Connection) -> RemoteStore:
    """The store behind ``connection.settings["server"]``: ``http(s)://…`` or ``unix:///path``. No request is made yet.

    ``connection.settings["path"]``, where it is set, is a folder below the server's directory.
    """
    return RemoteStore(connection)


class RemoteStore(StoreWithoutNamespaces):
    """One store of a store server. Its ``capabilities`` are this version's until a probe tells the server's."""

    def __init__(self, connection: Connection) -> None:
        self.capabilities = _CAPABILITIES[connection.provider]
        self._api = StoreServerApi(connection)

    async def probe(self) -> StoreInfo:
        """Who is there."""
        body = await self._api.json("GET", "/probe")
        info = self._decoded(lambda: decode_info(body, self._api.endpoint))
        self.capabilities = info.capabilities
        return info

    async def list_indexes(self) -> list[IndexDescription]:
        """Everything, sorted by name, with exact counts: one request."""
        body = await self._api.json("GET", "/indexes")
        return self._decoded(lambda: [decode_description(one) for one in body["indexes"]])

    async def describe_index(self, name: str) -> IndexDescription:
        """One index. Raises NotFound."""
        return await self._description("GET", _path(name))

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make an index. Raises Conflict when the name is taken, Terminal for a bad definition."""
        return await self._description("POST", "/indexes", _json(encode_definition(definition)))

    async def _description(self, method: str, path: str, body: bytes | None = None) -> IndexDescription:
        answer = await self._api.json(method, path, body)
        return self._decoded(lambda: decode_description(answer))

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change mutable settings and add metadata fields. Raises NotFound, Terminal."""
        body = _json({"settings": dict(settings), "new_fields": encode_fields(new_fields)})
        await self._api.json("PATCH", _path(name), body)

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint. Raises NotFound."""
        body = _json({"mark": encode_mark(mark), "model_fingerprint": model_fingerprint})
        await self._api.json("PUT", _path(name, "mark"), body)

    async def delete_index(self, name: str) -> None:
        """Drop an index. Raises NotFound."""
        await self._api.json("DELETE", _path(name))

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds. Raises NotFound."""
        answer = await self._api.json("GET", _path(name, "statistics"))
        return self._decoded(lambda: decode_statistics(answer))

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of records, of those that match. Raises NotFound."""
        answer = await self._api.json("POST", _path(name, "count"), _json({"where": _where(where)}))
        return self._decoded(lambda: int(answer["count"]))

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records. Raises BatchRejected, BatchTooLarge, Retryable, NotFound."""
        check_batch_form(batch, name)
        body = encode_batch(batch)
        if len(body) > MAX_REQUEST:
            raise BatchTooLarge(f"index {name}: {len(body)} bytes in one write; a store server takes {MAX_REQUEST}")
        await self._api.json("POST", _path(name, "upsert"), body)

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The records that exist, by id: one request for 10,000. Raises NotFound for the index."""
        found: dict[str, Record] = {}
        for start in range(0, max(1, len(ids)), _IDS_A_REQUEST):
            asked = {"ids": list(ids[start : start + _IDS_A_REQUEST]), "vectors": vectors, "metadata": metadata}
            answer = await self._api.call("POST", _path(name, "fetch"), _json(asked))
            found.update((one.id, one) for one in self._records(answer)[0])
        return found

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The nearest. Raises NotFound, Terminal."""
        asked = np.ascontiguousarray(vector, np.float32).reshape(1, -1)
        try:
            body = encode_frame({"top_k": top_k, "where": _where(where), "vectors": vectors}, asked)
        except WireError as error:
            raise Terminal(f"the question cannot be sent: {error}", reason="InvalidQuery") from None
        records, scores = self._records(await self._api.call("POST", _path(name, "query"), body))
        if scores is None:
            raise self._api.stranger()
        return [Match(record, score) for record, score in zip(records, scores, strict=True)]

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete records: one request for 10,000. Raises NotFound for the index."""
        for start in range(0, max(1, len(ids)), _IDS_A_REQUEST):
            body = _json({"ids": list(ids[start : start + _IDS_A_REQUEST])})
            await self._api.json("POST", _path(name, "delete"), body)

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all records that match. Raises NotFound for the index."""
        await self._api.json("POST", _path(name, "delete"), _json({"where": encode_filter(where)}))

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """Records that match now, in pages, from one stream. Raises NotFound; Retryable where the stream breaks off."""
        asked = {"where": _where(where), "vectors": vectors, "metadata": metadata, "page": min(max(1, page), _PAGE)}
        async with self._api.frames(_path(name, "scroll"), _json(asked)) as frames, aclosing(frames) as parts:
            async for frame in parts:
                header, _ = self._decoded(partial(decode_frame, frame))
                if "end" in header:
                    return
                if "error" in header:
                    raise self._decoded(partial(self._api.told, header["error"]))
                yield self._records(frame)[0]
        raise self._api.stranger()

    async def aliases(self) -> dict[str, str]:
        """Alias → index."""
        body = await self._api.json("GET", "/aliases")
        return self._decoded(lambda: dict(body["aliases"]))

    async def set_alias(self, alias: str, index: str) -> None:
        """Point an alias at an index. Raises NotFound, Conflict, or Terminal where the store has no aliases."""
        check_name(alias, self.capabilities)
        await self._api.json("PUT", _path(alias, kind="alias"), _json({"index": index}))

    async def delete_alias(self, alias: str) -> None:
        """Remove an alias. Raises NotFound, or Terminal where the store has no aliases."""
        await self._api.json("DELETE", _path(alias, kind="alias"))

    def _records(self, answer: bytes) -> tuple[list[Record], list[float] | None]:
        return self._decoded(lambda: decode_records(answer))

    def _decoded(self, decode: Callable[[], T]) -> T:
        try:
            return decode()
        except (WireError, KeyError, TypeError, ValueError):
            raise self._api.stranger() from None

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._api.close()


def _path(name: str, action: str = "", kind: str = "index") -> str:
    """The path of an index or alias. Raises NotFound for a name that none can have: it may mean another path."""
    if not re.fullmatch(LANCE_CAPABILITIES.name_pattern, name):
        raise NotFound(f"{kind} {name[:200]!r} does not exist in this store")
    return f"/{'indexes' if kind == 'index' else 'aliases'}/{name}" + (f"/{action}" if action else "")


def _where(where: Filter | None) -> list[Any] | None:
    return None if where is None else encode_filter(where)


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        raise Terminal(
            "the request holds text that is not valid Unicode, or a number that JSON cannot hold",
            reason="InvalidRequest",
        ) from None
