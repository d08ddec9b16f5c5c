"""FAISS indexes at rest under a key.

- nothing of ids, metadata, texts or vectors is readable on the disk: not in the log, in snapshots, in what is set aside
- the wrong key, or none, is refused in words, and not a byte is changed
- keys are changed: with the old one as a second line, everything is written anew under the new one
- what was written without a key is encrypted once there is one
- no two files share a key, and equal writes look different
- a key file that holds no key is refused without a word of what is in it
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.faiss import KEY, OTHER_KEY, batch_of, docs, held, opened

from vectorwright.errors import Terminal
from vectorwright.stores.faiss.keys import DamagedDataError, FileCipher, KeyRing, read_keys
from vectorwright.stores.faiss.segment import HEADERS_BYTES, decode_header

IDS = [f"record-{number}" for number in range(40)]
HELD = dict.fromkeys(IDS, 5)


async def written(root: Path, keys: Sequence[bytes], *, snapshot: bool) -> None:
    """An index whose records are in a snapshot and, some of them, in the log; or all in the log."""
    async with opened(root, keys=keys, min_log=1 if snapshot else 1 << 26) as store:
        await store.create_index(docs())
        await store.upsert("docs", batch_of(IDS, 4))
        await store.settled()
    async with opened(root, keys=keys) as store:
        await store.upsert("docs", batch_of(IDS, 5))


def readable(root: Path) -> list[str]:
    """The files in which something of a record can be read."""
    vectors = batch_of(IDS, 5).vectors
    signs = (b"record-1", b"text of", b'"word"', vectors[3].tobytes()[:16], vectors[30].tobytes()[16:])
    return sorted(
        path.name for path in root.rglob("*") if path.is_file() and any(sign in path.read_bytes() for sign in signs)
    )


def damage(root: Path) -> None:
    for path in (*root.rglob("log-*"), *root.rglob("records.jsonl")):
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)


def content(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("snapshot", [False, True])
async def test_nothing_is_readable_on_the_disk(tmp_path: Path, snapshot: bool) -> None:
    await written(tmp_path / "plain", (), snapshot=snapshot)
    assert readable(tmp_path / "plain")
    await written(tmp_path / "sealed", (KEY,), snapshot=snapshot)
    assert readable(tmp_path / "sealed") == []
    async with opened(tmp_path / "sealed", keys=(KEY,)) as store:
        assert await held(store) == HELD
        details = (await store.statistics("docs")).details
        assert str(details["encryption"]).startswith("AES-256-GCM")
        assert KEY.hex() not in str(details)


async def test_what_is_set_aside_is_not_readable_either(tmp_path: Path) -> None:
    await written(tmp_path, (KEY,), snapshot=True)
    damage(tmp_path)
    async with opened(tmp_path, keys=(KEY,)) as store:
        await store.settled()
    assert len(list((tmp_path / "docs.faiss" / "quarantine").iterdir())) == 4
    assert readable(tmp_path) == []


@pytest.mark.parametrize("keys", [(), (OTHER_KEY,)], ids=["none", "another"])
@pytest.mark.parametrize("snapshot", [False, True])
async def test_the_wrong_key_is_refused_and_nothing_is_changed(
    tmp_path: Path, snapshot: bool, keys: Sequence[bytes]
) -> None:
    await written(tmp_path, (KEY,), snapshot=snapshot)
    before = content(tmp_path)
    with pytest.raises(Terminal) as refused:
        async with opened(tmp_path, keys=keys):
            pass
    assert refused.value.reason == "WrongEncryptionKey"
    assert "--encryption-key-file" in refused.value.message
    assert not any(key.hex() in refused.value.message for key in (KEY, OTHER_KEY))
    assert content(tmp_path) == before
    async with opened(tmp_path, keys=(KEY,)) as store:
        assert await held(store) == HELD


@pytest.mark.parametrize("before", [(), (KEY,)], ids=["plain", "old key"])
@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_new_key_takes_over_everything(tmp_path: Path, snapshot: bool, before: Sequence[bytes]) -> None:
    await written(tmp_path, before, snapshot=snapshot)
    async with opened(tmp_path, keys=(OTHER_KEY, *before)) as store:
        assert await held(store) == HELD
        await store.settled()
        assert await held(store) == HELD
    assert readable(tmp_path) == []
    async with opened(tmp_path, keys=(OTHER_KEY,)) as store:
        assert await held(store) == HELD
        assert (await store.statistics("docs")).details["damaged_parts"] == 0


async def test_no_two_files_share_a_key_and_equal_writes_differ(tmp_path: Path) -> None:
    salts, contents = set(), set()
    for turn in range(10):
        async with opened(tmp_path, keys=(KEY,)) as store:
            if not turn:
                await store.create_index(docs())
            await store.upsert("docs", batch_of(IDS, 1))
    segments = sorted((tmp_path / "docs.faiss").glob("log-*"))
    assert len(segments) == 10
    for path in segments:
        header = decode_header(path.read_bytes())
        assert header is not None
        salts.add(header.salt)
        contents.add(path.read_bytes()[HEADERS_BYTES + 36 :])
    assert len(salts) == len(contents) == 10


def test_a_piece_is_opened_in_its_own_place_only() -> None:
    cipher = FileCipher(KEY, b"salt" * 4)
    sealed = cipher.seal(3, b"some bytes", b"here")
    assert cipher.open(3, sealed, b"here") == b"some bytes"
    for opener, number, data, context in (
        (cipher, 4, sealed, b"here"),
        (cipher, 3, sealed, b"there"),
        (cipher, 3, bytes([sealed[0] ^ 1]) + sealed[1:], b"here"),
        (cipher, 3, sealed[:-1], b"here"),
        (FileCipher(KEY, b"tlas" * 4), 3, sealed, b"here"),
        (FileCipher(OTHER_KEY, b"salt" * 4), 3, sealed, b"here"),
    ):
        with pytest.raises(DamagedDataError):
            opener.open(number, data, context)


@pytest.mark.parametrize(
    "written",
    [
        KEY,
        KEY.hex().encode() + b"\n",
        KEY.hex().upper().encode(),
        base64.b64encode(KEY),
        base64.b64encode(KEY) + b"\n\n" + OTHER_KEY.hex().encode() + b"\n",
    ],
)
def test_keys_are_read_in_every_form(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(written)
    ring = read_keys(path)
    assert ring.current == KeyRing([KEY]).current
    assert KEY.hex() not in repr(ring)


@pytest.mark.parametrize(
    "written", [b"", b"\n\n", b"password", b"k" * 32, KEY[:31], KEY.hex().encode() + b"\nnonsense", None]
)
def test_a_file_without_a_key_is_refused(tmp_path: Path, written: bytes | None) -> None:
    path = tmp_path / "key"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(Terminal) as refused:
        read_keys(path)
    assert refused.value.reason == "InvalidEncryptionKey"
    assert not any(part in refused.value.message for part in ("password", "kkkk", "nonsense", KEY.hex()))


def test_random_keys_are_taken_raw(tmp_path: Path) -> None:
    for _ in range(50):
        (tmp_path / "key").write_bytes(secrets.token_bytes(32))
        assert read_keys(tmp_path / "key").current is not None
