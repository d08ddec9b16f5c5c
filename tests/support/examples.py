"""The manifests that are shown to people: the files in examples/, and the YAML in README.md and docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
QUICKSTART = EXAMPLES / "quickstart"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

Manifest = dict[str, Any]

_FENCE = re.compile(r"^```ya?ml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def manifest_files() -> list[Path]:
    """Every manifest below examples/."""
    return sorted(path for path in EXAMPLES.rglob("*.yaml") if path.name != "kustomization.yaml")


def manifests(path: Path) -> list[Manifest]:
    """The objects of one file."""
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def shown_on(page: Path) -> list[Manifest]:
    """The objects in a page's YAML blocks; parts of objects, which have no kind, are left out."""
    found = [item for block in _FENCE.findall(page.read_text()) for item in yaml.safe_load_all(block)]
    return [item for item in found if isinstance(item, dict) and "kind" in item]


def is_ours(manifest: Manifest) -> bool:
    """Whether it is of one of the kinds of Vectorwright."""
    return str(manifest["apiVersion"]).startswith("vectorwright.dev/")
