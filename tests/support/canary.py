"""Looks for values of keys, in any encoding, in all places where others than their owners can read."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
from deploy.devcluster import Cluster
from tests.support.loopback_http import LoopbackHttp, Request, Response

_SHORTEST = 8
"""Bytes of what is searched for: less may stand anywhere by chance."""


@dataclass(frozen=True)
class Place:
    """Something that may be read."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Finding:
    """A value in a place. Neither it nor what stands around it is shown."""

    place: str
    encoding: str
    value: str
    """Whose value it is."""


def encodings(value: str) -> dict[str, bytes]:
    """How a value may be written. Of a JSON web token each part but for the header, which is no secret."""
    raw = value.encode()
    found = {
        "raw": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "repr": repr(value)[1:-1].encode(),
        "JSON": json.dumps(value)[1:-1].encode(),
        "URL": quote(value, safe="").encode(),
        "form": quote_plus(value).encode(),
    }
    # In the midst of something else, as in "Basic …", base64 depends on what is before: there are three ways.
    for offset in range(3):
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            first, last = -(-8 * offset // 6), (8 * (offset + len(raw))) // 6
            found[f"{name} {offset}"] = encode(bytes(offset) + raw)[first:last]
    parts = value.split(".")
    if len(parts) == 3 and parts[0].startswith("eyJ"):
        found |= {"JWT claims": parts[1].encode(), "JWT signature": parts[2].encode()}
        claims = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        found["JWT claims, decoded"] = claims
    return {name: text for name, text in found.items() if len(text) >= _SHORTEST}


class Canary:
    """Values that must show nowhere."""

    def __init__(self) -> None:
        self._needles: dict[bytes, tuple[str, str]] = {}
        self._values: dict[str, str] = {}
        self._guard = threading.Lock()

    def add(self, whose: str, value: str) -> None:
        """One more."""
        with self._guard:
            if value not in self._values:
                self._values[value] = whose
                for encoding, text in encodings(value).items():
                    self._needles.setdefault(text, (encoding, whose))

    @property
    def owners(self) -> list[str]:
        """Whose values there are, in order."""
        return list(self._values.values())

    def find(self, places: Iterable[Place]) -> list[Finding]:
        """All of them, once an encoding and place."""
        return [
            Finding(place.name, encoding, whose)
            for place in places
            for text, (encoding, whose) in self._needles.items()
            if text in place.content
        ]


# Places.


def objects(cluster: Cluster, namespace: str) -> Iterator[Place]:
    """Everything in a namespace, managed fields and events included; Secrets without their data."""
    kinds = cluster.kubectl_run("api-resources", "--verbs=list", "--namespaced", "--output=name").split()
    told = cluster.kubectl_run(
        "get", ",".join(sorted(kinds)), "--namespace", namespace, "--output=json", "--show-managed-fields"
    )
    for item in json.loads(told)["items"]:
        if item["kind"] == "Secret":
            item.pop("data", None)
        yield Place(f"{item['kind']} {item['metadata']['name']}", json.dumps(item, ensure_ascii=False).encode())


def log(name: str, path: Path, since: int = 0) -> Place:
    """A file that somebody writes to, from a byte on."""
    return Place(name, path.read_bytes()[since:])


def processes(root: int) -> Iterator[Place]:
    """Arguments and environment of a process and all below it."""
    parents: dict[int, int] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(directory.name)] = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    for pid in sorted(family):
        for what in ("cmdline", "environ"):
            try:
                yield Place(f"{what} of process {pid}", Path(f"/proc/{pid}/{what}").read_bytes())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile


def files(directory: Path, but: Sequence[str] = ()) -> Iterator[Place]:
    """All files below a directory. ``but``: names of folders that hold credentials because they have to."""
    for path in _below(directory):
        if path.is_file() and not path.is_symlink() and not set(but) & set(path.relative_to(directory).parts):
            with suppress(FileNotFoundError):  # it was removed meanwhile
                yield Place(f"file {path.relative_to(directory)}", path.read_bytes())


def modes(directory: Path) -> dict[str, str]:
    """Modes of all files and folders below a directory, links left out: ``{"run.json": "600"}``."""
    found: dict[str, str] = {}
    for path in _below(directory):
        with suppress(FileNotFoundError):
            seen = path.lstat()
            if not stat.S_ISLNK(seen.st_mode):
                found[str(path.relative_to(directory))] = f"{stat.S_IMODE(seen.st_mode):o}"
    return found


def _below(directory: Path) -> list[Path]:
    """Files and folders below a directory, also while somebody removes some."""
    return sorted(Path(at) / name for at, folders, names in os.walk(directory) for name in (*folders, *names))


# Stores that say what they should not.


class TellingFront:
    """Passes HTTP requests on to a server; while it ``tells``, it answers each with an error that quotes it whole."""

    def __init__(self, host: str, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://{host}:{port}", timeout=30, trust_env=False)
        self._server = LoopbackHttp(self._answer, keep_requests=False)
        self.host, self.port = self._server.host, self._server.port
        self.tells = False
        self.told = 0

    def _answer(self, request: Request) -> Response:
        if not self.tells:
            skipped = {"connection", "content-length", "transfer-encoding", "content-encoding", "accept-encoding"}
            headers = {name: value for name, value in request.headers.items() if name not in skipped}
            try:
                answer = self._client.request(request.method, request.path, headers=headers, content=request.body)
            except httpx.TransportError:
                return Response(reset=True)
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in skipped}
            return Response(answer.content, answer.status_code, passed)
        self.told += 1
        status = (500, 401, 403, 400, 404, 422, 200)[self.told % 7]
        keys = " ".join(f"{name}: {value}" for name, value in request.headers.items())
        quoted = f"{request.method} {request.path} with {keys} and {request.body.decode(errors='replace')}"
        shapes: tuple[Any, ...] = (
            {"error": [{"message": quoted}]},
            {"error": {"code": "UNKNOWN", "message": quoted}, "status": status},
            {"message": quoted, "code": 13, "details": [quoted]},
            quoted,
        )
        body = json.dumps(shapes[self.told // 7 % 4]).encode()
        said = request.headers.get("authorization") or request.headers.get("api-key") or "nothing"
        headers = {"Content-Type": "application/json", "X-Request-Id": said, "WWW-Authenticate": said}
        return Response(body, status, headers)

    def close(self) -> None:
        self._server.close()
        self._client.close()
