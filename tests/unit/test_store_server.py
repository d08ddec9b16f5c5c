"""Who may come in to a store server, and who owns what it serves.

- tokens, rotated without a restart; TLS; sockets of their owner only; no open door by accident
- one directory has one owner
"""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import trustme
from tests.support.store_server import ENVIRONMENT, StartStoreServer, StoreServer
from tests.support.store_server_client import connect

from vectorwright.errors import Retryable, Terminal
from vectorwright.stores.registry import StoreCredentials, TlsSettings

pytestmark = pytest.mark.server


def run_server(*flags: str | Path) -> subprocess.CompletedProcess[str]:
    """A server that is expected not to start."""
    command = [sys.executable, "-m", "vectorwright", "store-server", *map(str, flags)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic czpz", "Bearer \xff"])
def test_without_the_token_nothing_is_told(store_server: StoreServer, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    for path in ("/v1/memory/indexes", "/v1/nothing/probe", "/elsewhere"):
        answer = httpx.get(f"{store_server.url}{path}", headers=headers, trust_env=False)  # type: ignore[arg-type]
        assert answer.status_code == 401
        assert answer.json()["reason"] == "AccessDenied"
    assert httpx.get(f"{store_server.url}/healthz", trust_env=False).status_code == 200


async def test_tokens_are_rotated_without_a_restart(start_store_server: StartStoreServer) -> None:
    server = await asyncio.to_thread(start_store_server)
    tokens, old, new = server.base / "tokens", server.token, "the-new-token-of-this-server"

    async def accepted(token: str) -> bool:
        async with connect(server, "memory", credentials=StoreCredentials(token=token)) as store:
            result = (await asyncio.gather(store.list_indexes(), return_exceptions=True))[0]
            assert result == [] or (isinstance(result, Terminal) and result.reason == "AccessDenied")
            return result == []

    async def until(token: str, wanted: bool) -> None:
        async with asyncio.timeout(20):
            while await accepted(token) is not wanted:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.2)

    assert [await accepted(old), await accepted(new)] == [True, False]
    tokens.write_text(f"{old}\n{new}\n")
    await until(new, True)
    assert await accepted(old)
    tokens.write_text(f"{new}\n")
    await until(old, False)
    tokens.write_text("")
    await asyncio.sleep(2.5)
    assert await accepted(new)  # an empty file is a mistake, not an open or a closed door


async def test_tls_with_an_authority_of_its_own(start_store_server: StartStoreServer, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    flags = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    server = await asyncio.to_thread(lambda: start_store_server(flags=flags))
    address = {"server": server.url}
    trusted = TlsSettings(ca=authority.cert_pem.bytes().decode())
    async with connect(server, "memory", settings=address, tls=trusted) as store:
        assert await store.list_indexes() == []
        assert (await store.probe()).endpoint == address["server"]
    async with connect(server, "memory", settings=address) as store:
        with pytest.raises(Terminal) as refused:
            await store.list_indexes()
        assert refused.value.reason == "TLSVerificationFailed"
    async with connect(server, "memory", settings={"server": server.url.replace("https:", "http:")}) as store:
        with pytest.raises(Retryable):
            await store.list_indexes()


def test_a_socket_is_for_its_owner_only(store_server: StoreServer) -> None:
    assert stat.S_IMODE(store_server.unix.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--memory", "--listen", "0.0.0.0:0"], "can be reached from other machines"),
        (["--memory", "--listen", "[::]:0"], "can be reached from other machines"),
        (["--memory"], "nowhere to listen"),
        (["--listen", "127.0.0.1:0"], "nothing to serve"),
        (["--memory", "--listen", "127.0.0.1:0", "--tls-cert", "x"], "given together"),
        (["--memory", "--listen", "8090"], "is not an address"),
        (["--memory", "--lance-folders", "--listen", "127.0.0.1:0"], "needs --lance"),
    ],
)
def test_a_command_line_without_sense_is_refused(flags: list[str], said: str) -> None:
    ended = run_server(*flags)
    assert ended.returncode == 2
    assert said in ended.stderr


@pytest.mark.parametrize("content", [None, "", "short\n"])
def test_a_token_file_without_tokens_is_refused(tmp_path: Path, content: str | None) -> None:
    tokens = tmp_path / "tokens"
    if content is not None:
        tokens.write_text(content)
    ended = run_server("--memory", "--listen", "127.0.0.1:0", "--token-file", tokens)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert f"token file {tokens}" in ended.stderr


def test_a_directory_has_one_owner(store_server: StoreServer, tmp_path: Path) -> None:
    began = time.monotonic()
    ended = run_server("--lance", store_server.tables, "--unix", tmp_path / "s", "--lock-wait", "1")
    assert time.monotonic() - began >= 1
    assert ended.returncode == 1
    pid = store_server.process.pid
    assert ended.stderr == (
        f"vectorwright store-server: {store_server.tables} belongs to another running vectorwright store-server "
        f"(process {pid}): stop that one, or use another directory\n"
    )
    assert store_server.request("GET", "/v1/memory/indexes").status_code == 200


def test_a_socket_in_use_is_not_taken_over(store_server: StoreServer) -> None:
    ended = run_server("--memory", "--unix", store_server.unix)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "another process listens on" in ended.stderr


def test_a_file_in_the_place_of_a_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert "is not a socket" in run_server("--memory", "--unix", path).stderr
    assert path.read_text() == "data"
