"""The head of a table in a bucket: one small object that says which version of the table is the table.

Lance numbers versions, and of two writers one gets a number (manifests are written only where none is); but the other
then goes on, on top of what it never read, and the same new id is there twice. So a version counts only when the
table's head names it, and the head changes only by compare-and-swap: a conditional PUT with the ETag of the head that
the change began from. A commit whose head moved meanwhile was never made: nobody reads it, and the next writer takes
the table back to the version that the head names before it goes on. Every table has a folder of its own, never used
again, so writers of a dropped table cannot touch the one that took its name.

The head also holds the lease of the writer at work (:mod:`.lease`), what the index is, and its counts, so that telling
them takes one request and not the table.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import obstore
import orjson
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store

from vectorwright.errors import Retryable, Terminal, VectorwrightError

from ..base import IndexDescription
from ..wire import WireError, decode_json, take
from ..wire_indexes import decode_description, encode_description
from .bucket import Bucket
from .bucket_errors import bucket_error, is_absent
from .index_state import described
from .settings import BUCKET_CAPABILITIES

FOLDER = "_vectorwright"
SUFFIX = ".head.json"
MAKING, READY, GONE = "making", "ready", "gone"
OBSTORE_ERRORS = (BaseError, OSError, ValueError)
_FORMAT = 1
_READING = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a table says."""

    state: str
    """making, ready, or gone (kept under the name, so that a name is taken by compare-and-swap only)."""
    location: str
    """Folder of the table, below the prefix."""
    description: IndexDescription
    """What the index is, with its exact count."""
    version: int = 0
    """Lance's number of the version that is the table."""
    mixed: bool = False
    indexes: tuple[str, ...] = ()
    commits: int = 0
    """Commits since files were merged last."""
    rows: int = 0
    """Records that these commits wrote or removed."""
    remains: tuple[str, ...] = ()
    """Folders of dropped tables, still to be removed."""
    holder: str | None = None
    """Who has the lease."""
    nonce: str = ""
    """Unlike that of every other head: two heads never have one ETag, and a writer knows its own again."""

    def encode(self) -> bytes:
        """As an object."""
        return orjson.dumps(
            {
                "format": _FORMAT,
                "state": self.state,
                "location": self.location,
                "version": self.version,
                "description": encode_description(self.description),
                "mixed": self.mixed,
                "indexes": list(self.indexes),
                "commits": self.commits,
                "rows": self.rows,
                "remains": list(self.remains),
                "holder": self.holder,
                "nonce": self.nonce,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Head:
        """The head that :meth:`encode` wrote. Raises WireError."""
        body = decode_json(data)
        if not isinstance(body, dict) or body.get("format") != _FORMAT:
            raise WireError("not a head of this format")
        if not isinstance(body.get("description"), dict):
            raise WireError("'description' is not an object")
        return cls(
            state=take(body, "state", str),
            location=take(body, "location", str),
            version=take(body, "version", int),
            description=decode_description(body["description"]),
            mixed=take(body, "mixed", bool),
            indexes=tuple(map(str, body.get("indexes", []))),
            commits=take(body, "commits", int),
            rows=take(body, "rows", int),
            remains=tuple(map(str, body.get("remains", []))),
            holder=body.get("holder"),
            nonce=take(body, "nonce", str),
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """A head as it was read or written, and what a change of it has to show."""

    head: Head
    token: Mapping[str, str | None]


class HeadMoved(Exception):  # noqa: N818 - a signal between writers, handled where they meet
    """The head is another than the one that the change began from."""


def told(head: Head) -> IndexDescription:
    """What a head says of the index."""
    return described(head.description, head.indexes, head.description.count or 0)


def open_objects(bucket: Bucket) -> Any:
    """obstore's store for the bucket. No request is made yet. Raises Terminal for what it does not take."""
    options: Any = {"client_options": dict(bucket.client), "retry_config": bucket.retry()}
    config: Any = dict(bucket.obstore)
    try:
        match bucket.kind:
            case "s3":
                return S3Store(bucket.name, config=config, **options)
            case "gcs":
                return GCSStore(bucket.name, config=config, **options)
        return AzureStore(bucket.name, config=config, **options)
    except OBSTORE_ERRORS as error:
        raise Terminal(
            f"{bucket.label}: the bucket's settings or credentials are of no form that can be used "
            f"({type(error).__name__})",
            reason="InvalidCredentials",
        ) from None


class Objects:
    """The small objects of a bucket: read, written by compare-and-swap, listed. Raises our errors."""

    def __init__(self, bucket: Bucket, limit: asyncio.Semaphore) -> None:
        self.bucket = bucket
        self._store = open_objects(bucket)
        self._limit = limit

    async def asked(self, what: str, call: Awaitable[T]) -> T:
        """The answer to one request, in time."""
        try:
            async with asyncio.timeout(self.bucket.timeout):
                async with self._limit:
                    return await call
        except (AlreadyExistsError, PreconditionError) as error:
            if is_absent(str(error)) or not _says_no_such_thing(error):
                raise HeadMoved from None
            raise bucket_error(self.bucket, what, error) from None
        except OBSTORE_ERRORS as error:
            raise bucket_error(self.bucket, what, error) from None

    async def read(self, what: str, key: str) -> tuple[bytes, dict[str, str | None]] | None:
        """An object and what a change of it has to show; None where the store says that there is none."""

        async def get() -> tuple[bytes, dict[str, str | None]]:
            result = await obstore.get_async(self._store, key)
            data = bytes(await result.bytes_async())
            return data, _token(result.meta)

        try:
            async with asyncio.timeout(self.bucket.timeout):
                async with self._limit:
                    return await get()
        except OBSTORE_ERRORS as error:
            if is_absent(str(error)):
                return None
            raise bucket_error(self.bucket, what, error) from None

    async def write(
        self, what: str, key: str, data: bytes, token: Mapping[str, str | None] | None
    ) -> dict[str, str | None]:
        """Write an object over the one with this token (None: where there is none). Raises HeadMoved."""
        mode: Any = "create" if token is None else dict(token)
        result = await self.asked(what, obstore.put_async(self._store, key, data, mode=mode, use_multipart=False))
        return _token(result)

    async def delete(self, what: str, keys: list[str]) -> None:
        """Delete objects; those that are gone are fine."""
        if keys:
            await self.asked(what, obstore.delete_async(self._store, keys))

    async def listing(self, what: str, prefix: str) -> AsyncIterator[list[Any]]:
        """The objects below a prefix, a page at a time."""
        stream = obstore.list(self._store, prefix=prefix).__aiter__()
        while True:
            try:
                async with asyncio.timeout(self.bucket.timeout):
                    page = await anext(stream)
            except StopAsyncIteration:
                return
            except OBSTORE_ERRORS as error:
                raise bucket_error(self.bucket, what, error) from None
            yield list(page)

    async def folders(self, what: str, prefix: str) -> list[str]:
        """The names directly below a prefix that are folders."""
        found = await self.asked(what, obstore.list_with_delimiter_async(self._store, prefix=prefix or None))
        return [one.rstrip("/").rsplit("/", 1)[-1] for one in found["common_prefixes"]]


def _says_no_such_thing(error: BaseException) -> bool:
    """Whether a precondition "failed" because bucket or user are not there: some stores answer 404 to both."""
    text = str(error)
    return (
        "<Code>" in text
        and "PreconditionFailed" not in text
        and "ConditionNotMet" not in text
        and ("ConditionalRequestConflict" not in text and "AlreadyExists" not in text)
    )


def _token(result: Mapping[str, Any]) -> dict[str, str | None]:
    return {key: result[key] for key in ("e_tag", "version") if result.get(key) is not None}


class Heads:
    """The heads of all tables of a bucket."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._bucket = objects.bucket
        self._cache: dict[str, Seen] = {}

    def _key(self, name: str) -> str:
        return self._bucket.key(FOLDER, f"{name}{SUFFIX}")

    async def read(self, name: str) -> Seen | None:
        """The head of a table, whatever its state."""
        if not re.fullmatch(BUCKET_CAPABILITIES.name_pattern, name) or ".." in name:
            return None  # no table has such a name, and a key is made of it
        found = await self._objects.read(f"reading index {name[:200]!r}", self._key(name))
        if found is None:
            return None
        return Seen(self._decode(name, found[0]), found[1])

    def _decode(self, name: str, data: bytes) -> Head:
        try:
            head = Head.decode(data)
        except WireError:
            if not data.lstrip().startswith(b"{"):
                raise Retryable(
                    f"{self._bucket.label}: the head of index {name[:200]!r} ({self._key(name)[-300:]}) is nothing "
                    "that was written there: something else answers, or changed it",
                    reason="UnexpectedAnswer",
                ) from None
            raise Terminal(
                f"{self._bucket.label}: the head of index {name[:200]!r} ({self._key(name)[-300:]}) cannot be read: a "
                "newer version of Vectorwright wrote it, or something else did",
                reason="UnreadableIndex",
            ) from None
        return replace(head, description=replace(head.description, name=name))

    async def write(self, name: str, head: Head, over: Seen | None) -> Seen:
        """Make this the head, in place of the one that was seen (None: of none). Raises HeadMoved.

        Where the answer is lost, the head is read: it is ours, another's (HeadMoved), or unknown (Retryable).
        """
        what = f"writing the head of index {name[:200]!r}"
        head = replace(head, nonce=uuid.uuid4().hex)
        try:
            token = await self._objects.write(what, self._key(name), head.encode(), over.token if over else None)
        except HeadMoved:
            # The request may have been sent twice, after an answer that was lost.
            found = await self.read(name)
            if found is not None and found.head.nonce == head.nonce:
                return found
            raise
        except Retryable as error:
            return await self._after_lost_answer(name, head, error)
        return Seen(head, token)

    async def _after_lost_answer(self, name: str, head: Head, error: VectorwrightError) -> Seen:
        try:
            found = await self.read(name)
        except VectorwrightError:
            raise error from None
        if found is not None and found.head.nonce == head.nonce:
            return found
        raise error

    async def all(self) -> dict[str, Seen | VectorwrightError]:
        """Every head by name, or why it cannot be read: one request a thousand, and one for each that changed."""
        prefix = self._bucket.key(FOLDER)
        found: dict[str, Mapping[str, Any]] = {}
        async for page in self._objects.listing("listing indexes", prefix):
            for one in page:
                file = str(one["path"]).rsplit("/", 1)[-1]
                if file.endswith(SUFFIX):
                    found[file.removesuffix(SUFFIX)] = one
        self._cache = {name: seen for name, seen in self._cache.items() if name in found}
        limit = asyncio.Semaphore(_READING)
        result: dict[str, Seen | VectorwrightError] = {}

        async def look(name: str, meta: Mapping[str, Any]) -> None:
            cached = self._cache.get(name)
            if cached is not None and cached.token.get("e_tag") == meta.get("e_tag") is not None:
                result[name] = cached
                return
            async with limit:
                try:
                    seen = await self.read(name)
                except (Terminal, Retryable) as error:
                    if error.reason not in ("UnreadableIndex", "UnexpectedAnswer"):
                        raise
                    result[name] = error
                    return
            if seen is not None:
                result[name] = self._cache[name] = seen

        try:
            async with asyncio.TaskGroup() as group:
                for name, meta in found.items():
                    group.create_task(look(name, meta))
        except BaseExceptionGroup as group_error:
            first = group_error.exceptions[0]
            if isinstance(first, VectorwrightError):
                raise first from None
            raise
        return result
