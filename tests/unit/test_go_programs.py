"""Servers that are built from Go modules: what is built, and under which key it is kept.

- each is pinned by files of the checkout, and nothing else of the module is in it
- a program is built once, from the package that its pins name; other pins are another program
- where there is no Go, the message says what to install
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from deploy.devcluster import gobuild
from deploy.devcluster.gobuild import GoBuildError, GoProgram, binary_path, ensure_built, module_version
from deploy.servers.go_programs import versitygw_program, weaviate_program

PROGRAMS = [weaviate_program(), versitygw_program()]
_GO = """#!/bin/sh
echo "$@" >> "$RECORD"
case "$1" in
env) echo go1.99.0 ;;
build)
    while [ "$1" != -o ]; do shift; done
    echo built > "$2" ;;
esac
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and no Go but what it adds to ``tools``."""
    (tmp_path / "tools").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RECORD", str(tmp_path / "calls"))
    monkeypatch.setattr(gobuild, "GO_PLACES", ())
    return tmp_path


def add_go(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = cache / "tools" / "go"
    go.write_text(_GO)
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{cache / 'tools'}:/usr/bin:/bin")


def by_name(program: GoProgram) -> str:
    return program.name


@pytest.mark.parametrize("program", PROGRAMS, ids=by_name)
def test_a_server_is_pinned_by_the_checkout(program: GoProgram) -> None:
    assert sorted(path.name for path in program.source.iterdir()) == ["go.mod", "go.sum"]
    module = program.package.partition("/cmd/")[0]
    assert module_version(program, module).startswith("v1.")
    assert f"tool {program.package}\n" in (program.source / "go.mod").read_text()
    assert f"{module} {module_version(program, module)} h1:" in (program.source / "go.sum").read_text()


@pytest.mark.parametrize("program", PROGRAMS, ids=by_name)
def test_a_server_is_built_once(cache: Path, monkeypatch: pytest.MonkeyPatch, program: GoProgram) -> None:
    add_go(cache, monkeypatch)
    said: list[str] = []
    built = [ensure_built(program, said.append) for _ in range(2)]
    assert built == [binary_path(program)] * 2
    assert built[0].read_text() == "built\n"
    assert built[0].is_relative_to(cache / "cache" / "vectorwright" / program.name)
    calls = [line for line in (cache / "calls").read_text().splitlines() if line.startswith("build")]
    assert len(calls) == 1
    assert calls[0].endswith(program.package)
    assert said[0].startswith(f"building {program.label} with Go 1.99.0; about {program.duration}")


def test_other_pins_packages_and_flags_are_other_programs(cache: Path) -> None:
    program = weaviate_program()
    moved = cache / "moved"
    moved.mkdir()
    for name in program.sources:
        (moved / name).write_bytes((program.source / name).read_bytes())
    assert binary_path(replace(program, source=moved)) == binary_path(program)
    with (moved / "go.sum").open("a") as pins:
        pins.write("\n")
    others = [replace(program, source=moved), replace(program, package="x/y"), replace(program, link_flags="-s")]
    assert len({binary_path(one) for one in (program, *others)}) == 4


@pytest.mark.parametrize("program", PROGRAMS, ids=by_name)
def test_without_go_one_sentence_says_what_to_install(
    cache: Path, monkeypatch: pytest.MonkeyPatch, program: GoProgram
) -> None:
    monkeypatch.setenv("PATH", str(cache / "tools"))
    with pytest.raises(GoBuildError) as told:
        ensure_built(program, lambda _: None)
    assert "Install Go 1." in str(told.value)
    assert program.label in str(told.value) or program.label.removeprefix("the ") in str(told.value)
    assert "\n" not in str(told.value)
