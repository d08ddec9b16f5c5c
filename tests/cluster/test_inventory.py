"""What stores hold before, or after, a cluster knows of it: ``vectorwright import``, ``adopt`` and ``orphans``.

- import prints manifests; to apply them changes nothing in the store; taking one over is one edited line
- what cannot be described, or is named already, is said in a comment
- adopt finds by the marks what a rebuilt cluster left, tells before it does, and touches nobody else's
- the marks of an installation that is gone are taken over only when it is named
- orphans lists what nothing owns, and nothing else
"""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
import yaml
from tests.support.chroma import ChromaServer
from tests.support.vectorwright import Resources

from vectorwright.stores.base import FieldDefinition, IndexDefinition, IndexDescription, OwnershipMark, Store
from vectorwright.stores.registry import Connection, open_store

pytestmark = pytest.mark.cluster
OTHER = "another-installation"
T = TypeVar("T")


class World:
    """A Chroma database of the test's own, a VectorStore for it, and the commands."""

    def __init__(self, resources: Resources, server: ChromaServer) -> None:
        self.resources = resources
        self.database = f"db_{secrets.token_hex(6)}"
        made = httpx.post(
            f"{server.url}/api/v2/tenants/default_tenant/databases", json={"name": self.database}, trust_env=False
        )
        assert made.status_code == 200, made.text
        settings = {"url": server.url, "database": self.database}
        self.connection = Connection("chroma", settings)
        resources.create("VectorStore", "chroma", {"chroma": settings, "probeInterval": "1s"})
        resources.wait_ready("VectorStore", "chroma")
        self.installation = resources.cluster.kubectl_run(
            "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"
        )

    def make(self, *definitions: IndexDefinition) -> None:
        """Make indexes as somebody else would."""

        async def make(store: Store) -> None:
            for definition in definitions:
                await store.create_index(definition)

        asyncio.run(self._with(make))

    def indexes(self) -> dict[str, IndexDescription]:
        """What the store holds."""

        async def listed(store: Store) -> list[IndexDescription]:
            return await store.list_indexes()

        return {one.name: one for one in asyncio.run(self._with(listed))}

    async def _with(self, act: Callable[[Store], Awaitable[T]]) -> T:
        async with open_store(self.connection) as store:
            return await act(store)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``vectorwright …`` in the test's namespace."""
        flags = ["--kubeconfig", str(self.resources.cluster.kubeconfig), "-n", self.resources.namespace]
        program = Path(sys.executable).with_name("vectorwright")
        return subprocess.run([program, *arguments, *flags], capture_output=True, text=True, timeout=60, check=False)

    def mark(self, name: str, installation: str | None = None, namespace: str | None = None) -> OwnershipMark:
        """The mark of a VectorIndex, of this installation and namespace where nothing else is said."""
        return OwnershipMark(installation or self.installation, namespace or self.resources.namespace, name)

    def lines(self, answer: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
        """The rows of a table by their second column, the index."""
        rows = [line.split() for line in answer.stdout.splitlines()[1:]]
        return {row[1]: row for row in rows}


@pytest.fixture
def world(resources: Resources, chroma_server: ChromaServer) -> World:
    return World(resources, chroma_server)


ARTICLES = IndexDefinition(
    "Articles_2024",
    8,
    "euclidean",
    fields=(FieldDefinition("word", "keyword"), FieldDefinition("year", "integer")),
    settings={"hnsw.ef_search": 77},
)


def test_what_is_imported_is_observed_and_changes_nothing(world: World) -> None:
    world.make(ARTICLES, IndexDefinition("second", 4, "cosine"))
    before = world.indexes()
    printed = world.run("import", "chroma")
    assert printed.returncode == 0, printed.stderr
    manifests = list(yaml.safe_load_all(printed.stdout))
    assert [one["metadata"]["name"] for one in manifests] == ["articles-2024", "second"]
    assert manifests[0]["spec"] == {
        "storeRef": {"name": "chroma"},
        "indexName": "Articles_2024",
        "dimension": 8,
        "metric": "euclidean",
        "metadataFields": [{"name": "word", "type": "keyword"}, {"name": "year", "type": "integer"}],
        "managementPolicy": "Observe",
        "adoptionPolicy": "IfMatching",
    }
    world.resources.cluster.kubectl_run("apply", "-f", "-", input=printed.stdout)
    for name in ("articles-2024", "second"):
        body = world.resources.wait_ready("VectorIndex", name)
        assert body["status"]["driftedFields"] == 0
    assert world.indexes() == before

    # One edited line takes it over: the mark is written, and nothing else.
    edited = printed.stdout.replace("managementPolicy: Observe", "managementPolicy: Manage", 1)
    world.resources.cluster.kubectl_run("apply", "-f", "-", input=edited)
    world.resources.wait("VectorIndex", "articles-2024", lambda body: body["status"].get("adopted"))
    after = world.indexes()
    assert after["Articles_2024"] == replace(before["Articles_2024"], mark=world.mark("articles-2024"))
    assert after["second"] == before["second"]

    again = world.run("import", "chroma")
    assert list(yaml.safe_load_all(again.stdout)) in ([], [None])
    assert "# index 'Articles_2024': VectorIndex articles-2024 names it already" in again.stdout


def test_an_import_with_tuning_says_what_the_store_has(world: World) -> None:
    world.make(ARTICLES)
    printed = world.run("import", "chroma", "Articles_2024", "--with-tuning")
    (manifest,) = yaml.safe_load_all(printed.stdout)
    assert manifest["spec"]["tuning"]["chroma"]["hnsw"]["efSearch"] == 77
    world.resources.cluster.kubectl_run("apply", "-f", "-", input=printed.stdout)
    body = world.resources.wait_ready("VectorIndex", "articles-2024")
    assert body["status"]["driftedFields"] == 0


def test_an_index_or_store_that_is_not_there_is_named(world: World) -> None:
    absent = world.run("import", "chroma", "nope")
    assert (absent.returncode, absent.stderr) == (1, "vectorwright import: the store holds no index 'nope'\n")
    nowhere = world.run("import", "elsewhere")
    assert nowhere.returncode == 1
    assert "elsewhere" in nowhere.stderr


def test_a_rebuilt_cluster_finds_its_indexes_again(world: World) -> None:
    world.make(
        replace(ARTICLES, mark=world.mark("articles")),
        IndexDefinition("theirs", 4, "cosine", mark=world.mark("theirs", OTHER)),
        IndexDefinition("elsewhere", 4, "cosine", mark=world.mark("elsewhere", namespace="another-namespace")),
        IndexDefinition("nobodys", 4, "cosine"),
    )
    before = world.indexes()
    told = world.run("adopt", "--all", "--dry-run")
    assert told.returncode == 0, told.stderr
    namespace = world.resources.namespace
    assert told.stdout.splitlines()[1].endswith(f"would make VectorIndex {namespace}/articles")
    assert set(world.lines(told)) == {"Articles_2024"}
    assert not world.resources.exists("VectorIndex", "articles")
    assert world.indexes() == before

    done = world.run("adopt", "--all")
    assert done.returncode == 0, done.stderr
    body = world.resources.wait_ready("VectorIndex", "articles")
    assert body["spec"]["indexName"] == "Articles_2024"
    assert body["status"]["incarnation"] == before["Articles_2024"].incarnation
    assert world.indexes() == before
    assert "nothing to adopt" in world.run("adopt", "--all").stdout


def test_the_marks_of_a_lost_installation_are_taken_over_when_it_is_named(world: World) -> None:
    world.make(IndexDefinition("docs", 4, "cosine", mark=world.mark("docs", OTHER), model_fingerprint="fp-1"))
    told = world.run("adopt", "--all", "--dry-run", "--from-installation", OTHER)
    assert "would rewrite its mark for installation" in told.stdout
    assert world.indexes()["docs"].mark == world.mark("docs", OTHER)
    done = world.run("adopt", "docs", "--from-installation", OTHER)
    assert done.returncode == 0, done.stderr
    assert "no EmbeddingModel here has the fingerprint fp-1" in done.stderr
    world.resources.wait_ready("VectorIndex", "docs")
    found = world.indexes()["docs"]
    assert (found.mark, found.model_fingerprint) == (world.mark("docs"), "fp-1")


def test_manifests_for_git_are_printed_and_nothing_is_made(world: World) -> None:
    world.make(replace(ARTICLES, mark=world.mark("articles")))
    printed = world.run("adopt", "--all", "-o", "yaml")
    (manifest,) = yaml.safe_load_all(printed.stdout)
    assert manifest["metadata"] == {"name": "articles", "namespace": world.resources.namespace}
    assert "managementPolicy" not in manifest["spec"]
    assert not world.resources.exists("VectorIndex", "articles")


def test_a_name_that_another_index_has_is_a_conflict(world: World) -> None:
    spec = {"storeRef": {"name": "chroma"}, "indexName": "made-here", "dimension": 4}
    world.resources.create("VectorIndex", "docs", spec)
    world.resources.wait_ready("VectorIndex", "docs")
    world.make(IndexDefinition("left-behind", 4, "cosine", mark=world.mark("docs")))
    done = world.run("adopt", "--all")
    assert done.returncode == 1
    assert "VectorIndex docs exists, and names index made-here of VectorStore chroma" in done.stdout
    assert world.indexes()["left-behind"].mark == world.mark("docs")


def test_adopt_wants_names_or_all(world: World) -> None:
    assert world.run("adopt").returncode == 2
    assert world.run("adopt", "--all", "docs").returncode == 2
    absent = world.run("adopt", "nope")
    assert (absent.returncode, "no lost index 'nope'" in absent.stderr) == (1, True)


def test_orphans_are_what_nothing_owns(world: World) -> None:
    world.resources.create("VectorIndex", "docs", {"storeRef": {"name": "chroma"}, "dimension": 4})
    world.resources.wait_ready("VectorIndex", "docs")
    world.make(
        IndexDefinition("lost", 4, "cosine", mark=world.mark("gone")),
        IndexDefinition("nobodys", 4, "cosine"),
        IndexDefinition("theirs", 4, "cosine", mark=world.mark("theirs", OTHER)),
    )
    before = world.indexes()
    listed = world.run("orphans")
    assert listed.returncode == 0, listed.stderr
    assert set(world.lines(listed)) == {"lost", "nobodys"}
    namespace = world.resources.namespace
    assert f"VectorIndex {namespace}/gone is gone" in listed.stdout
    told = json.loads(world.run("orphans", "--foreign", "-o", "json").stdout)
    assert [(one["index"], one["vectors"], one["why"]) for one in told] == [
        ("lost", 0, f"VectorIndex {namespace}/gone is gone"),
        ("nobodys", 0, "nobody's: it carries no ownership mark"),
        ("theirs", 0, f"of installation {OTHER}"),
    ]
    assert world.indexes() == before


def test_a_store_that_cannot_be_read_makes_the_list_incomplete(world: World) -> None:
    world.resources.create("VectorStore", "away", {"chroma": {"url": "http://127.0.0.1:9"}})
    listed = world.run("orphans")
    assert listed.returncode == 1
    assert "VectorStore away could not be read" in listed.stderr
    assert "no orphans" in listed.stdout
