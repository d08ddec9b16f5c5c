"""Whether a bucket can hold tables: it is there, these credentials may do what is needed, and conditional writes work.

A bucket that ignores conditions would let two writers make two tables of one; so it is refused.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

from vectorwright.errors import Retryable, Terminal, VectorwrightError

from .bucket import Bucket
from .heads import FOLDER, HeadMoved, Objects

_IDENTITY = "backend-id"
_MARK = b"vectorwright was here to see whether conditional writes work\n"


async def check_conditional_writes(objects: Objects) -> None:
    """Write, write again, write over, delete a scratch object: five requests.

    Raises Terminal (``ConditionalWritesMissing`` where conditions are ignored), or what the store says to any of it.
    """
    key = objects.bucket.key(FOLDER, f"check-{uuid.uuid4().hex}")
    token = await _first_write(objects, key)
    try:
        await _refused(objects, key, None, "If-None-Match")
        await _over(objects, key, token)
        await _refused(objects, key, token, "If-Match")
    except BaseException:
        with suppress(VectorwrightError):  # what is to be told is why the check failed
            await objects.delete("deleting an object", [key])
        raise
    await objects.delete("deleting an object", [key])


async def _first_write(objects: Objects, key: str) -> dict[str, str | None]:
    try:
        token = await objects.write("writing an object", key, _MARK, None)
    except HeadMoved:
        raise Retryable(
            f"{objects.bucket.label}: the check of its conditional writes was disturbed", reason="UnexpectedAnswer"
        ) from None
    if not token:
        raise _missing(objects.bucket, "it gives objects no ETag")
    return token


async def _over(objects: Objects, key: str, token: dict[str, str | None]) -> None:
    try:
        second = await objects.write("writing an object", key, _MARK + uuid.uuid4().bytes, token)
    except HeadMoved:
        raise _missing(objects.bucket, "it refuses If-Match with the ETag that it gave") from None
    if second == token:
        raise _missing(objects.bucket, "it gives one ETag to two contents")


async def _refused(objects: Objects, key: str, token: dict[str, str | None] | None, condition: str) -> None:
    try:
        await objects.write("writing an object", key, _MARK + uuid.uuid4().bytes, token)
    except HeadMoved:
        return
    raise _missing(objects.bucket, f"it ignores {condition}")


def _missing(bucket: Bucket, why: str) -> Terminal:
    return Terminal(
        f"{bucket.label}: this store has no conditional writes ({why}), and without them two writers would make "
        "duplicates: use one that has (S3, GCS, Azure, MinIO, versitygw), or Lance on a volume",
        reason="ConditionalWritesMissing",
    )


async def backend_identity(objects: Objects) -> str:
    """The identity of this place, made at the first call and kept in it: one request, then two more to make it."""
    key = objects.bucket.key(FOLDER, _IDENTITY)
    for _ in range(3):
        found = await objects.read("reading its identity", key)
        if found is not None:
            try:
                return str(uuid.UUID(found[0].decode("ascii").strip()))
            except ValueError:
                break
        with suppress(HeadMoved):
            await objects.write("writing its identity", key, str(uuid.uuid4()).encode(), None)
    raise Retryable(
        f"{objects.bucket.label}: its identity ({key[-300:]}) is not what was written there: something else answers, "
        "or changed it",
        reason="UnexpectedAnswer",
    )
