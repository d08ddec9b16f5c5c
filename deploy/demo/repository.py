"""The history of this very checkout as a bare repository: read from the checkout, served and changed beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from deploy.servers.git import GitRepository, GitServer

AUTHOR = "Vectorwright demo <demo@vectorwright.invalid>"
BRANCH = "main"


class RepositoryError(RuntimeError):
    """The demo's repository cannot be made."""


def check_git() -> str:
    """The version of git. Raises RepositoryError, with what to install, when git or its daemon is not there."""
    if shutil.which("git") is None:
        raise RepositoryError("git was not found: install it (on Debian: apt-get install git)")
    if subprocess.run(["git", "daemon", "-h"], capture_output=True, check=False).returncode not in {0, 129}:
        raise RepositoryError("this git comes without 'git daemon': install it (on Fedora: dnf install git-daemon)")
    return subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout.split()[2]


def mirror(checkout: Path, server: GitServer, scratch: Path) -> GitRepository:
    """A bare repository whose branch main is the checkout's commit, with all of its history that is there.

    What is not committed stays out. A checkout that came as an archive, without a repository, becomes one commit. The
    checkout itself is only read. Raises RepositoryError.
    """
    repository = server.repository("vectorwright")
    settings = scratch / "gitconfig"
    # Somebody else may own the checkout (a volume in a container): reading it is harmless.
    settings.write_text('[safe]\n\tdirectory = "*"\n')
    environment = {"GIT_CONFIG_GLOBAL": str(settings)}
    if _is_repository(checkout, environment):
        # "--update-shallow": the history of a shallow checkout ends where its own does.
        fetched = ["--quiet", "--no-tags", "--update-shallow", str(checkout), f"+HEAD:refs/heads/{BRANCH}"]
        _git(["fetch", *fetched], repository.path, environment)
    else:
        _commit_files(checkout, repository, environment)
    return repository


def _is_repository(checkout: Path, environment: Mapping[str, str]) -> bool:
    """Whether the checkout is the top of a repository with at least one commit."""
    if not (checkout / ".git").exists():
        return False
    done = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", "HEAD"],
        cwd=checkout,
        env=_environment(environment),
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def _commit_files(checkout: Path, repository: GitRepository, environment: Mapping[str, str]) -> None:
    name, _, address = AUTHOR.partition(" <")
    values = {"NAME": name, "EMAIL": address.rstrip(">"), "DATE": datetime.now(UTC).isoformat()}
    identity = {f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in values.items()}
    environment = {**environment, **identity}
    place = ["--git-dir", str(repository.path), "--work-tree", str(checkout)]
    _git([*place, "add", "--all", "."], checkout, environment)
    tree = _git([*place, "write-tree"], checkout, environment)
    commit = _git([*place, "commit-tree", tree, "-m", "The files of this checkout"], checkout, environment)
    repository.git("update-ref", f"refs/heads/{BRANCH}", commit)


def _environment(additions: Mapping[str, str]) -> dict[str, str]:
    """Git with none of the user's settings, and not in a hook of another repository."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return {**kept, "GIT_CONFIG_NOSYSTEM": "1", "HOME": os.devnull, "LC_ALL": "C", **additions}


def _git(arguments: list[str], directory: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env=_environment(environment), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RepositoryError(f"git {arguments[0]} in {directory}: {done.stderr.strip()}")
    return done.stdout.strip()


def append(repository: GitRepository, path: str, text: str) -> str:
    """Commit some more text at the end of a file, and return the commit's id."""
    content = subprocess.run(
        ["git", "show", f"{BRANCH}:{path}"],
        cwd=repository.path,
        env=_environment({"GIT_CONFIG_GLOBAL": os.devnull}),
        capture_output=True,
        check=True,
    ).stdout
    changed = content.rstrip() + f"\n\n{text}\n".encode()
    return repository.commit(
        {path: changed}, message=f"A section more in {path}", author=AUTHOR, date=datetime.now(UTC), branch=BRANCH
    )


def has(repository: GitRepository, commit: str, path: str) -> bool:
    """Whether the repository has this file in this commit."""
    try:
        repository.git("cat-file", "-e", f"{commit}:{path}")
    except RuntimeError:
        return False
    return True
