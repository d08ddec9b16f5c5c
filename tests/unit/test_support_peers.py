"""The peers that tests control behave as the real ones do: git over its own protocol, web servers, embeddings."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.support.git import GitServer
from tests.support.http_files import HttpFiles
from tests.support.openai import Fault, FaultKind, OpenAIServer, StartOpenAI
from tests.support.tls import TlsFront


def git(*arguments: str | Path) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


# git


def test_git_serves_commits_with_their_dates_and_authors(git_server: GitServer, tmp_path: Path) -> None:
    repository = git_server.repository()
    first = repository.commit({"docs/a b.md": "one\n", "x.bin": b"\0\1"}, date=datetime(2020, 2, 3, tzinfo=UTC))
    second = repository.commit(
        {"docs/a b.md": "two\n", "x.bin": None, "y.py": "pass\n"},
        message="Second\n\nwith a body",
        author="Grace <grace@example.org>",
        date=datetime(2021, 5, 6, 7, 8, 9, tzinfo=UTC),
    )
    repository.tag("v1", first)
    git("clone", "--quiet", repository.url, tmp_path / "copy")
    assert (tmp_path / "copy" / "docs" / "a b.md").read_text() == "two\n"
    assert sorted(git("-C", tmp_path / "copy", "ls-files").splitlines()) == ["docs/a b.md", "y.py"]
    log = git("-C", tmp_path / "copy", "log", "--format=%H %aI %cI %an %s").splitlines()
    assert log == [
        f"{second} 2021-05-06T07:08:09+00:00 2021-05-06T07:08:09+00:00 Grace Second",
        f"{first} 2020-02-03T00:00:00+00:00 2020-02-03T00:00:00+00:00 Ada A change",
    ]
    assert git("ls-remote", repository.url, "v1").startswith(first)


def test_git_serves_blobless_clones_and_commits_by_id(git_server: GitServer, tmp_path: Path) -> None:
    repository = git_server.repository()
    first = repository.commit({"a": "1"})
    repository.commit({"a": "2"}, branch="side")
    repository.commit({"a": "3"})
    copy = tmp_path / "copy"
    git("clone", "--quiet", "--bare", "--filter=blob:none", repository.url, copy)
    missing = git("-C", copy, "rev-list", "--objects", "--all", "--missing=print")
    assert any(line.startswith("?") for line in missing.splitlines())
    git("init", "--quiet", tmp_path / "one")
    git("-C", tmp_path / "one", "fetch", "--quiet", "--depth=1", repository.url, first)
    assert git("-C", tmp_path / "one", "show", "FETCH_HEAD:a") == "1"


def test_git_refuses_what_is_not_there(git_server: GitServer) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        git("ls-remote", f"{git_server.url}/absent.git")
    assert "access denied or repository not exported" in refused.value.stderr


# web


def test_http_files_answer_as_told(http_files: HttpFiles) -> None:
    page = http_files.put("/a.md", "# A", headers={"Content-Type": "text/markdown", "ETag": '"1"'})
    gone = http_files.put("/gone", status=410)
    moved = http_files.redirect("/moved", page, 301)
    with httpx.Client(trust_env=False) as client:
        answer = client.get(page)
        assert (answer.text, answer.headers["content-type"]) == ("# A", "text/markdown")
        assert client.get(page, headers={"If-None-Match": '"1"'}).status_code == 304
        assert client.head(page).headers["content-length"] == "3"
        assert client.get(gone).status_code == 410
        assert client.get(http_files.url("/absent")).status_code == 404
        assert client.get(moved).headers["location"] == page
        assert client.get(moved, follow_redirects=True).text == "# A"
        http_files.remove("/a.md")
        assert client.get(page).status_code == 404
    assert [(request.method, request.path) for request in http_files.requests][:3] == [
        ("GET", "/a.md"),
        ("GET", "/a.md"),
        ("HEAD", "/a.md"),
    ]


def test_http_files_can_be_slow_and_break_off(http_files: HttpFiles) -> None:
    slow = http_files.put("/slow", "x", delay=60)
    cut = http_files.put("/cut", "0123456789", cut_after=4)
    dropped = http_files.put("/dropped", "x", cut_after=0)
    with httpx.Client(trust_env=False) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.get(slow, timeout=0.2)
        for url in (cut, dropped):
            with pytest.raises(httpx.RemoteProtocolError):
                client.get(url)
    begun = time.monotonic()
    http_files.close()
    assert time.monotonic() - begun < 5


def test_tls_front_is_verified_against_its_own_authority(
    http_files: HttpFiles, tls_front: Callable[[int], TlsFront]
) -> None:
    http_files.put("/a", "hello")
    front = tls_front(http_files.port)
    trusted = ssl.create_default_context(cafile=str(front.ca_file))
    with httpx.Client(verify=trusted, trust_env=False) as client:
        assert client.get(f"{front.url}/a").text == "hello"
    with (
        httpx.Client(trust_env=False) as stranger,
        pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        stranger.get(f"{front.url}/a")


# embeddings


def embed(server: OpenAIServer, *texts: str, key: str | None = None, **more: Any) -> httpx.Response:
    return httpx.post(
        f"{server.base_url}/embeddings",
        json={"model": server.model, "input": list(texts), **more},
        headers={"Authorization": f"Bearer {key or server.key}"},
        trust_env=False,
    )


def test_embeddings_are_unit_vectors_and_the_same_every_time(openai_server: OpenAIServer) -> None:
    answer = embed(openai_server, "the red house", "the red houses", "an unrelated thing").json()
    vectors = np.array([item["embedding"] for item in answer["data"]])
    assert vectors.shape == (3, 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(vectors[0].astype(np.float32), openai_server.vector("the red house"))
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert openai_server.embedded == ["the red house", "the red houses", "an unrelated thing"]


def test_embeddings_by_base64_and_of_fewer_dimensions(start_openai: StartOpenAI) -> None:
    server = start_openai(dimension=1536, model="m", key="k")
    packed = embed(server, "a", encoding_format="base64", dimensions=256).json()["data"][0]["embedding"]
    vector = np.frombuffer(base64.b64decode(packed), dtype="<f4")
    assert vector.shape == (256,)
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert embed(server, "a", dimensions=1537).status_code == 400


def test_embeddings_refuse_as_the_api_does(openai_server: OpenAIServer) -> None:
    assert embed(openai_server, "a", key="wrong").json()["error"]["code"] == "invalid_api_key"
    assert embed(openai_server, "a", model="other").json()["error"]["code"] == "model_not_found"
    assert embed(openai_server, "").status_code == 400
    assert embed(openai_server).status_code == 400
    assert embed(openai_server, "w " * 8193).status_code == 400
    assert openai_server.embedded == []


def test_embeddings_fail_on_demand(openai_server: OpenAIServer) -> None:
    openai_server.fail_next(
        Fault(FaultKind.RATE_LIMITED, retry_after=2), FaultKind.SERVER_ERROR, FaultKind.RUBBISH, None
    )
    limited = embed(openai_server, "a")
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "2")
    assert embed(openai_server, "a").status_code == 500
    with pytest.raises(ValueError, match="Expecting value"):
        embed(openai_server, "a").json()
    assert embed(openai_server, "a").is_success
    openai_server.always = Fault(FaultKind.WRONG_COUNT)
    assert len(embed(openai_server, "a", "b").json()["data"]) == 1
    openai_server.always = Fault(FaultKind.WRONG_DIMENSION)
    assert len(embed(openai_server, "a").json()["data"][0]["embedding"]) == 63
    openai_server.always = Fault(FaultKind.NAN)
    assert "NaN" in embed(openai_server, "a").text
    openai_server.always = Fault(FaultKind.EMPTY)
    assert "data" not in embed(openai_server, "a").json()
    openai_server.always = Fault(FaultKind.DROPPED)
    with pytest.raises(httpx.RemoteProtocolError):
        embed(openai_server, "a")
    openai_server.always = None
    assert embed(openai_server, "a").is_success


async def test_embeddings_answer_many_at_once(openai_server: OpenAIServer) -> None:
    openai_server.delay = 1.0
    headers = {"Authorization": f"Bearer {openai_server.key}"}
    begun = time.monotonic()
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
        answers = await asyncio.gather(*(client.get(f"{openai_server.base_url}/models") for _ in range(8)))
    assert time.monotonic() - begun < 8 * openai_server.delay
    assert [answer.status_code for answer in answers] == [200] * 8
