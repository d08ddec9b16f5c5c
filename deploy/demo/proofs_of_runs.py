"""Promises about runs: nothing is done twice, a change is one change, and a crash loses and doubles nothing."""

from __future__ import annotations

import time
from collections import Counter

from deploy.demo import runs
from deploy.demo.chroma_api import Collection
from deploy.demo.commands import Body, DemoError, JobLines
from deploy.demo.quickstart import JOBS
from deploy.demo.repository import append
from deploy.demo.world import World

CRASHED = "code-in-chroma"
"""The VectorIndex and IngestionJob of the run in whose middle the operator is killed."""
NEWS = """\
## The lighthouse

The lighthouse keeper counts the herons at dusk. She writes their number into a blue book, with the wind and the tide.
In autumn the herons leave for the south; then the keeper counts the geese, and in winter the stars over the harbour.
When the fishermen return at dawn they ask her how many herons there were, and bring her a mackerel for breakfast.
"""
"""What a commit adds to a document: nothing else in a repository of software is about herons."""
_KILL_AT = 0.2
"""Share of the vectors that the store holds when the operator is killed."""
_PAUSE = 0.02


def run_again(world: World) -> None:
    """A second run over an unchanged source embeds and writes nothing."""
    for result in runs.again(world, JOBS):
        names = ("documentsListed", "documentsUnchanged", "vectorsEmbedded", "vectorsWritten", "vectorsDeleted")
        idle = not any(result[name] for name in ("vectorsEmbedded", "vectorsWritten", "vectorsDeleted"))
        world.screen.check(
            f"{result.job}: nothing is done twice",
            result.figures(*names),
            holds=idle and result["documentsUnchanged"] + result.skipped == result["documentsListed"] > 0,
        )


def change_one_file(world: World) -> None:
    """A commit that changes one file replaces one document."""
    collection = world.collection("docs")
    paths = sorted({str(item["path"]) for item in world.store.metadata(collection)})
    path = "README.md" if "README.md" in paths else paths[0]
    before = world.store.count(collection)
    commit = append(world.repository, path, NEWS)
    world.screen.say(f"commit {commit[:10]} changes {path}, one of {len(paths)} documents")
    (result,) = runs.again(world, ["docs"])
    after = world.store.count(collection)
    world.screen.check(
        "one change is one change",
        result.figures("documentsReplaced", "documentsNew", "documentsUnchanged", "vectorsWritten", "vectorsDeleted"),
        holds=result["documentsReplaced"] == 1
        and result["documentsNew"] == result["documentsDeleted"] == 0
        and result["documentsUnchanged"] == len(paths) - 1,
    )
    world.screen.check(
        "the new version is there, the old one gone",
        f"{before} vectors before, {after} after",
        holds=after == before + result["vectorsWritten"] - result["vectorsDeleted"] and result.revision == commit,
    )
    answer = world.search.show("docs", "Who counts the herons at dusk?", 1)
    world.screen.check(
        "a search finds what was changed",
        f"{path} of commit {commit[:10]} answers",
        holds=f" {path}:" in answer and f"commit {commit[:10]}" in answer,
    )


def kill_in_the_middle(world: World) -> None:
    """The operator is killed while a run writes; started again it ends as an undisturbed run does."""
    undisturbed = runs.Done.of(world.kubectl.get("vij", "code"))
    expected = int(world.kubectl.get("vix", "code")["status"]["vectors"])
    world.screen.say(
        f"the code of commit {undisturbed.revision[:10]} once more, now into Chroma: {expected} vectors to come"
    )
    world.kubectl.apply(_index(world), _job(world, undisturbed.revision))
    found = _wait_for_some(world, expected)
    world.operator.kill()
    world.screen.command(f"kill -9 <operator>   # with {found} of {expected} vectors in the store")
    left = world.store.count(world.collection(CRASHED))
    world.operator.start()
    world.screen.progress("the operator leads again")
    with JobLines(world.cluster, world.screen, world.directory / "jobs.log", CRASHED):
        (result,) = runs.done(world, [CRASHED])
    records = [(item["vw_doc"], item["vw_n"]) for item in world.store.metadata(world.collection(CRASHED))]
    doubled = sum(count - 1 for count in Counter(records).values())
    shown = runs.index(world, CRASHED, vectors=expected).get("vectors")
    world.screen.check(
        "it was in the middle of it",
        f"{left} of {expected} vectors were there when it died; after its restart "
        f"{result.figures('documentsUnchanged', 'documentsNew', 'vectorsWritten')}",
        holds=0 < left < expected,
    )
    world.screen.check(
        "the end is that of an undisturbed run",
        f"{len(records)} records, {len(set(records))} different, {doubled} doubled; status says {shown} vectors",
        holds=len(records) == len(set(records)) == expected == shown,
    )


def _wait_for_some(world: World, expected: int) -> int:
    """Return the number of vectors, once it is well under way."""
    deadline = time.monotonic() + runs.RUN_SECONDS
    collection: Collection | None = None
    while time.monotonic() < deadline:
        collection = collection or world.store.collection(CRASHED)
        count = world.store.count(collection) if collection else 0
        if count >= _KILL_AT * expected:
            return count
        time.sleep(_PAUSE)
    raise DemoError(f"the run of IngestionJob {CRASHED} wrote nothing for {runs.RUN_SECONDS:.0f} s")


def _index(world: World) -> Body:
    """The quick start's index of documents under another name: it is in Chroma."""
    spec = world.kubectl.get("vix", "docs")["spec"]
    return _object("VectorIndex", {**spec, "indexName": CRASHED})


def _job(world: World, commit: str) -> Body:
    """The quick start's job over the code, pinned to a commit, in small batches: there is a middle to be killed in."""
    spec = world.kubectl.get("vij", "code")["spec"]
    source = {"git": {**spec["source"]["git"], "ref": commit}}
    batch = {"maxRecords": 50, "workers": 1}
    return _object("IngestionJob", {**spec, "indexRef": {"name": CRASHED}, "source": source, "batch": batch})


def _object(kind: str, spec: Body) -> Body:
    return {"apiVersion": "vectorwright.dev/v1alpha1", "kind": kind, "metadata": {"name": CRASHED}, "spec": spec}
