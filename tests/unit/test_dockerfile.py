"""The Dockerfile agrees with the rest of the repository, as far as that can be told without a container engine.

What is checked: the pinned tools and the version; what runs is not root and cannot change itself; all that is copied is
in the build context, and nothing else is; the health check tells a healthy operator from others.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
from scripts import bootstrap

from vectorwright import __version__
from vectorwright.cli import COMMANDS
from vectorwright.observability.health import Answer, HealthServer
from vectorwright.settings import BindAddress, Settings

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Step:
    """One instruction, with continued lines joined, and the stage that it is in (0: before the first FROM)."""

    stage: int
    word: str
    rest: str


def steps() -> list[Step]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    found: list[Step] = []
    stage = 0
    for line in filter(None, re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()):
        word, _, rest = line.partition(" ")
        stage += word == "FROM"
        found.append(Step(stage, word, rest.strip()))
    return found


STEPS = steps()
FINAL = [step for step in STEPS if step.stage == 2]


def argument(name: str) -> str:
    (value,) = [
        step.rest.partition("=")[2] for step in STEPS if step.word == "ARG" and step.rest.startswith(f"{name}=")
    ]
    return value


def last(word: str) -> str:
    return [step.rest for step in FINAL if step.word == word][-1]


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a path out: the last pattern that takes it, or a directory above it, decides."""
    verdict = False
    above = [str(parent) for parent in Path(path).parents if str(parent) != "."]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted = pattern.removeprefix("!")
        takes = any(
            fnmatch(name, wanted) or fnmatch(f"/{name}", wanted.replace("**/", "*/")) for name in (path, *above)
        )
        if takes:
            verdict = not pattern.startswith("!")
    return verdict


def test_both_stages_start_from_the_base_that_was_given() -> None:
    assert [step.rest for step in STEPS if step.word == "FROM"] == ["${BASE} AS build", "${BASE}"]
    assert re.fullmatch(r"python:3\.\d+-slim", argument("BASE"))


def test_the_pinned_tools_are_those_of_the_repository() -> None:
    assert argument("UV_VERSION") == bootstrap.UV_VERSION
    build_system = re.search(r'"hatchling>=([0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    assert build_system is not None
    wanted, have = (
        [int(part) for part in text.split(".")] for text in (build_system[1], argument("HATCHLING_VERSION"))
    )
    assert have >= wanted


def test_dependencies_are_those_of_the_lock_file() -> None:
    (sync,) = [step.rest for step in STEPS if step.word == "RUN" and "uv sync" in step.rest]
    for flag in ("--frozen", "--no-dev", "--all-extras"):
        assert flag in sync
    (install,) = [step.rest for step in STEPS if step.word == "RUN" and "uv pip install" in step.rest]
    assert "--no-deps" in install
    assert "pip install" not in " ".join(step.rest for step in FINAL)


def test_the_version_is_that_of_the_package() -> None:
    assert argument("VERSION") == __version__


def test_it_runs_the_operator_as_nobody() -> None:
    assert last("USER") == "65532:65532"
    assert json.loads(last("ENTRYPOINT")) == ["vectorwright"]
    (command,) = json.loads(last("CMD"))
    assert command in COMMANDS
    after = [step.word for step in FINAL[[step.word for step in FINAL].index("USER") :]]
    assert "RUN" not in after
    assert "COPY" not in after


def test_the_final_image_gets_git_and_no_compiler() -> None:
    (install,) = [step.rest for step in FINAL if step.word == "RUN"]
    packages = install.partition("apt-get install")[2].partition(";")[0].split()
    assert [name for name in packages if not name.startswith("-")] == ["ca-certificates", "git", "openssh-client"]
    assert "--no-install-recommends" in packages


def test_what_is_copied_is_in_the_context_and_little_else_is() -> None:
    copied = [step.rest.split()[:-1] for step in STEPS if step.word == "COPY" and "--from" not in step.rest]
    sources = [source for names in copied for source in names]
    for source in sources:
        assert (ROOT / source).exists()
        assert not ignored(source)
    assert not ignored("operator/vectorwright/cli/operate.py")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    sent = [name for name in listed.stdout.split("\0") if name and not ignored(name)]
    assert {name.partition("/")[0] for name in sent} == set(sources)
    assert ignored("operator/vectorwright/__pycache__/x.cpython-311.pyc")
    assert ignored(".venv/bin/python")


@pytest.fixture
async def endpoint() -> AsyncIterator[tuple[dict[str, int], int]]:
    """An operator's listener whose /healthz answers with the status that the test sets; and its port."""
    answers = {"/healthz": 200}

    async def healthz() -> Answer:
        return Answer(answers["/healthz"], b"")

    server = HealthServer({"/healthz": healthz})
    port = (await server.start(BindAddress("127.0.0.1", 0))).port
    yield answers, port
    await server.close()


async def test_the_health_check_asks_the_operator(endpoint: tuple[dict[str, int], int]) -> None:
    answers, port = endpoint
    options, _, command = last("HEALTHCHECK").partition("CMD ")
    assert "--timeout=5s" in options
    python, flag, code = json.loads(command)
    assert (python, flag) == ("python3", "-c")
    default = str(Settings().metrics_bind_address.port)
    assert default in code
    check = [sys.executable, flag, code.replace(default, str(port))]

    async def status() -> int:
        process = await asyncio.create_subprocess_exec(*check, stderr=asyncio.subprocess.DEVNULL)
        return await process.wait()

    assert await status() == 0
    answers["/healthz"] = 503
    assert await status() == 1
    check[-1] = code.replace(default, "1")
    assert await status() != 0
