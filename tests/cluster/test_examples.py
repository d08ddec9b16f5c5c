"""Manifests that are shown to people are accepted by a real API server, with every field known to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from deploy.devcluster import Cluster
from tests.support.examples import PAGES, QUICKSTART, ROOT, is_ours, manifest_files, shown_on

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]
DRY_RUN = ("apply", "--dry-run=server", "--validate=strict")


def test_every_example_is_accepted(devcluster: Cluster, namespace: str) -> None:
    files = [part for path in manifest_files() for part in ("-f", str(path))]
    said = devcluster.kubectl_run(*DRY_RUN, "-n", namespace, *files)
    written = sum(len(re.findall(r"^kind: ", path.read_text(), re.MULTILINE)) for path in manifest_files())
    assert said.count("(server dry run)") == written


def test_the_quick_start_is_accepted_as_a_kustomization(devcluster: Cluster, namespace: str) -> None:
    said = devcluster.kubectl_run(*DRY_RUN, "-n", namespace, "-k", str(QUICKSTART))
    assert said.count("(server dry run)") == 7


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(Path(path).relative_to(ROOT)))
def test_what_a_page_shows_is_accepted(devcluster: Cluster, namespace: str, page: Path) -> None:
    shown = [item for item in shown_on(page) if is_ours(item)]
    if shown:
        devcluster.kubectl_run(*DRY_RUN, "-n", namespace, "-f", "-", input=yaml.safe_dump_all(shown))
