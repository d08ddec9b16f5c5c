"""The http source.

- documents come in order, with what the server says of them; keys are addresses without credentials and fragments
- every hop of a redirect is checked; connections go to the checked address, while Host and TLS keep the name
- credentials go to the listed origins only, and are those that the Secret holds when a document is asked for
- failures tell what happened and belong to one document; sizes are bounded while reading, packed or not
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.support.http_files import HttpFiles
from tests.support.http_source import failure, get, opened
from tests.support.polling import until
from tests.support.sources import SECRET, fetched, listed, refusal, run_spec, secret, serving
from tests.support.tls import TlsFront

from vectorwright.api.v1alpha1.ingestion_source import HttpSource
from vectorwright.errors import Terminal
from vectorwright.ingest import network
from vectorwright.ingest.sources.registry import open_source


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Names and the addresses they resolve to, one list a look-up; the last one stays."""
    known: dict[str, list[list[str]]] = {}
    system = network.system_resolver

    async def resolve(host: str, port: int) -> list[str]:
        answers = known.get(host)
        if answers is None:
            return await system(host, port)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(network, "system_resolver", resolve)
    return known


class TestDocuments:
    async def test_come_sorted_with_what_the_server_says(self, http_files: HttpFiles, tmp_path: Path) -> None:
        headers = {"ETag": '"v1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT", "Content-Type": "text/markdown"}
        one = http_files.put("/b.md?x=1", "# B", headers=headers)
        two = http_files.put("/a", b"A")
        first, second = await get(tmp_path, one, two, one + "#part")
        assert (first.entry.key, first.data, first.entry.size) == (two, b"A", 1)
        assert second.entry.key == one
        assert second.entry.media_type == "text/markdown"
        assert second.entry.token == hashlib.sha256(b"# B").hexdigest()
        assert second.entry.metadata == {
            "url": one,
            "etag": '"v1"',
            "last_modified": "Mon, 01 Jan 2024 00:00:00 GMT",
            "content_type": "text/markdown",
            "checksum": f"sha256:{second.entry.token}",
        }

    async def test_the_revision_is_of_the_list(self, http_files: HttpFiles, tmp_path: Path) -> None:
        revisions = []
        for urls in (("/a", "/b"), ("/b", "/a"), ("/a",)):
            async with opened(tmp_path, *map(http_files.url, urls)) as source:
                revisions.append(await source.pin())
        assert revisions[0] == revisions[1] != revisions[2]

    async def test_keep_their_order_though_several_are_fetched_at_once(
        self, http_files: HttpFiles, tmp_path: Path
    ) -> None:
        urls = [http_files.put(f"/{n:02}", str(n), delay=0.2 if n % 5 == 0 else 0.0) for n in range(20)]
        found = await asyncio.wait_for(get(tmp_path, *urls), 4)
        assert [item.entry.key for item in found] == urls
        assert [item.data for item in found] == [str(n).encode() for n in range(20)]

    async def test_one_that_fails_holds_up_no_other(self, http_files: HttpFiles, tmp_path: Path) -> None:
        urls = [http_files.put("/a", "A"), http_files.url("/b"), http_files.put("/c", "C")]
        assert [item.data for item in await get(tmp_path, *urls)] == [b"A", None, b"C"]

    async def test_a_reader_that_stops_leaves_nothing_running(self, http_files: HttpFiles, tmp_path: Path) -> None:
        urls = [http_files.put(f"/{n}", "x", delay=0.0 if n == 0 else 30.0) for n in range(5)]
        before = asyncio.all_tasks()
        async with opened(tmp_path, *urls) as source:
            answers = source.fetch(await listed(source))
            await anext(answers)
            await answers.aclose()  # type: ignore[attr-defined]
        assert asyncio.all_tasks() == before

    async def test_connections_are_used_again(self, tmp_path: Path) -> None:
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
                await writer.drain()

        async with serving(serve) as port:
            found = await get(tmp_path, *(f"http://127.0.0.1:{port}/{n}" for n in range(40)))
            assert [item.data for item in found] == [b"x"] * 40
            assert connections <= 4


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        ["http://127.0.0.2/", "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://10.0.0.1:8080/"],
    )
    async def test_private_ones_are_refused_before_anything_is_fetched(
        self, url: str, http_files: HttpFiles, tmp_path: Path
    ) -> None:
        async with opened(tmp_path, http_files.url("/a"), url) as source:
            error = await refusal(source)
        assert error.reason == "AddressRefused"
        assert "--allow-networks" in error.message
        assert http_files.requests == []

    @pytest.mark.parametrize(
        "target",
        [
            "http://127.0.0.2:{port}/x",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::ffff:169.254.169.254]/",
            "//127.0.0.2/x",
        ],
    )
    async def test_a_redirect_to_a_private_one_is_refused(
        self, target: str, http_files: HttpFiles, tmp_path: Path
    ) -> None:
        url = http_files.redirect("/a", target.format(port=http_files.port))
        error = await failure(tmp_path, url)
        assert (type(error), error.reason) == (Terminal, "AddressRefused")
        assert len(http_files.requests) == 1

    async def test_a_redirect_to_a_name_of_a_private_one_is_refused(
        self, http_files: HttpFiles, tmp_path: Path, names: dict[str, list[list[str]]]
    ) -> None:
        names["inside.example"] = [["8.8.8.8", "10.0.0.5"]]
        error = await failure(tmp_path, http_files.redirect("/a", "http://inside.example/x"))
        assert error.reason == "AddressRefused"
        assert "inside.example resolves to 10.0.0.5" in error.message

    async def test_a_name_that_changes_between_check_and_use_gains_nothing(
        self, http_files: HttpFiles, tmp_path: Path, names: dict[str, list[list[str]]]
    ) -> None:
        http_files.put("/a", "A")
        names["rebind.example"] = [["127.0.0.1"], ["10.0.0.1"]]
        error = await failure(tmp_path, f"http://rebind.example:{http_files.port}/a")
        assert error.reason == "AddressRefused"
        assert http_files.requests == []

    async def test_the_connection_goes_to_the_checked_address_and_the_host_keeps_its_name(
        self, http_files: HttpFiles, tmp_path: Path, names: dict[str, list[list[str]]]
    ) -> None:
        http_files.put("/a", "A")
        names["docs.example"] = [["127.0.0.1"]]
        (found,) = await get(tmp_path, f"http://docs.example:{http_files.port}/a")
        assert found.data == b"A"
        assert http_files.requests[0].headers["host"] == f"docs.example:{http_files.port}"

    async def test_the_next_address_is_tried_when_one_does_not_answer(
        self, http_files: HttpFiles, tmp_path: Path, names: dict[str, list[list[str]]]
    ) -> None:
        http_files.put("/a", "A")
        names["docs.example"] = [["127.0.0.7", "127.0.0.1"]]
        spec = run_spec(
            {"http": {"urls": [f"http://docs.example:{http_files.port}/a"]}}, network={"allowNetworks": ["127.0.0.0/8"]}
        )
        source = open_source(spec, tmp_path)
        (found,) = await fetched(source, await listed(source))
        await source.close()
        assert found.data == b"A"

    async def test_a_host_that_does_not_exist_fails_its_documents_only(
        self, http_files: HttpFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        system = network.system_resolver

        async def resolve(host: str, port: int) -> list[str]:
            if host == "nowhere.example":
                raise socket.gaierror(socket.EAI_NONAME, "no")
            return await system(host, port)

        monkeypatch.setattr(network, "system_resolver", resolve)
        first, second = await get(tmp_path, http_files.put("/a", "A"), "http://nowhere.example/")
        assert first.data == b"A"
        assert isinstance(second.error, Terminal)
        assert second.error.reason == "HostNotFound"

    @pytest.mark.parametrize("url", ["ftp://x.example/", "file:///etc/passwd", "x.example/a", "http://"])
    def test_the_api_refuses_what_is_no_web_address(self, url: str) -> None:
        with pytest.raises(ValidationError, match="should match pattern"):
            HttpSource(urls=[url])

    @pytest.mark.parametrize("url", ["http://x.example:99999/", "http://[::"])
    async def test_what_is_no_address_is_refused(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(Terminal) as refused:
            async with opened(tmp_path, url):
                pass
        assert refused.value.reason == "InvalidSpec"

    @pytest.mark.parametrize("url", [f"http://user:{SECRET}@x.example/", f"http://{SECRET}@x.example/"])
    def test_the_api_refuses_credentials_in_an_address(self, url: str) -> None:
        with pytest.raises(ValidationError, match="should match pattern"):
            HttpSource(urls=[url])


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_are_followed_and_the_key_stays(self, status: int, http_files: HttpFiles, tmp_path: Path) -> None:
        http_files.put("/dir/b", "B")
        url = http_files.redirect("/dir/a", "b#part", status)
        (found,) = await get(tmp_path, url)
        assert (found.data, found.entry.key) == (b"B", url)

    async def test_end_after_five(self, http_files: HttpFiles, tmp_path: Path) -> None:
        for n in range(6):
            http_files.redirect(f"/{n}", f"/{n + 1}")
        http_files.put("/6", "end")
        (found,) = await get(tmp_path, http_files.url("/1"))
        assert found.data == b"end"
        error = await failure(tmp_path, http_files.url("/0"))
        assert (type(error), error.reason) == (Terminal, "TooManyRedirects")

    @pytest.mark.parametrize(
        "target", ["file:///etc/passwd", "gopher://x/", "http://x:99999/", "http://[::", "javascript:1"]
    )
    async def test_to_what_is_no_address_are_refused(self, target: str, http_files: HttpFiles, tmp_path: Path) -> None:
        error = await failure(tmp_path, http_files.redirect("/a", target))
        assert (type(error), error.reason) == (Terminal, "BadRedirect")


class TestCredentials:
    async def test_a_token_is_sent_as_bearer(self, http_files: HttpFiles, tmp_path: Path) -> None:
        secret(tmp_path, token=f"{SECRET}\n")
        await get(tmp_path, http_files.put("/a", "A"), credentials={"name": "web"})
        assert http_files.requests[0].headers["authorization"] == f"Bearer {SECRET}"

    async def test_user_and_password_are_sent_as_basic(self, http_files: HttpFiles, tmp_path: Path) -> None:
        secret(tmp_path, username="ada", password=SECRET)
        await get(tmp_path, http_files.put("/a", "A"), credentials={"name": "web"})
        expected = base64.b64encode(f"ada:{SECRET}".encode()).decode()
        assert http_files.requests[0].headers["authorization"] == f"Basic {expected}"

    async def test_a_secret_that_changes_is_read_again(self, http_files: HttpFiles, tmp_path: Path) -> None:
        secret(tmp_path, token=SECRET)
        token = tmp_path / "credentials" / "source" / "token"
        async with opened(tmp_path, http_files.put("/a", "A"), credentials={"name": "web"}) as source:
            for change in (None, "another-token", ""):
                if change is not None:
                    token.write_text(change)
                (found,) = await fetched(source, await listed(source))
                assert found.data == b"A"
        sent = [request.headers["authorization"] for request in http_files.requests]
        assert sent == [f"Bearer {SECRET}", "Bearer another-token", "Bearer another-token"]

    async def test_what_is_refused_is_asked_for_again_with_other_credentials_only(
        self, http_files: HttpFiles, tmp_path: Path
    ) -> None:
        secret(tmp_path, token=SECRET)
        url = http_files.put("/a", status=401, delay=2.0)
        async with opened(tmp_path, url, credentials={"name": "web"}) as source:
            fetching = asyncio.create_task(fetched(source, await listed(source)))
            await until(lambda: http_files.requests, 20, 0.02)
            (tmp_path / "credentials" / "source" / "token").write_text("another-token")
            http_files.put("/a", "A")
            (found,) = await fetching
        assert found.data == b"A"
        sent = [request.headers["authorization"] for request in http_files.requests]
        assert sent == [f"Bearer {SECRET}", "Bearer another-token"]
        http_files.put("/a", status=401)
        await failure(tmp_path, url, credentials={"name": "web"})
        assert len(http_files.requests) == 3

    async def test_another_origin_does_not_get_them(
        self, http_files: HttpFiles, tmp_path: Path, names: dict[str, list[list[str]]]
    ) -> None:
        secret(tmp_path, token=SECRET)
        names["elsewhere.example"] = [["127.0.0.1"]]
        http_files.put("/b", "B")
        http_files.redirect("/same", "/a")
        http_files.redirect("/a", f"http://elsewhere.example:{http_files.port}/b")
        (found,) = await get(tmp_path, http_files.url("/same"), credentials={"name": "web"})
        assert found.data == b"B"
        sent = [(request.path, "authorization" in request.headers) for request in http_files.requests]
        assert sent == [("/same", True), ("/a", True), ("/b", False)]

    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_refusal_says_what_to_check(self, status: int, http_files: HttpFiles, tmp_path: Path) -> None:
        url = http_files.put("/a", f"you sent {SECRET}", status=status)
        error = await failure(tmp_path, url)
        assert (type(error), error.reason) == (Terminal, "AccessDenied")
        assert "may need spec.source.http.credentials" in error.message
        secret(tmp_path, token=SECRET)
        error = await failure(tmp_path, url, credentials={"name": "web"})
        assert "check the Secret" in error.message


class TestTls:
    @pytest.fixture
    def front(self, http_files: HttpFiles, tmp_path: Path) -> Iterator[TlsFront]:
        http_files.put("/a", "A")
        made = TlsFront(http_files.port, tmp_path / "ca.pem")
        yield made
        made.close()

    @staticmethod
    def trust(directory: Path, front: TlsFront) -> None:
        (directory / "tls" / "source").mkdir(parents=True)
        (directory / "tls" / "source" / "ca.crt").write_bytes(front.ca_file.read_bytes())

    async def test_the_certificate_is_checked_against_the_given_authorities(
        self, front: TlsFront, tmp_path: Path, names: dict[str, list[list[str]]]
    ) -> None:
        names["localhost"] = [["127.0.0.1"]]
        error = await failure(tmp_path, f"https://localhost:{front.port}/a")
        assert (type(error), error.reason) == (Terminal, "TLSVerificationFailed")
        assert "spec.source.http.tls" in error.message
        self.trust(tmp_path, front)
        for host in ("localhost", "127.0.0.1"):
            (found,) = await get(tmp_path, f"https://{host}:{front.port}/a")
            assert found.data == b"A"

    async def test_the_name_in_the_certificate_must_fit_or_be_given(
        self, front: TlsFront, tmp_path: Path, names: dict[str, list[list[str]]]
    ) -> None:
        names["docs.example"] = [["127.0.0.1"]]
        self.trust(tmp_path, front)
        url = f"https://docs.example:{front.port}/a"
        assert (await failure(tmp_path, url)).reason == "TLSVerificationFailed"
        (found,) = await get(tmp_path, url, tls={"serverName": "localhost"})
        assert found.data == b"A"

    async def test_verification_can_be_switched_off(self, front: TlsFront, tmp_path: Path) -> None:
        (found,) = await get(tmp_path, f"https://127.0.0.1:{front.port}/a", tls={"insecureSkipVerify": True})
        assert found.data == b"A"

    async def test_authorities_that_cannot_be_read_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "tls" / "source").mkdir(parents=True)
        (tmp_path / "tls" / "source" / "ca.crt").write_text("not a certificate")
        with pytest.raises(Terminal) as refused:
            async with opened(tmp_path, "https://x.example/"):
                pass
        assert refused.value.reason == "InvalidCA"
