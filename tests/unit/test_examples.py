"""Manifests that are shown to people fit the models.

What is checked: examples/ and the YAML of README and docs parse, and hold no field that the models do not know; what
the quick start refers to is in it; its indexes ask for nothing that their store cannot do.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.support.examples import (
    EXAMPLES,
    PAGES,
    QUICKSTART,
    ROOT,
    Manifest,
    is_ours,
    manifest_files,
    manifests,
    shown_on,
)

from vectorwright.api.v1alpha1 import APIKeyRotation, EmbeddingModel, IngestionJob, VectorIndex, VectorStore
from vectorwright.stores.registry import Connection, StoreCredentials, open_store

KINDS = {kind.kind: kind for kind in (VectorStore, EmbeddingModel, VectorIndex, IngestionJob, APIKeyRotation)}


def check(manifest: Manifest) -> None:
    """The spec comes back from its model as it was written: the model knows each of its fields."""
    assert manifest["apiVersion"] == "vectorwright.dev/v1alpha1"
    model = KINDS[manifest["kind"]].model_validate(manifest)
    assert model.spec.model_dump(mode="json", by_alias=True, exclude_unset=True) == manifest["spec"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", manifest_files(), ids=relative)
def test_an_example_fits_the_models(path: Path) -> None:
    ours = [item for item in manifests(path) if is_ours(item)]
    assert ours
    for manifest in ours:
        check(manifest)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_what_a_page_shows_fits_the_models(page: Path) -> None:
    for manifest in filter(is_ours, shown_on(page)):
        check(manifest)


def test_a_field_that_no_model_knows_is_noticed() -> None:
    manifest: Manifest = {
        "apiVersion": "vectorwright.dev/v1alpha1",
        "kind": "VectorStore",
        "metadata": {"name": "s"},
        "spec": {"memory": {"local": True}, "probeIntervall": "1s"},
    }
    with pytest.raises(AssertionError):
        check(manifest)


def test_the_quick_start_is_whole() -> None:
    listed = yaml.safe_load((QUICKSTART / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(
        path.name for path in QUICKSTART.glob("*.yaml") if path.name != "kustomization.yaml"
    )
    objects = [item for name in listed for item in manifests(QUICKSTART / name)]
    present = {(item["kind"], item["metadata"]["name"]) for item in objects}
    assert len(present) == len(objects)
    for item in objects:
        for field, kind in (
            ("storeRef", "VectorStore"),
            ("embeddingModelRef", "EmbeddingModel"),
            ("indexRef", "VectorIndex"),
        ):
            if field in item["spec"]:
                assert (kind, item["spec"][field]["name"]) in present


@pytest.mark.parametrize("path", [QUICKSTART, EXAMPLES / "stores" / "pgvector-two-credentials.yaml"], ids=relative)
async def test_an_index_asks_for_nothing_that_its_store_cannot_do(path: Path) -> None:
    files = [file for file in manifest_files() if path in (file, file.parent)]
    objects = [item for file in files for item in manifests(file)]
    stores = {item["metadata"]["name"]: item for item in objects if item["kind"] == "VectorStore"}
    indexes = [VectorIndex.model_validate(item) for item in objects if item["kind"] == "VectorIndex"]
    assert indexes
    for index in indexes:
        spec = VectorStore.model_validate(stores[index.spec.store_ref.name]).spec
        settings = {"server": "http://127.0.0.1:1", **getattr(spec, spec.provider).dump()}
        someone = StoreCredentials(username="someone", password="a password")
        async with open_store(Connection(spec.provider, settings, someone)) as store:
            can = store.capabilities
        assert {field.type.value for field in index.spec.metadata_fields or ()} <= can.field_types
        assert index.spec.metric is None or index.spec.metric.value in can.metrics
