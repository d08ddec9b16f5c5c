"""The git source: pinning and listing.

- branches, tags and commits are pinned; a run sees one commit, whatever is pushed meanwhile
- regular files with odd names, sorted; symbolic links and submodules left out
- the last commit of every file is git's own answer, on histories with merges
"""

from __future__ import annotations

import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deploy.servers.git import GitRepository, GitServer
from tests.support.git_source import contents_of, entries_of, opened, pin_error
from tests.support.sources import fetched, listed

from vectorwright.errors import Terminal
from vectorwright.ingest.contracts import Entry


@pytest.fixture
def repository(git_server: GitServer) -> GitRepository:
    made = git_server.repository()
    made.commit({"README.md": "# One", "src/a.py": "a = 1\n", "docs/guide.md": "guide"}, message="first")
    return made


class TestPinning:
    async def test_the_default_branch(self, repository: GitRepository, tmp_path: Path) -> None:
        head = repository.commit({"b": "b"})
        repository.commit({"c": "c"}, branch="other")
        async with opened(tmp_path, repository.url) as source:
            assert await source.pin() == head

    async def test_branches_tags_and_commits(self, repository: GitRepository, tmp_path: Path) -> None:
        first = repository.git("rev-parse", "main")
        repository.tag("v1")
        repository.git("-c", "user.name=n", "-c", "user.email=e", "tag", "-a", "-m", "x", "v1-annotated", "main")
        second = repository.commit({"b": "b"}, branch="feature/x")
        third = repository.commit({"c": "c"})
        hidden = repository.commit({"d": "d"}, branch="gone")
        repository.git("branch", "-D", "gone")
        for ref, expected in [
            ("main", third),
            ("feature/x", second),
            ("refs/heads/feature/x", second),
            ("v1", first),
            ("v1-annotated", first),
            (first, first),
            (second[:10], second),
            (hidden, hidden),
        ]:
            async with opened(tmp_path, repository.url, ref=ref) as source:
                assert await source.pin() == expected, ref

    async def test_a_branch_wins_over_a_tag(self, repository: GitRepository, tmp_path: Path) -> None:
        repository.tag("both")
        branch = repository.commit({"x": "x"}, branch="both")
        async with opened(tmp_path, repository.url, ref="both") as source:
            assert await source.pin() == branch

    @pytest.mark.parametrize("ref", ["nothing", "a" * 40, "deadbee", "HEAD2", "main/x"])
    async def test_what_is_not_there(self, ref: str, repository: GitRepository, tmp_path: Path) -> None:
        error = await pin_error(tmp_path, repository.url, ref=ref)
        assert (type(error), error.reason) == (Terminal, "RefNotFound")
        assert ref in error.message
        assert "spec.source.git.ref" in error.message

    async def test_a_tag_of_something_that_is_no_commit(self, repository: GitRepository, tmp_path: Path) -> None:
        repository.git("tag", "blob", "main:README.md")
        error = await pin_error(tmp_path, repository.url, ref="blob")
        assert (type(error), error.reason) == (Terminal, "RefNotFound")

    async def test_a_repository_without_commits(self, git_server: GitServer, tmp_path: Path) -> None:
        error = await pin_error(tmp_path, git_server.repository().url)
        assert (type(error), error.reason) == (Terminal, "RefNotFound")
        assert "no commits" in error.message

    async def test_what_is_pushed_during_a_run_is_not_seen(self, repository: GitRepository, tmp_path: Path) -> None:
        async with opened(tmp_path, repository.url) as source:
            await source.pin()
            repository.commit({"README.md": "# Two", "new": "x"})
            entries = await listed(source)
            found = await fetched(source, entries)
        assert [entry.key for entry in entries] == ["README.md", "docs/guide.md", "src/a.py"]
        assert found[0].data == b"# One"

    async def test_a_repository_of_sha256(self, git_server: GitServer, tmp_path: Path) -> None:
        made = git_server.repository("sha256-repository")
        shutil.rmtree(made.path)
        made.path.mkdir()
        made.git("init", "--quiet", "--bare", "--initial-branch=main", "--object-format=sha256", ".")
        made.git("config", "uploadpack.allowFilter", "true")
        made.git("config", "uploadpack.allowAnySHA1InWant", "true")
        made.commit({"dir/a": "A"})
        made.commit({"b": "B"})
        assert await contents_of(tmp_path, made.url) == {"dir/a": b"A", "b": b"B"}
        assert len((await entries_of(tmp_path, made.url))[0].token or "") == 64


class TestListing:
    async def test_metadata(self, repository: GitRepository, tmp_path: Path) -> None:
        first = repository.git("rev-parse", "main")
        second = repository.commit({"src/a.py": "a = 2\n"}, date=datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC))
        readme, _, code = await entries_of(tmp_path, repository.url)
        blob = repository.git("rev-parse", "main:src/a.py")
        assert readme.metadata["commit"] == first
        assert code == Entry(
            "src/a.py",
            token=blob,
            metadata={
                "path": "src/a.py",
                "checksum": f"git:{blob}",
                "class": "code",
                "revision": second,
                "repository": repository.url,
                "language": "python",
                "commit": second,
                "author_date": "2024-05-06T07:08:09Z",
            },
        )

    async def test_globs(self, repository: GitRepository, tmp_path: Path) -> None:
        repository.commit({"docs/deep/b.md": "b", "docs/c.png": "c", "vendor/docs/d.md": "d"})
        found = await entries_of(tmp_path, repository.url, include=["docs/**/*.md"], exclude=["guide.md"])
        assert [entry.key for entry in found] == ["docs/deep/b.md"]
        assert await entries_of(tmp_path, repository.url, include=["nothing/**"]) == []

    async def test_odd_names(self, repository: GitRepository, tmp_path: Path) -> None:
        names = [
            "ünï/文.md",
            "with space",
            "-dash",
            'quo"te',
            "back\\slash",
            "tab\there",
            "new\nline/x\ny",
            "*glob",
            "~a",
        ]
        repository.commit({f'"{_quoted(name)}"': name for name in names})
        found = await contents_of(tmp_path, repository.url)
        assert {name: found.get(name) for name in names} == {name: name.encode() for name in names}
        keys = [entry.key for entry in await entries_of(tmp_path, repository.url)]
        assert keys == sorted(keys)

    async def test_names_that_are_not_utf8_are_escaped_and_stay_distinct(
        self, repository: GitRepository, tmp_path: Path
    ) -> None:
        repository.commit({'"caf\\351.md"': "latin", '"caf\\\\xe9.md"': "escaped", '"\\377"': "ff"})
        found = await contents_of(tmp_path, repository.url, exclude=["docs", "src", "README.md"])
        assert sorted(found.values()) == [b"escaped", b"ff", b"latin"]
        assert found["caf\\xe9.md"] == b"escaped"
        assert found["\\xff"] == b"ff"
        assert all(key.encode() for key in found)

    async def test_links_and_submodules_are_left_out(self, repository: GitRepository, tmp_path: Path) -> None:
        head = repository.git("rev-parse", "main")
        stream = (
            "commit refs/heads/main\ncommitter A <a@b> 1700000000 +0000\ndata 1\nx\nfrom refs/heads/main^0\n"
            "M 120000 inline link\ndata 11\n/etc/passwd\n"
            f"M 160000 {head} module\n"
            "M 100755 inline run.sh\ndata 2\nls\n"
        )
        repository.git("fast-import", "--quiet", "--date-format=raw", input=stream.encode())
        keys = [entry.key for entry in await entries_of(tmp_path, repository.url)]
        assert keys == ["README.md", "docs/guide.md", "run.sh", "src/a.py"]

    async def test_dates_that_no_clock_shows_are_left_out(self, repository: GitRepository, tmp_path: Path) -> None:
        stream = (
            "commit refs/heads/main\nauthor A <a@b> 999999999999999 +0000\ncommitter A <a@b> 1 +0000\ndata 1\nx\n"
            "from refs/heads/main^0\nM 100644 inline odd\ndata 1\nx\n"
        )
        repository.git("fast-import", "--quiet", "--date-format=raw-permissive", input=stream.encode())
        odd = next(entry for entry in await entries_of(tmp_path, repository.url) if entry.key == "odd")
        assert "author_date" not in odd.metadata
        assert odd.metadata["commit"] == repository.git("rev-parse", "main")


def _quoted(name: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in name.encode())


def _random_history(seed: int) -> bytes:
    """A history with branches and merges: clean ones, ones that take either side, ones that change something else."""
    rng = random.Random(seed)
    paths = [f"{'abc'[n % 3]}/{'xy'[n % 2]}/f{n}" if n % 4 else f"f{n}" for n in range(25)]
    paths += ['"new\\nline/\\n"', '"\\377/\\376"']
    trees: list[dict[str, str]] = []
    lines: list[str] = []

    def commit(parents: list[int], changes: dict[str, str | None]) -> int:
        # Clocks run backwards here and there.
        time = 1_600_000_000 + len(trees) * 60 + rng.randint(-600, 600)
        tree = dict(trees[parents[0]]) if parents else {}
        lines.append(f"commit refs/heads/main\nmark :{len(trees) + 1}\n")
        lines.append(f"author A <a@b> {time} +0000\ncommitter A <a@b> {time} +0000\ndata 1\nx\n")
        lines.extend(f"{'merge' if n else 'from'} :{parent + 1}\n" for n, parent in enumerate(parents))
        for path, content in changes.items():
            if content is None:
                lines.append(f"D {path}\n")
                tree.pop(path, None)
            else:
                lines.append(f"M 100644 inline {path}\ndata {len(content)}\n{content}\n")
                tree[path] = content
        trees.append(tree)
        return len(trees) - 1

    def some_changes(tip: int) -> dict[str, str | None]:
        chosen = rng.sample(paths, rng.randint(0, 4))
        gone = rng.random() < 0.1
        return {p: None if gone and p in trees[tip] else str(rng.randint(0, 3)) for p in chosen}

    tips = [commit([], dict.fromkeys(paths[:15], "0"))]
    for _ in range(120):
        if len(tips) < 4 and rng.random() < 0.3:
            base = rng.choice(tips)
            tips.append(commit([base], some_changes(base)))
        elif len(tips) > 1 and rng.random() < 0.3:
            count = 3 if len(tips) > 2 and rng.random() < 0.2 else 2
            merged = rng.sample(tips, count)
            changes: dict[str, str | None] = {}
            for side in merged[1:]:
                for path in {*trees[side], *trees[merged[0]]}:
                    if trees[side].get(path) != trees[merged[0]].get(path) and rng.random() < 0.5:
                        changes[path] = trees[side].get(path)
            if rng.random() < 0.3:
                changes |= some_changes(merged[0])
            tips = [tip for tip in tips if tip not in merged] + [commit(merged, changes)]
        else:
            at = rng.randrange(len(tips))
            tips[at] = commit([tips[at]], some_changes(tips[at]))
    while len(tips) > 1:
        tips = [commit(tips[:2], {}), *tips[2:]]
    return "".join(lines).encode()


@pytest.mark.parametrize("seed", range(6))
async def test_the_last_commit_of_every_file_is_gits_own_answer(
    seed: int, git_server: GitServer, tmp_path: Path
) -> None:
    made = git_server.repository()
    made.git("fast-import", "--quiet", "--date-format=raw", input=_random_history(seed))
    found = {entry.key: entry.metadata.get("commit") for entry in await entries_of(tmp_path, made.url)}
    names = made.git("ls-tree", "-r", "-z", "--name-only", "main").split("\0")
    assert len(found) == len(names) - 1
    for name in names[:-1]:
        if "\ufffd" in name:
            continue
        assert found[name] == made.git("log", "-1", "--format=%H", "main", "--", name), name


async def test_a_rename_is_the_last_commit_of_the_new_name(repository: GitRepository, tmp_path: Path) -> None:
    moved = repository.commit({"README.md": None, "MOVED.md": "# One"})
    found = {entry.key: entry.metadata["commit"] for entry in await entries_of(tmp_path, repository.url)}
    assert found["MOVED.md"] == moved
    assert found["src/a.py"] != moved
