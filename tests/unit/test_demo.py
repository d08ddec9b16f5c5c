"""The demo's parts that can go wrong by themselves: the repository that it makes of a checkout, and what it says.

What is checked: the history of a whole, a shallow, a detached and a dirty checkout, and of files without a repository;
the checkout is only read; a commit changes one file; claims that do not hold are counted; records of kept demos.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.demo import keeping
from deploy.demo.console import Screen
from deploy.demo.repository import BRANCH, append, has, mirror
from deploy.devcluster.processes import ManagedProcess
from deploy.servers.git import GitRepository, GitServer, start_git_server


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *arguments]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    base = tmp_path / "served"
    base.mkdir()
    with (started := start_git_server(base)).process:
        yield started


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Three commits on a branch of another name than the demo's, and a file that is not committed."""
    directory = tmp_path / "a checkout"
    directory.mkdir()
    git(directory, "init", "--quiet", "--initial-branch=work")
    for number in range(3):
        (directory / "README.md").write_text(f"# Version {number}\n")
        (directory / f"file-{number}.py").write_text(f"number = {number}\n")
        git(directory, "add", ".")
        git(directory, "commit", "--quiet", "-m", f"Commit {number}")
    (directory / "README.md").write_text("# Not committed\n")
    (directory / "new.md").write_text("# New\n")
    return directory


def state(directory: Path) -> dict[str, str]:
    """Every file below a directory and what is in it."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def content(repository: GitRepository, path: str) -> str:
    return repository.git("show", f"{BRANCH}:{path}")


def test_the_history_of_a_dirty_checkout_is_served_and_the_checkout_only_read(
    checkout: Path, server: GitServer, tmp_path: Path
) -> None:
    before = state(checkout)
    repository = mirror(checkout, server, tmp_path)
    assert state(checkout) == before
    assert repository.git("rev-list", "--count", BRANCH) == "3"
    assert repository.git("rev-parse", BRANCH) == git(checkout, "rev-parse", "HEAD")
    assert content(repository, "README.md") == "# Version 2"
    cloned = tmp_path / "cloned"
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", repository.url, str(cloned))
    assert sorted(path.name for path in cloned.glob("[!.]*")) == ["README.md", "file-0.py", "file-1.py", "file-2.py"]


def test_a_shallow_checkout_is_served_with_the_history_that_it_has(
    checkout: Path, server: GitServer, tmp_path: Path
) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=2", f"file://{checkout}", str(shallow))
    repository = mirror(shallow, server, tmp_path)
    assert repository.git("rev-list", "--count", BRANCH) == "2"
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", repository.url, str(tmp_path / "cloned"))
    assert (tmp_path / "cloned" / "README.md").read_text() == "# Version 2\n"
    assert repository.git("rev-parse", BRANCH) != append(repository, "README.md", "More.")


def test_a_detached_checkout_is_served_as_it_is(checkout: Path, server: GitServer, tmp_path: Path) -> None:
    git(checkout, "checkout", "--quiet", "--force", "--detach", "HEAD~1")
    repository = mirror(checkout, server, tmp_path)
    assert content(repository, "README.md") == "# Version 1"


def test_a_worktree_is_served_as_it_is(checkout: Path, server: GitServer, tmp_path: Path) -> None:
    git(checkout, "worktree", "add", "--quiet", "--detach", str(tmp_path / "tree"), "HEAD~2")
    repository = mirror(tmp_path / "tree", server, tmp_path)
    assert content(repository, "README.md") == "# Version 0"


def test_files_without_a_repository_become_one_commit(server: GitServer, tmp_path: Path) -> None:
    files = tmp_path / "archive"
    files.mkdir()
    (files / "README.md").write_text("# From an archive\n")
    (files / ".gitignore").write_text("*.log\n")
    (files / "noise.log").write_text("noise\n")
    before = state(files)
    repository = mirror(files, server, tmp_path)
    assert state(files) == before
    assert repository.git("ls-tree", "--name-only", BRANCH).splitlines() == [".gitignore", "README.md"]
    assert repository.git("rev-list", "--count", BRANCH) == "1"


def test_a_commit_changes_one_file(checkout: Path, server: GitServer, tmp_path: Path) -> None:
    repository = mirror(checkout, server, tmp_path)
    commit = append(repository, "README.md", "One more line.")
    assert repository.git("rev-parse", BRANCH) == commit
    assert repository.git("diff", "--name-only", f"{BRANCH}~1", BRANCH) == "README.md"
    assert content(repository, "README.md") == "# Version 2\n\nOne more line."
    assert has(repository, commit, "file-0.py")
    assert not has(repository, commit, "file-9.py")
    assert not has(repository, "0" * 40, "README.md")


def test_what_does_not_hold_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    with screen.step("first"):
        screen.check("water is wet", "2 of 2 drops", holds=True)
        screen.check("pigs fly", "0 of 7 pigs", holds=False)
    screen.table()
    out = capsys.readouterr().out
    assert "    ✓ water is wet: 2 of 2 drops\n    ✗ pigs fly: 0 of 7 pigs\n" in out
    assert (screen.checked, screen.broken) == (2, ["pigs fly: 0 of 7 pigs"])
    assert [line.split()[0] for line in out.splitlines()[-2:]] == ["first", "in"]


def test_a_demo_that_was_left_running_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keeping, "CHECKOUT", tmp_path)
    directory = tmp_path / "vw-demo-abc"
    directory.mkdir()
    sleeper = ManagedProcess.start([sys.executable, "-c", "import time; time.sleep(600)"], log=directory / "log")
    pairs = [[[identity.pid, identity.started] for identity in sleeper.identities]]
    records = tmp_path / ".run" / "demos"
    records.mkdir(parents=True)
    record = {"directory": str(directory), "kubeconfig": "none", "namespace": None, "processes": pairs}
    (records / "abc.json").write_text(json.dumps(record))
    assert keeping.stop(Screen()) == 1
    assert sleeper.wait(10) is not None
    assert not any(identity.alive() for identity in sleeper.identities)
    assert not directory.exists()
    assert f"demo abc is gone: 1 processes, {directory}" in capsys.readouterr().out
    assert keeping.stop(Screen()) == 0
