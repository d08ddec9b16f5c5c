"""Indexes of a collection: built, awaited, loaded, built anew."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import orjson

from vectorwright.errors import NotFound, Retryable, Terminal

from ..base import Setting
from .errors import IndexNotFound, NotLoaded
from .rpc import MilvusApi
from .schema import METRICS, MMAP, VECTOR, Collection
from .settings import VectorIndex
from .stubs import common_pb2, milvus_pb2, pairs

LOAD_SECONDS = 600.0
"""Seconds that loading is waited for. It goes on in the server; the next try finds it loaded."""
_POLL_SECONDS = 0.1
_MAX_POLL_SECONDS = 2.0
_SCALAR_INDEX = "INVERTED"
"""For every type of column, in every version that has nullable ones."""
NULLABLE_SINCE = (2, 5)
OLDEST = (2, 4)
_VERSION = re.compile(r"(\d+)\.(\d+)")


def index_plan(index: VectorIndex, metric: str | None) -> str:
    """The property that says which index the vectors belong in, should a rebuild break off halfway."""
    return orjson.dumps(
        {"type": index.type, "params": dict(index.params), "metric": METRICS.get(metric or "", "")}
    ).decode()


class Building:
    """What takes a while. Every step can be repeated."""

    def __init__(self, api: MilvusApi) -> None:
        self._api = api
        self._version: str | None = None

    async def version(self) -> str:
        """The server's version, as it tells it. Raises Terminal (``UnsupportedVersion``) below 2.4."""
        answer = await self._api.call("GetVersion", milvus_pb2.GetVersionRequest(), "GetVersionResponse")
        version = str(answer.version)
        if self._number(version) < OLDEST:
            raise Terminal(
                f"{self._api.endpoint} is Milvus {version[:50]}; 2.4 or newer is needed", reason="UnsupportedVersion"
            )
        self._version = version
        return version

    @staticmethod
    def _number(version: str) -> tuple[int, int]:
        found = _VERSION.search(version)
        # A build without a number is a development build: newer than all that have one.
        return (int(found[1]), int(found[2])) if found else (99, 0)

    async def nullable(self) -> bool:
        """Whether columns can be empty. milvus-lite counts from 3 by now."""
        return self._number(self._version or await self.version()) >= NULLABLE_SINCE

    async def finish(self, collection: Collection) -> None:
        """Make the indexes that are missing, and load the collection. Raises NotLoaded when that takes too long."""
        indexed = await self._indexed(collection)
        if VECTOR not in indexed:
            await self._index_vectors(collection, collection.planned)
        for column in collection.columns:
            if column not in indexed:
                await self._create_index(collection, column, {"index_type": _SCALAR_INDEX})
        await self.load(collection)

    async def _indexed(self, collection: Collection) -> set[str]:
        request = milvus_pb2.DescribeIndexRequest(collection_name=collection.theirs)
        try:
            answer = await self._api.call("DescribeIndex", request, "DescribeIndexResponse")
        except IndexNotFound:
            return set()
        return {one.field_name for one in answer.index_descriptions}

    async def _index_vectors(self, collection: Collection, index: VectorIndex) -> None:
        if collection.metric is None:
            raise Terminal(
                f"index {collection.name}: its vectors have no index, and their metric is not known: make the first "
                "index by hand",
                reason="UnsupportedCollection",
            )
        params = {"index_type": index.type, "metric_type": METRICS[collection.metric]}
        await self._create_index(
            collection, VECTOR, params | ({"params": orjson.dumps(dict(index.params)).decode()} if index.params else {})
        )

    async def _create_index(self, collection: Collection, column: str, params: dict[str, str]) -> None:
        request = milvus_pb2.CreateIndexRequest(
            collection_name=collection.theirs, field_name=column, index_name=column, extra_params=pairs(params)
        )
        await self._api.call("CreateIndex", request)

    async def load(self, collection: Collection) -> None:
        """Load a collection and wait. Raises NotLoaded when it takes too long, NotFound."""
        replicas = collection.recorded.get("replicas")
        request = milvus_pb2.LoadCollectionRequest(
            collection_name=collection.theirs, replica_number=int(replicas) if replicas else 0
        )
        await self._api.call("LoadCollection", request)
        until, pause = time.monotonic() + LOAD_SECONDS, _POLL_SECONDS
        while (state := await self.state(collection.theirs)) != "Loaded":
            if state == "NotExist":
                raise NotFound(f"index {collection.name[:200]!r} does not exist in this store")
            if time.monotonic() > until:
                raise NotLoaded(
                    f"index {collection.name} is still being loaded after {LOAD_SECONDS:.0f} s: see that the query "
                    "nodes have room for it"
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_POLL_SECONDS)

    async def state(self, theirs: str) -> str:
        """NotExist, NotLoad, Loading or Loaded."""
        request = milvus_pb2.GetLoadStateRequest(collection_name=theirs)
        answer = await self._api.call("GetLoadState", request, "GetLoadStateResponse")
        return str(common_pb2.LoadState.Name(answer.state)).removeprefix("LoadState")

    async def rebuild(self, collection: Collection, index: VectorIndex | None, *, mmap: Setting | None) -> None:
        """Release a collection, change how it is built or loaded, and load it again: it cannot be read meanwhile.

        What belongs there is recorded before, so that whoever finds it half done can finish it (:meth:`finish`).
        """
        name = collection.theirs
        await self._api.call("ReleaseCollection", milvus_pb2.ReleaseCollectionRequest(collection_name=name))
        if mmap is not None:
            properties = pairs({MMAP: "true" if mmap else "false"})
            await self._api.call(
                "AlterCollection", milvus_pb2.AlterCollectionRequest(collection_name=name, properties=properties)
            )
        if index is not None:
            await self._drop_index(name)
            await self._index_vectors(collection, index)
        await self.finish(collection)

    async def _drop_index(self, name: str) -> None:
        request = milvus_pb2.DescribeIndexRequest(collection_name=name)
        try:
            answer = await self._api.call("DescribeIndex", request, "DescribeIndexResponse")
        except IndexNotFound:
            return
        for one in answer.index_descriptions:
            if one.field_name == VECTOR:
                drop: Any = milvus_pb2.DropIndexRequest(
                    collection_name=name, field_name=VECTOR, index_name=one.index_name
                )
                await self._api.call("DropIndex", drop)

    async def again(self, collection: Collection, error: NotLoaded) -> None:
        """Load a collection of ours that answers that it is not loaded, as after a restart or a rebuild that broke off.

        Raises the error for a collection of others: what it takes to load is not ours to spend.
        """
        if not collection.ours:
            raise Retryable(error.message + ": load it first", reason=error.reason)
        await self.finish(collection)
