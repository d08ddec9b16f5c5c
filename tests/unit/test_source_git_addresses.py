"""The git source: where it connects to, and who gets its credentials.

- addresses are checked at every hop, and git connects to the checked address alone
- credentials are in no argument, environment or message, and go to one origin
- certificates are checked by us and by git
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from deploy.servers.git import GitRepository, GitServer
from tests.support.git_http import GitHttp
from tests.support.git_source import contents_of, opened, pin_error, working_copies
from tests.support.loopback_http import Request, Response
from tests.support.sources import LOOPBACK, SECRET, fetched, listed, run_spec, secret
from tests.support.tls import TlsFront

from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest import network
from vectorwright.ingest.sources import git_process
from vectorwright.ingest.sources.git_process import Git
from vectorwright.ingest.sources.git_remote import parse_url
from vectorwright.ingest.sources.registry import open_source


@pytest.fixture
def repository(git_server: GitServer) -> GitRepository:
    made = git_server.repository()
    made.commit({"README.md": "# One", "src/a.py": "a = 1\n", "docs/guide.md": "guide"}, message="first")
    return made


def written(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        [
            "git://127.0.0.2/r",
            "http://127.0.0.2/r",
            "https://169.254.169.254/r",
            "ssh://git@10.0.0.1/r",
            "git://[::1]/r",
            "https://localhost/r",
        ],
    )
    async def test_private_ones_are_refused(self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async def resolve(host: str, _port: int) -> list[str]:
            return ["10.9.8.7"] if host == "localhost" else [host]

        monkeypatch.setattr(network, "system_resolver", resolve)
        error = await pin_error(tmp_path, url)
        assert (type(error), error.reason) == (Terminal, "AddressRefused")
        assert "--allow-networks" in error.message

    @pytest.mark.parametrize("target", ["http://127.0.0.2:1/r", "http://169.254.169.254/r", "https://10.0.0.1/r"])
    async def test_a_redirect_to_a_private_one_is_refused(
        self, target: str, repository: GitRepository, tmp_path: Path
    ) -> None:
        def redirect(request: Request) -> Response:
            return Response(status=302, headers={"Location": f"{target}{request.path}"})

        with GitHttp(repository.path.parent, override=redirect) as server:
            error = await pin_error(tmp_path, f"{server.origin}/r")
            assert len(server.requests) == 1
        assert (type(error), error.reason) == (Terminal, "AddressRefused")

    async def test_git_itself_follows_no_redirect(self, repository: GitRepository, tmp_path: Path) -> None:
        """A server that answers the check and redirects git afterwards gets nowhere."""
        asked = 0

        def redirect(request: Request) -> Response | None:
            nonlocal asked
            asked += "info/refs" in request.path
            if asked > 1:
                return Response(status=302, headers={"Location": f"http://127.0.0.2:1{request.path}"})
            return None

        with GitHttp(repository.path.parent, override=redirect) as server:
            error = await pin_error(tmp_path, f"{server.origin}/{repository.path.name}")
        assert isinstance(error, Retryable)

    async def test_a_redirect_is_followed_to_the_repository(self, repository: GitRepository, tmp_path: Path) -> None:
        def redirect(request: Request) -> Response | None:
            if request.path.startswith("/old/"):
                return Response(status=301, headers={"Location": request.path.removeprefix("/old")})
            return None

        with GitHttp(repository.path.parent, override=redirect) as server:
            found = await contents_of(tmp_path, f"{server.origin}/old/{repository.path.name}")
            assert sum(request.path.startswith("/old/") for request in server.requests) == 3
        assert found["README.md"] == b"# One"

    async def test_git_connects_to_the_checked_address(
        self, repository: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The name exists nowhere but here: git could not resolve it."""

        async def resolve(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        monkeypatch.setattr(network, "system_resolver", resolve)
        with GitHttp(repository.path.parent) as server:
            found = await contents_of(tmp_path, f"http://code.invalid:{server.port}/{repository.path.name}")
            assert {request.headers["host"] for request in server.requests} == {f"code.invalid:{server.port}"}
        assert found["README.md"] == b"# One"
        daemon = repository.url.replace("127.0.0.1", "code.invalid")
        assert (await contents_of(tmp_path, daemon))["README.md"] == b"# One"

    @pytest.mark.parametrize(
        "url",
        [
            "http://x.example/r?a=b",
            "https://x.example/r#f",
            "https://x.example:99999/r",
            "ssh://-oProxyCommand=x/r",
            "ssh://-oProxyCommand=x@h.example/r",
            "git://x.example\\@y/r",
        ],
    )
    def test_what_is_no_address_is_refused(self, url: str) -> None:
        with pytest.raises(Terminal) as refused:
            parse_url(url)
        assert refused.value.reason == "InvalidSpec"

    @pytest.mark.parametrize("scheme", ["file", "ext", "ftp"])
    def test_other_protocols_are_refused(self, scheme: str) -> None:
        with pytest.raises(Terminal):
            parse_url(f"{scheme}://x.example/r")
        with pytest.raises(Terminal):
            parse_url("ext::sh -c id")

    async def test_git_knows_no_protocol_but_the_one_asked_for(self, repository: GitRepository, tmp_path: Path) -> None:
        for url in (f"file://{repository.path}", str(repository.path), "ext::true", repository.url):
            with pytest.raises(git_process.GitFailed):
                await Git(tmp_path).run("ls-remote", "--", url, seconds=30)


class TestCredentials:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ({"username": "ada", "password": SECRET}, ("ada", SECRET)),
            ({"token": f"{SECRET}\n"}, ("x-access-token", SECRET)),
            ({"username": "ada", "token": SECRET}, ("ada", SECRET)),
            ({"username": "a'd\"a$(id)", "password": "p'w\"d`id` $HOME\\"}, ("a'd\"a$(id)", "p'w\"d`id` $HOME\\")),
        ],
    )
    async def test_reach_the_server(
        self, values: dict[str, str], expected: tuple[str, str], repository: GitRepository, tmp_path: Path
    ) -> None:
        secret(tmp_path, **values)
        with GitHttp(repository.path.parent, credentials=expected) as server:
            url = f"{server.origin}/{repository.path.name}"
            found = await contents_of(tmp_path, url, credentials={"name": "git"})
        assert found["README.md"] == b"# One"

    async def test_are_those_that_the_secret_holds_when_the_server_is_asked(
        self, repository: GitRepository, tmp_path: Path
    ) -> None:
        secret(tmp_path, username="ada", password=SECRET)
        with GitHttp(repository.path.parent, credentials=("ada", SECRET)) as server:
            url = f"{server.origin}/{repository.path.name}"
            async with opened(tmp_path, url, credentials={"name": "git"}) as source:
                await source.pin()
                server.credentials = ("ada", "another-password")
                (tmp_path / "credentials" / "source" / "password").write_text("another-password")
                found = {item.entry.key: item.data for item in await fetched(source, await listed(source))}
        assert found["README.md"] == b"# One"
        assert server.fetches() == 2, "history first, contents afterwards"

    async def test_are_in_no_argument_and_no_environment(
        self, repository: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        secret(tmp_path, username="ada", password=SECRET)
        monkeypatch.setenv("SOMEBODYS_TOKEN", SECRET)
        seen: list[str] = []

        def look(_: Request) -> Response | None:
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    arguments = (process / "cmdline").read_bytes().decode(errors="replace")
                    if arguments.startswith("git\0") or "git-remote" in arguments:
                        seen.append(arguments + (process / "environ").read_bytes().decode(errors="replace"))
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue
            return None

        with GitHttp(repository.path.parent, credentials=("ada", SECRET), override=look) as server:
            await contents_of(tmp_path, f"{server.origin}/{repository.path.name}", credentials={"name": "git"})
        ours = [text for text in seen if "core.hooksPath" in text]
        assert any("fetch" in text for text in ours)
        assert not any(SECRET in text for text in ours)

    @pytest.mark.parametrize("given", [True, False])
    async def test_a_refusal_says_what_to_check(self, given: bool, repository: GitRepository, tmp_path: Path) -> None:
        source: dict[str, Any] = {}
        if given:
            secret(tmp_path, token=SECRET)
            source["credentials"] = {"name": "git"}
        with GitHttp(repository.path.parent, credentials=("ada", "right")) as server:
            error = await pin_error(tmp_path, f"{server.origin}/{repository.path.name}", **source)
        assert (type(error), error.reason) == (Terminal, "AccessDenied")
        assert ("check the Secret" if given else "name a Secret in spec.source.git.credentials") in error.message

    async def test_another_origin_does_not_get_them(
        self, repository: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def resolve(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        monkeypatch.setattr(network, "system_resolver", resolve)
        secret(tmp_path, token=SECRET)

        def elsewhere(request: Request) -> Response | None:
            if request.headers["host"].startswith("first.example"):
                target = f"http://second.example:{server.port}{request.path}"
                return Response(status=302, headers={"Location": target})
            # It asks for credentials, so that git would send what it has.
            return Response(b"no", 401, {"WWW-Authenticate": 'Basic realm="git"'})

        with GitHttp(repository.path.parent, override=elsewhere) as server:
            url = f"http://first.example:{server.port}/{repository.path.name}"
            error = await pin_error(tmp_path, url, credentials={"name": "git"})
            assert ["authorization" in request.headers for request in server.requests] == [True, False]
        assert error.reason == "AccessDenied"

    @pytest.mark.parametrize("url", [f"https://user:{SECRET}@x.example/r", f"https://{SECRET}@x.example/r"])
    def test_in_an_address_are_refused_and_not_shown(self, url: str) -> None:
        with pytest.raises(Terminal) as refused:
            parse_url(url)
        assert SECRET not in refused.value.message
        assert "Secret" in refused.value.message


class TestSsh:
    @pytest.fixture
    def fake_ssh(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An ssh that writes its arguments down and runs the command here."""
        binaries = tmp_path / "bin"
        binaries.mkdir()
        log = tmp_path / "ssh.log"
        script = f'#!/bin/sh\nprintf "%s\\n" "$@" >> {log}\nfor last; do :; done\nexec sh -c "$last"\n'
        (binaries / "ssh").write_text(script)
        (binaries / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")

        async def resolve(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        monkeypatch.setattr(network, "system_resolver", resolve)
        return log

    async def test_connects_to_the_checked_address_with_the_key(
        self, fake_ssh: Path, repository: GitRepository, tmp_path: Path
    ) -> None:
        secret(tmp_path, token="-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----")
        url = f"ssh://git@code.invalid:2222{repository.path}"
        made = open_source(run_spec({"git": {"url": url, "credentials": {"name": "git"}}}, network=LOOPBACK), tmp_path)
        assert await made.pin() == repository.git("rev-parse", "main")
        arguments = written(fake_ssh).split("\n")
        (copy,) = working_copies(tmp_path)
        assert mode(copy / "identity") == 0o600
        key = written(copy / "identity")
        assert key.endswith("KEY-----\n")
        assert key not in "\n".join(arguments)
        await made.close()
        assert "git@127.0.0.1" in arguments
        assert "HostKeyAlias=code.invalid" in arguments
        assert "2222" in arguments

    async def test_needs_a_private_key(self, fake_ssh: Path, tmp_path: Path) -> None:
        secret(tmp_path, username="ada", password=SECRET)
        error = await pin_error(tmp_path, "ssh://git@code.invalid/r", credentials={"name": "git"})
        assert (type(error), error.reason) == (Terminal, "InvalidSpec")
        assert "private key" in error.message
        assert not written(fake_ssh)


class TestTls:
    async def test_the_certificate_is_checked_by_us_and_by_git(self, repository: GitRepository, tmp_path: Path) -> None:
        with GitHttp(repository.path.parent) as server:
            front = TlsFront(server.port, tmp_path / "ca.pem")
            url = f"https://127.0.0.1:{front.port}/{repository.path.name}"
            error = await pin_error(tmp_path, url)
            assert (type(error), error.reason) == (Terminal, "TLSVerificationFailed")
            assert "spec.source.git.tls" in error.message
            switched_off = await contents_of(tmp_path, url, tls={"insecureSkipVerify": True})
            (tmp_path / "tls" / "source").mkdir(parents=True)
            (tmp_path / "tls" / "source" / "ca.crt").write_bytes(front.ca_file.read_bytes())
            trusted = await contents_of(tmp_path, url)
            front.close()
        assert trusted == switched_off
        assert trusted["README.md"] == b"# One"

    async def test_a_name_for_the_certificate(
        self, repository: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def resolve(_host: str, _port: int) -> list[str]:
            return ["127.0.0.1"]

        monkeypatch.setattr(network, "system_resolver", resolve)
        with GitHttp(repository.path.parent) as server:
            front = TlsFront(server.port, tmp_path / "ca.pem")
            (tmp_path / "tls" / "source").mkdir(parents=True)
            (tmp_path / "tls" / "source" / "ca.crt").write_bytes(front.ca_file.read_bytes())
            url = f"https://code.invalid:{front.port}/{repository.path.name}"
            assert (await pin_error(tmp_path, url)).reason == "TLSVerificationFailed"
            found = await contents_of(tmp_path, url, tls={"serverName": "localhost"})
            front.close()
        assert found["README.md"] == b"# One"
