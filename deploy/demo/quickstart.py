"""The quick start: two stores, two indexes, filled from a git repository, and questions with answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

from deploy.demo import overlay, runs
from deploy.demo.commands import JobLines
from deploy.demo.repository import BRANCH, has
from deploy.demo.world import World
from deploy.devcluster.paths import CHECKOUT

JOBS = ("docs", "code")
"""The IngestionJobs of the quick start; each fills the VectorIndex of its name."""
QUESTIONS = Path(__file__).with_name("questions.json")
"""Pairs of index and question. Not in the code, which is what is searched: the best answer would be the question."""
_TOP = 3
_ANSWER = re.compile(r"^\d+\. -?\d\.\d+  (\S+):\d+-\d+  commit ([0-9a-f]{7,})$", re.MULTILINE)
"""Of an answer's first line the path and the commit."""


def fill(world: World) -> None:
    """Apply the quick start and watch it until both indexes are filled."""
    screen, kubectl = world.screen, world.kubectl
    place = world.directory / "quickstart"
    overlay.write(
        place,
        CHECKOUT,
        namespace=world.namespace,
        chroma_url=world.chroma.url,
        git_url=world.repository.url,
        git_ref=BRANCH,
    )
    screen.say(f"{overlay.QUICKSTART} with the addresses of these servers, and stores listed every 2 s:")
    kubectl.show("apply", "-k", str(place))
    with JobLines(world.cluster, screen, world.directory / "jobs.log"):
        results = runs.done(world, JOBS)
    kubectl.show("get", "vst,vem,vix,vij")
    for result in results:
        status = runs.index(world, result.job, vectors=result["vectorsWritten"])
        whole = status.get("vectors") == result["vectorsWritten"] > 0
        evidence = (
            f"{result.figures('documentsListed', 'vectorsWritten')} from commit {result.revision[:10]}, "
            f"{status.get('vectors')} vectors in {status.get('provider')}, verified: {result.verification}"
        )
        screen.check(f"{result.job} is filled", evidence, holds=whole and result.verification == "Exact")


def ask(world: World) -> None:
    """Three questions; every answer names a file, its lines and a commit that the repository has."""
    places: list[tuple[str, str]] = []
    questions = json.loads(QUESTIONS.read_text())
    for index, question in questions:
        places += _ANSWER.findall(world.search.show(index, question, _TOP))
    found = sum(has(world.repository, commit, path) for path, commit in places)
    expected = _TOP * len(questions)
    world.screen.check(
        "every answer can be looked up",
        f"{found} of {expected} name a file, its lines, and a commit that has this file",
        holds=found == len(places) == expected,
    )
