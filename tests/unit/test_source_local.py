"""Sources that need no network, and the choice of a source.

- inline: sorted, hashed, 64 KiB at most, ids distinct
- ConfigMap: what the kubelet mounts is read as one version; its own files and links that lead elsewhere are no keys
- globs and classification of paths
- exactly one source; credentials are read from files and never shown
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from tests.support.sources import fetched, listed, refusal, run_spec

from vectorwright.errors import Terminal
from vectorwright.ingest.sources.classify import FileClass, class_of, language_of
from vectorwright.ingest.sources.globs import Globs
from vectorwright.ingest.sources.listing import listing_hash
from vectorwright.ingest.sources.mounted import Credentials
from vectorwright.ingest.sources.registry import open_source


class TestInline:
    DOCUMENTS = (
        {"id": "b.md", "text": "# B é", "metadata": {"team": "x"}},
        {"id": "a.txt", "text": "A"},
    )

    async def test_documents_are_listed_sorted_and_hashed(self, tmp_path: Path) -> None:
        source = open_source(run_spec({"inline": {"documents": list(self.DOCUMENTS)}}), tmp_path)
        revision = await source.pin()
        first, second = await listed(source)
        assert revision.startswith("sha256:")
        assert (first.key, first.token, first.size) == ("a.txt", hashlib.sha256(b"A").hexdigest(), 1)
        assert (second.key, second.metadata) == ("b.md", {"team": "x"})
        assert [item.data for item in await fetched(source, [second, first])] == ["# B é".encode(), b"A"]
        await source.close()
        await source.close()

    async def test_a_change_of_text_or_metadata_changes_token_and_revision(self, tmp_path: Path) -> None:
        seen: set[tuple[str, str | None]] = set()
        for document in (
            {"id": "a", "text": "x"},
            {"id": "a", "text": "y"},
            {"id": "a", "text": "x", "metadata": {"k": "1"}},
            {"id": "a", "text": "x", "metadata": {"k": "2"}},
        ):
            source = open_source(run_spec({"inline": {"documents": [document]}}), tmp_path)
            seen.add((await source.pin(), (await listed(source))[0].token))
        assert len(seen) == 4
        assert len({token for _, token in seen}) == 4

    async def test_two_documents_with_one_id_are_refused(self, tmp_path: Path) -> None:
        documents = [{"id": "a", "text": "x"}, {"id": "b", "text": "x"}, {"id": "a", "text": "y"}]
        error = await refusal(open_source(run_spec({"inline": {"documents": documents}}), tmp_path))
        assert error.reason == "DuplicateId"
        assert "'a'" in error.message

    async def test_more_than_64_kib_are_refused(self, tmp_path: Path) -> None:
        documents = [{"id": str(n), "text": "é" * 16_384} for n in range(2)]
        whole = open_source(run_spec({"inline": {"documents": documents}}), tmp_path)
        await whole.pin()
        error = await refusal(
            open_source(run_spec({"inline": {"documents": [*documents, {"id": "x", "text": "y"}]}}), tmp_path)
        )
        assert error.reason == "SourceTooLarge"
        assert "65537 bytes" in error.message


class TestConfigMap:
    @staticmethod
    def mount(directory: Path, version: str, content: dict[str, bytes]) -> Path:
        """As the kubelet does it: dated directory, ``..data``, links to the keys; a change swaps ``..data``."""
        mounted = directory / "configmap"
        (mounted / version).mkdir(parents=True)
        for key, data in content.items():
            (mounted / version / key).write_bytes(data)
            if not (mounted / key).is_symlink():
                (mounted / key).symlink_to(Path("..data") / key)
        swap = mounted / "..data_tmp"
        swap.symlink_to(version)
        swap.rename(mounted / "..data")
        return mounted

    async def test_keys_of_a_kubelets_mount(self, tmp_path: Path) -> None:
        self.mount(tmp_path, "..2024_01_01", {"b.md": b"# B", "a.txt": b"A"})
        source = open_source(run_spec({"configMap": {"name": "docs"}}), tmp_path)
        await source.pin()
        found = await listed(source)
        assert [entry.key for entry in found] == ["a.txt", "b.md"]
        assert found[0].token == hashlib.sha256(b"A").hexdigest()
        assert found[0].metadata["checksum"] == f"sha256:{found[0].token}"
        assert [item.data for item in await fetched(source, found)] == [b"A", b"# B"]

    async def test_a_change_during_the_run_is_not_seen_by_halves(self, tmp_path: Path) -> None:
        self.mount(tmp_path, "..1", {"a": b"old", "b": b"old"})
        source = open_source(run_spec({"configMap": {"name": "docs"}}), tmp_path)
        first = await source.pin()
        self.mount(tmp_path, "..2", {"a": b"new", "b": b"new"})
        assert [item.data for item in await fetched(source, await listed(source))] == [b"old", b"old"]
        again = open_source(run_spec({"configMap": {"name": "docs"}}), tmp_path)
        assert await again.pin() != first
        assert [item.data for item in await fetched(again, await listed(again))] == [b"new", b"new"]

    async def test_plain_files_are_read_and_links_that_lead_elsewhere_are_not(self, tmp_path: Path) -> None:
        mounted = tmp_path / "configmap"
        mounted.mkdir()
        (tmp_path / "secret").write_text("s3cret")
        (mounted / "a.txt").write_text("A")
        (mounted / "stolen").symlink_to(tmp_path / "secret")
        (mounted / "directory").mkdir()
        source = open_source(run_spec({"configMap": {"name": "docs"}}), tmp_path)
        await source.pin()
        assert [entry.key for entry in await listed(source)] == ["a.txt"]

    async def test_chosen_keys(self, tmp_path: Path) -> None:
        self.mount(tmp_path, "..1", {"a": b"A", "b": b"B"})
        source = open_source(run_spec({"configMap": {"name": "docs", "keys": ["b"]}}), tmp_path)
        await source.pin()
        assert [entry.key for entry in await listed(source)] == ["b"]
        error = await refusal(open_source(run_spec({"configMap": {"name": "docs", "keys": ["b", "c"]}}), tmp_path))
        assert error.reason == "ConfigMapKeyMissing"
        assert "has no key c:" in error.message

    async def test_a_configmap_that_is_not_there(self, tmp_path: Path) -> None:
        error = await refusal(open_source(run_spec({"configMap": {"name": "docs"}}), tmp_path))
        assert error.reason == "ConfigMapNotFound"

    async def test_an_empty_configmap_lists_nothing(self, tmp_path: Path) -> None:
        self.mount(tmp_path, "..1", {})
        source = open_source(run_spec({"configMap": {"name": "docs"}}), tmp_path)
        await source.pin()
        assert await listed(source) == []


class TestGlobs:
    @pytest.mark.parametrize(
        ("pattern", "taken", "left"),
        [
            ("docs/**/*.md", ["docs/a.md", "docs/x/a.md", "docs/x/y/a.md"], ["a.md", "docs/a.txt", "x/docs/a.md"]),
            ("**/*.md", ["a.md", "x/a.md", "x/y/a.md"], ["a.mdx"]),
            ("*.md", ["a.md", "x/y/a.md", ".md"], ["a.mdx", "a.md/b"]),
            ("/*.md", ["a.md"], ["x/a.md"]),
            ("docs/*.md", ["docs/a.md"], ["docs/x/a.md", "x/docs/a.md"]),
            ("docs/**", ["docs/a", "docs/x/y"], ["docs", "x/docs/a"]),
            ("docs/*", ["docs/a"], ["docs/x/y"]),
            ("docs", ["docs", "docs/a", "x/docs/y/z"], ["docsx/a"]),
            ("docs/", ["docs/a", "x/docs/a"], ["docs.md"]),
            ("src/vendor/", ["src/vendor/a/b"], ["x/src/vendor/a"]),
            ("/docs", ["docs/a"], ["x/docs/a"]),
            ("**", ["a", "x/y/z"], []),
            ("a/**/b/**/c", ["a/b/c", "a/x/b/y/c", "a/b/b/c/c"], ["a/c", "b/c"]),
            ("file[0-9].?", ["x/file1.c"], ["file1.cc", "filex.c"]),
            ("file[!0-9]", ["filex"], ["file1"]),
            ("**/test_*", ["test_a", "x/test_b.py"], ["x/atest_"]),
            ("README", ["README", "x/README"], ["README.md"]),
            ("é*.md", ["é1.md"], ["e.md"]),
        ],
    )
    def test_patterns(self, pattern: str, taken: list[str], left: list[str]) -> None:
        globs = Globs([pattern], None)
        assert [path for path in taken if not globs.takes(path)] == []
        assert [path for path in left if globs.takes(path)] == []

    def test_exclude_wins_and_no_include_takes_everything(self) -> None:
        globs = Globs(["docs/**"], ["*.png", "drafts"])
        assert globs.takes("docs/a.md")
        assert not globs.takes("docs/a.png")
        assert not globs.takes("docs/drafts/a.md")
        assert Globs(None, ["x"]).takes("a")
        assert not Globs([], None).takes("a")

    @pytest.mark.parametrize("pattern", ["", "/", "//"])
    def test_an_empty_pattern_is_refused(self, pattern: str) -> None:
        with pytest.raises(Terminal):
            Globs([pattern], None)

    @pytest.mark.timeout(10)
    def test_no_pattern_takes_long(self) -> None:
        assert not Globs(["*a*a*a*a*a*a*a*a*a*a*b"], None).takes("a" * 4000)
        assert not Globs(["**/a/" * 40 + "b"], None).takes("a/" * 400 + "c")


class TestClassification:
    @pytest.mark.parametrize(
        ("path", "language", "kind"),
        [
            ("src/main.py", "python", FileClass.CODE),
            ("cmd/main.go", "go", FileClass.CODE),
            ("lib/x.C", "c", FileClass.CODE),
            ("bin/run", None, FileClass.CODE),
            ("pyproject.toml", "toml", FileClass.CONFIG),
            ("config/app.yaml", "yaml", FileClass.CONFIG),
            ("package.json", "json", FileClass.CONFIG),
            ("settings.ini", "ini", FileClass.CONFIG),
            (".env.production", None, FileClass.CONFIG),
            ("README.md", "markdown", FileClass.DOCS),
            ("LICENSE", None, FileClass.DOCS),
            ("CHANGELOG", None, FileClass.DOCS),
            ("docs/guide.rst", "restructuredtext", FileClass.DOCS),
            ("notes.txt", "text", FileClass.DOCS),
            ("Dockerfile", "dockerfile", FileClass.INFRASTRUCTURE),
            ("images/Dockerfile.dev", "dockerfile", FileClass.INFRASTRUCTURE),
            ("app.dockerfile", "dockerfile", FileClass.INFRASTRUCTURE),
            ("infra/main.tf", "terraform", FileClass.INFRASTRUCTURE),
            ("Makefile", "make", FileClass.INFRASTRUCTURE),
            ("deploy/helm/Chart.yaml", "yaml", FileClass.INFRASTRUCTURE),
            ("deploy/kustomize/rbac.yaml", "yaml", FileClass.INFRASTRUCTURE),
            ("k8s/deployment.yml", "yaml", FileClass.INFRASTRUCTURE),
            ("charts/x/templates/_helpers.tpl", None, FileClass.INFRASTRUCTURE),
            ("kustomization.yaml", "yaml", FileClass.INFRASTRUCTURE),
            ("docker-compose.dev.yml", "yaml", FileClass.INFRASTRUCTURE),
            (".github/workflows/ci.yml", "yaml", FileClass.INFRASTRUCTURE),
            (".gitlab-ci.yml", "yaml", FileClass.INFRASTRUCTURE),
            ("k8s/operator.py", "python", FileClass.CODE),
            ("helm/README.md", "markdown", FileClass.DOCS),
            ("CMakeLists.txt", "cmake", FileClass.CODE),
            ("data/rows.csv", "csv", FileClass.CONFIG),
        ],
    )
    def test_rules(self, path: str, language: str | None, kind: FileClass) -> None:
        assert language_of(path) == language
        assert class_of(path) is kind


def test_a_listings_hash_depends_on_content_and_not_on_order() -> None:
    assert listing_hash([("a", "1"), ("b", "2")]) == listing_hash([("b", "2"), ("a", "1")])
    assert listing_hash([("a", "1")]) != listing_hash([("a", "2")])
    assert listing_hash([("ab", "c")]) != listing_hash([("a", "bc")])
    assert listing_hash([("a",), ("b",)]) != listing_hash([("a", "b")])


@pytest.mark.parametrize(
    "source", [{}, {"inline": {"documents": [{"id": "a", "text": "b"}]}, "configMap": {"name": "docs"}}]
)
def test_exactly_one_source_is_needed(source: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Terminal) as refused:
        open_source(run_spec(source), tmp_path)
    assert refused.value.reason == "InvalidSpec"


def test_a_secret_without_credentials_is_named(tmp_path: Path) -> None:
    spec = run_spec({"http": {"urls": ["https://x.example/"], "credentials": {"name": "web"}}})
    with pytest.raises(Terminal) as refused:
        open_source(spec, tmp_path)
    assert refused.value.reason == "SecretKeyMissing"
    assert "Secret web" in refused.value.message


def test_credentials_are_not_shown() -> None:
    held = Credentials(token="s3cret", username="user", password="pass")
    assert "s3cret" not in repr(held)
    assert "pass" not in repr(held).replace("password", "")
