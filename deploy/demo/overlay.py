"""The quick start as it is in ``examples/``, with the addresses of the demo's servers: a kustomize overlay."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

QUICKSTART = Path("examples") / "quickstart"
PROBE_INTERVAL = "2s"
"""How often stores are listed here, so that nobody has to wait a minute for drift to be noticed."""


def write(directory: Path, checkout: Path, *, namespace: str, chroma_url: str, git_url: str, git_ref: str) -> None:
    """Write ``kustomization.yaml`` to ``directory``, which is made."""
    directory.mkdir()
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        # kustomize takes no absolute path here.
        "resources": [os.path.relpath((checkout / QUICKSTART).resolve(), directory.resolve())],
        "patches": [
            _patch("VectorStore", "docs-store", {"/spec/chroma/url": chroma_url}),
            _patch("VectorStore", ".*", {"/spec/probeInterval": PROBE_INTERVAL}),
            _patch("IngestionJob", ".*", {"/spec/source/git/url": git_url, "/spec/source/git/ref": git_ref}),
        ],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(overlay, sort_keys=False))


def _patch(kind: str, name: str, values: dict[str, str]) -> dict[str, Any]:
    """Sets fields, whether they were there or not."""
    operations = [{"op": "add", "path": path, "value": value} for path, value in values.items()]
    return {"target": {"kind": kind, "name": name}, "patch": json.dumps(operations)}
