"""Rules of the repository that no other tool checks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_LONGEST_MODULE = 400
_MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:root|work|home/\w+|Users/\w+|private/tmp)/\w|(?<![\w.$}])/tmp/\w")
_BINARY = {".png", ".jpg", ".gif", ".ico", ".woff2", ".parquet", ".gz"}


def _tracked() -> list[Path]:
    """The files of the repository, with those not committed yet, without those that git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_the_source_root_does_not_shadow_the_standard_library() -> None:
    """``operator`` is a module of it, and operator/ lies on the path of whoever runs Python in the checkout."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert [path for path in _tracked() if path.name == "operator.py"] == []
    code = "import operator, collections; print(operator.__file__)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not Path(answer.stdout.strip()).is_relative_to(ROOT / "operator")


def test_modules_stay_small() -> None:
    lengths = {
        path.relative_to(ROOT): path.read_text().count("\n")
        for path in (ROOT / "operator").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert lengths
    assert {path: count for path, count in lengths.items() if count > _LONGEST_MODULE} == {}


def test_no_file_names_a_place_on_one_machine() -> None:
    found = []
    for path in _tracked():
        if path.suffix in _BINARY or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if match := _MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}…")
    assert found == []


@pytest.mark.parametrize("place", ["cd /Users/ada/src", "cat /tmp/build.log", "/home/ada/src"])
def test_a_place_on_one_machine_is_recognised(place: str) -> None:
    assert _MACHINE_PATH.search(place)


@pytest.mark.parametrize("place", ["$HOME/work/x", "a/tmp/b", "https://host/home/ada/x", "${base}/tmp/y", "/etc/ssl"])
def test_other_places_are_not(place: str) -> None:
    assert not _MACHINE_PATH.search(place)
