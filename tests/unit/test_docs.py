"""The documents say what the code does.

What is checked: links lead somewhere; every flag, metric, annotation and reason of the code is explained, and none that
the code does not have; paths that the documents name exist.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from tests.support.examples import PAGES, ROOT

from vectorwright import settings
from vectorwright.api.v1alpha1 import common
from vectorwright.observability import health, metrics

PACKAGE = ROOT / "operator" / "vectorwright"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
INSTALL = (ROOT / "docs" / "install.md").read_text()
POLICIES = (ROOT / "docs" / "policies.md").read_text()

NOT_FOR_RESOURCES = {
    "BadAnswer": "of the API server",
    "CRDsMissing": "log of the operator at its start",
    "CannotListen": "store-server, on its standard error",
    "Conflict": "another pass follows",
    "DirectoryInUse": "store-server, on its standard error",
    "Error": "base class",
    "Expired": "of a watch",
    "FileNotReadable": "a command, on its standard error",
    "FileNotWritable": "a command, on its standard error",
    "Forbidden": "explained where it matters, as SecretForbidden",
    "Invalid": "of the API server",
    "InvalidCertificate": "store-server, on its standard error",
    "InvalidKubeconfig": "a command, on its standard error",
    "InvalidSettings": "a command, on its standard error",
    "InvalidTokenFile": "store-server, on its standard error",
    "LeaseLost": "the process ends",
    "NamespaceTerminating": "of the API server",
    "NoCluster": "a command, on its standard error",
    "NoInstallationId": "log of the operator at its start",
    "NotFound": "the plan decides",
    "Tls": "of the API server",
    "TooManyRequests": "of the API server",
    "Unauthorized": "of the API server",
}
"""Reasons that no resource shows, and where they are seen instead."""

_REASON_CALLS = {"_terminal", "_conflict", "waiting_conditions", "Defect", "Rejected", "_let_go", "_refuse"}
_TOLD = {"normal", "warning", "_tell"}
_DEAD_LETTER_CALLS = {"document", "chunk"}
_CAMEL = re.compile(r"[A-Z][A-Za-z]+")


def _trees() -> Iterator[ast.Module]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ast.parse(path.read_text())


def _constants() -> dict[str, str]:
    """Names in capitals that hold a reason."""
    found = {}
    for tree in _trees():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name, value = node.targets[0].id, node.value
                if name.isupper() and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[name] = value.value
    return found


def _texts(node: ast.expr, constants: dict[str, str]) -> Iterator[str]:
    """The reasons that an expression may be; one made with the kind of a reference is that of both kinds."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name):
        yield constants.get(node.id, "")
    elif isinstance(node, ast.IfExp | ast.BoolOp):
        for part in (node.body, node.orelse) if isinstance(node, ast.IfExp) else node.values:
            yield from _texts(part, constants)
    elif isinstance(node, ast.JoinedStr) and isinstance(end := node.values[-1], ast.Constant):
        for kind in ("Secret", "ConfigMap"):
            yield kind + str(end.value)


@cache
def _reasons() -> frozenset[str]:
    """Every reason in the code."""
    constants = _constants()
    found: set[str] = set()
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign | ast.Assign) and "default_reason" in ast.unparse(node).partition("=")[0]:
                found.update(_texts(node.value, constants) if node.value else ())
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            if called in _REASON_CALLS | _TOLD | _DEAD_LETTER_CALLS:
                given += node.args
            if called == "ConditionState" and len(node.args) > 2:
                given.append(node.args[2])
            for expression in given:
                found.update(_texts(expression, constants))
    return frozenset(reason for reason in found if _CAMEL.fullmatch(reason))


def _code_spans(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def test_every_reason_is_explained() -> None:
    unexplained = _reasons() - _code_spans(OPERATIONS) - set(NOT_FOR_RESOURCES)
    assert sorted(unexplained) == [], "add these to the tables of docs/operations.md"


def test_no_reason_is_explained_that_does_not_exist() -> None:
    """In tables whose first column is called Reason."""
    named: set[str] = set()
    in_table = False
    for line in (*OPERATIONS.splitlines(), *POLICIES.splitlines()):
        in_table = line.startswith("| Reason |") or (in_table and line.startswith("|"))
        if in_table:
            named |= _code_spans(line.split("|")[1])
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    made = _reasons()
    assert named
    assert sorted(reason for reason in named if reason not in made and f'"{reason}"' not in source) == []


def test_every_flag_is_explained_and_no_other() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    settings.add_arguments(parser)
    flags = {option for action in parser._actions for option in action.option_strings}
    variables = set(re.findall(r"VECTORWRIGHT_[A-Z_]+", parser.format_help()))
    rows = [line.split("|") for line in INSTALL.splitlines() if line.startswith("| `--")]
    documented = {flag for row in rows for flag in _code_spans(row[1])}
    positive = {flag for flag in flags if not flag.startswith("--no-")}
    assert positive <= documented <= flags
    assert {name for row in rows for name in _code_spans(row[2])} == variables


def test_every_metric_is_explained_and_no_other() -> None:
    families = (
        metrics.exposition().decode()
        + health.parent_exposition(leading=True, child_starts=1, heartbeat_age=0.0).decode()
    )
    exposed = set(re.findall(r"^# TYPE (vectorwright_\w+) ", families, re.MULTILINE))
    documented = set(re.findall(r"^\| `(vectorwright_\w+)` \|", OPERATIONS, re.MULTILINE))
    assert documented == exposed


def test_every_annotation_is_explained() -> None:
    names = {getattr(common, name) for name in dir(common) if name.startswith("ANNOTATION_")}
    text = " ".join(page.read_text() for page in PAGES)
    assert not {name for name in names if name not in text}


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "``", page.read_text())  # a regular expression may look like a link
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(found), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_that_are_named_exist(page: Path) -> None:
    roots = {path.name for path in ROOT.iterdir() if path.is_dir()}
    packages = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    for name in _code_spans(page.read_text()):
        first = name.partition("/")[0]
        if re.fullmatch(r"[\w./-]+/[\w./-]*", name) and first in roots | packages:
            places = [base / name for base in (ROOT, PACKAGE, ROOT / "deploy" / "kustomize")]
            assert any(place.exists() for place in places), f"{page.name} names {name}"
