"""``--contract-report FILE``: what a run of the suite found, store by store, as JSON for ``scripts/store_table.py``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from vectorwright.stores.base import Capabilities

PROVIDER = "provider"
"""Name of the property by which a test says which provider it ran against."""
CASE = "case"
"""Name of the property by which a test with several values says that each is a check of its own."""
NOT_APPLICABLE = "n/a: "
"""How the reason of a skip begins that the capability matrix gives."""


class Recorder:
    """Gathers results. In a run of several processes it sits in the one that hears them all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, dict[str, dict[str, Any]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        provider = dict(report.user_properties).get(PROVIDER)
        if provider is None or (report.when != "call" and report.passed):
            return
        module, _, test = report.nodeid.rpartition("/")[2].partition("::")
        case = dict(report.user_properties).get(CASE)
        check = f"{module.removesuffix('.py')}::{test.partition('[')[0]}{f': {case}' if case else ''}"
        empty = {"passed": 0, "failed": 0, "n/a": 0, "reasons": []}
        cell = self._found.setdefault(check, {}).setdefault(str(provider), empty)
        reason = str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
        if report.skipped and reason.startswith(NOT_APPLICABLE):
            cell["n/a"] += 1
            if reason not in cell["reasons"]:
                cell["reasons"].append(reason)
        else:
            cell["passed" if report.passed else "failed"] += 1

    def pytest_sessionfinish(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._found, indent=1, sort_keys=True) + "\n")


def add_option(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.addoption("--contract-report", type=Path, metavar="FILE", help="write what the contract suite found as JSON")


def register(config: pytest.Config) -> None:
    """Start recording where the option is given."""
    path = config.getoption("--contract-report", None)
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(path.absolute()), "contract-report")


def not_applicable(marks: Iterable[pytest.Mark], capabilities: Capabilities) -> str | None:
    """Why a test does not apply to a store of these capabilities; None where it does.

    A mark's arguments name capabilities that must be there, its keywords say which must (not) be.
    """
    for mark in marks:
        for name, value in {**dict.fromkeys(mark.args, True), **mark.kwargs}.items():
            found = getattr(capabilities, name)
            if bool(found) is not value:
                return f"{NOT_APPLICABLE}{name} is {found!r} in its capabilities"
    return None
