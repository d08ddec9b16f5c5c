"""The http source when things go wrong.

- failures tell what happened and belong to one document; none shows what may be secret
- sizes are bounded while reading, packed or not
"""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.http_files import HttpFiles
from tests.support.http_source import failure, get
from tests.support.sources import serving

from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.sources import web


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "kind", "reason"),
        [
            (404, Terminal, "DocumentNotFound"),
            (410, Terminal, "DocumentNotFound"),
            (400, Terminal, "RequestRefused"),
            (204, Terminal, "RequestRefused"),
            (304, Terminal, "RequestRefused"),
            (408, Retryable, "Unavailable"),
            (429, Retryable, "Throttled"),
            (500, Retryable, "Unavailable"),
            (502, Retryable, "Unavailable"),
            (503, Retryable, "Throttled"),
        ],
    )
    async def test_status(self, status: int, kind: type, reason: str, http_files: HttpFiles, tmp_path: Path) -> None:
        url = http_files.put("/a?token=s3cret-t0ken", status=status)
        error = await failure(tmp_path, url)
        assert (type(error), error.reason) == (kind, reason)
        assert http_files.url("/a") in error.message

    async def test_the_pause_that_the_server_asks_for_is_told(self, http_files: HttpFiles, tmp_path: Path) -> None:
        error = await failure(tmp_path, http_files.put("/a", status=503, headers={"Retry-After": "7"}))
        assert isinstance(error, Retryable)
        assert error.after == 7.0

    @pytest.mark.parametrize("cut_after", [0, 5])
    async def test_a_connection_that_breaks_off(self, cut_after: int, http_files: HttpFiles, tmp_path: Path) -> None:
        error = await failure(tmp_path, http_files.put("/a", "0123456789", cut_after=cut_after))
        assert (type(error), error.reason) == (Retryable, "Unreachable")

    async def test_a_server_that_is_not_there(self, tmp_path: Path) -> None:
        error = await failure(tmp_path, "http://127.0.0.1:1/a")
        assert (type(error), error.reason) == (Retryable, "Unreachable")

    async def test_a_server_that_takes_too_long(
        self, http_files: HttpFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(web, "TRANSFER_TIMEOUT", 0.2)
        error = await failure(tmp_path, http_files.put("/a", "A", delay=30))
        assert (type(error), error.reason) == (Retryable, "Timeout")


def _zeros(size: int) -> bytes:
    """Packed zeros, a thousandth of their size."""
    packer = zlib.compressobj(9, wbits=31)
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(size >> 20)) + packer.flush()


class TestSizes:
    async def test_a_document_over_the_limit_is_not_read(self, http_files: HttpFiles, tmp_path: Path) -> None:
        error = await failure(tmp_path, http_files.put("/a", bytes(5 << 20)), limit=1 << 20)
        assert (type(error), error.reason) == (Terminal, "DocumentTooLarge")
        assert "spec.parse.maxDocumentBytes" in error.message

    async def test_an_answer_without_end_is_left(self, tmp_path: Path) -> None:
        sent = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                await writer.drain()
                sent += 0x10000

        async with serving(serve) as port:
            error = await failure(tmp_path, f"http://127.0.0.1:{port}/a", limit=1 << 20)
            assert (type(error), error.reason) == (Terminal, "DocumentTooLarge")
            assert sent < 16 << 20

    async def test_a_document_of_exactly_the_limit_is_taken(self, http_files: HttpFiles, tmp_path: Path) -> None:
        (found,) = await get(tmp_path, http_files.put("/a", b"x" * 1000), limit=1000)
        assert found.data == b"x" * 1000
        assert (await failure(tmp_path, http_files.url("/a"), limit=999)).reason == "DocumentTooLarge"

    @pytest.mark.parametrize(
        "body",
        [lambda: _zeros(16 << 20) * 64, lambda: _zeros(256 << 20)],
        ids=["a-gigabyte-in-members", "a-quarter-in-one"],
    )
    async def test_a_small_answer_that_unpacks_to_a_gigabyte_is_cut(
        self, body: Callable[[], bytes], http_files: HttpFiles, tmp_path: Path
    ) -> None:
        url = http_files.put("/a", body(), headers={"Content-Encoding": "gzip"})
        tracemalloc.start()
        error = await failure(tmp_path, url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert error.reason == "DocumentTooLarge"
        assert peak < 40 << 20

    @pytest.mark.parametrize(
        ("encoding", "pack"),
        [
            ("gzip", gzip.compress),
            ("GZIP", gzip.compress),
            ("deflate", zlib.compress),
            ("identity", bytes),
            ("gzip", lambda data: gzip.compress(data[:100], mtime=0) + gzip.compress(data[100:])),
        ],
    )
    async def test_packed_answers_are_unpacked(
        self, encoding: str, pack: Callable[[bytes], bytes], http_files: HttpFiles, tmp_path: Path
    ) -> None:
        data = b"some text " * 100_000
        url = http_files.put("/a", pack(data), headers={"Content-Encoding": encoding})
        (found,) = await get(tmp_path, url)
        assert found.data == data

    @pytest.mark.parametrize(
        ("body", "kind", "reason"),
        [
            (b"not packed", Retryable, "BadAnswer"),
            (gzip.compress(b"some text" * 1000, mtime=0)[:-20], Retryable, "BadAnswer"),
        ],
    )
    async def test_what_does_not_unpack_may_be_tried_again(
        self, body: bytes, kind: type, reason: str, http_files: HttpFiles, tmp_path: Path
    ) -> None:
        error = await failure(tmp_path, http_files.put("/a", body, headers={"Content-Encoding": "gzip"}))
        assert (type(error), error.reason) == (kind, reason)

    async def test_an_encoding_that_was_not_asked_for(self, http_files: HttpFiles, tmp_path: Path) -> None:
        error = await failure(tmp_path, http_files.put("/a", b"x", headers={"Content-Encoding": "br"}))
        assert (type(error), error.reason) == (Terminal, "UnsupportedEncoding")
