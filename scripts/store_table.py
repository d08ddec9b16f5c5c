"""Write docs/store-contract.md: what every store can do, and what the contract suite found.

The capabilities come from the code: a store of every kind is opened, without a server. What the suite found comes from
reports of its runs (``pytest tests/contract --contract-report FILE``); without a report that part of the page stays.
``--check`` compares: the capabilities must be those of the code, the checks those of the suite.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from scripts.store_samples import SAMPLES
from tests.contract.fault_plan import FAULTS

from vectorwright.stores.base import Capabilities
from vectorwright.stores.registry import open_store

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "store-contract.md"
SUITE = CHECKOUT / "tests" / "contract"
MODULES = (
    "protocol",
    "indexes",
    "records",
    "limits",
    "scrolls",
    "search",
    "filters",
    "aliases",
    "namespaces",
    "writers",
    "recall",
    "failures",
    "faults",
)
"""Modules of the suite that run against every store; the others hold what is one store's own."""
STORES: Mapping[str, str] = {
    "Pinecone": "pinecone",
    "Qdrant": "qdrant",
    "Weaviate": "weaviate",
    "Milvus": "milvus",
    "Chroma": "chroma",
    "pgvector": "pgvector",
    "Lance (S3)": "lance-s3",
    "Lance (volume)": "lance",
    "FAISS": "faiss",
    "memory": "memory",
}
"""Title → name in the suite."""
A_ROW_A_FAULT = "test_a_fault_at_any_call_is_the_right_kind_of_error"
CAPABILITIES = "## What every store can do"
CHECKS = "## What was checked"

_HEAD = """\
# The contract of stores

Written by `make contract-table`: every store keeps one protocol (`operator/vectorwright/stores/base.py`), and one suite
(`tests/contract`) holds it to that. What a store cannot do is said in its capabilities, and refused by name.
"""
_BEFORE_CHECKS = """\
{count} checks, each a test function of the modules of `tests/contract` that run against every store; one that runs with
many values counts once. They ran against real servers: Weaviate, Chroma, PostgreSQL with pgvector, an S3 server, the
store server (Lance on a volume, FAISS, memory), and milvus-lite for Milvus. Pinecone and Qdrant, whose servers no
package registry carries, are doubles that their official SDKs drive; `PINECONE_API_KEY` and `QDRANT_URL` put the real
ones in their place.

✓ passed · n/a does not apply, for the reason of that number below the tables · ✗ failed · ? did not run
"""
_LISTED = {
    "name_pattern": "Names of indexes",
    "namespace_pattern": "Names of namespaces",
    "id_pattern": "Ids of records",
    "mutable_settings": "Settings that can change after creation, and what a change costs",
    "filter_limits": "What filters cannot say, and therefore is refused",
}
_UNITS = {"max_batch_bytes", "max_metadata_bytes", "max_text_bytes"}
Report = dict[str, dict[str, dict[str, Any]]]


def capabilities() -> dict[str, Capabilities]:
    """What the stores say before any server was asked."""

    async def opened() -> dict[str, Capabilities]:
        found = {}
        for title, connection in SAMPLES.items():
            async with open_store(connection) as store:
                found[title] = store.capabilities
        return found

    return asyncio.run(opened())


def capability_part() -> str:
    """The matrix of stores and capabilities; what is too long for its cells follows as lists."""
    known = capabilities()
    lines = [CAPABILITIES, "", f"| | {' | '.join(STORES)} |", f"|---|{'---|' * len(STORES)}"]
    for one in fields(Capabilities):
        if one.name not in _LISTED:
            cells = (_shown(one.name, getattr(known[title], one.name)) for title in STORES)
            lines.append(f"| `{one.name}` | {' | '.join(cells)} |")
    for name, heading in _LISTED.items():
        lines += ["", f"### {heading}", ""]
        held: dict[str, list[str]] = {}
        for title in STORES:
            if name != "namespace_pattern" or known[title].namespaces:
                held.setdefault(_shown(name, getattr(known[title], name)), []).append(title)
        lines += [f"- {', '.join(titles)}: {text}" for text, titles in held.items()]
    return "\n".join([*lines, ""])


def _shown(name: str, value: object) -> str:
    if value is None:
        return "any text that is not empty"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _bytes(value) if name in _UNITS else f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"`{key}` {value[key]}" for key in sorted(value)) or "none"
    if isinstance(value, frozenset):
        return ", ".join(sorted(value)) or "none"
    if isinstance(value, tuple):
        return " ".join(value) or "nothing"
    return f"`{value}`"


def _bytes(count: int) -> str:
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size and count % size == 0:
            return f"{count // size:,} {unit}"
    return f"{count:,} B"


def checks() -> dict[str, list[str]]:
    """The checks of the suite: module → test functions, in their order."""
    return {module: list(_functions(SUITE / f"test_{module}.py")) for module in MODULES}


def rows() -> dict[str, list[str]]:
    """The same, with a row for each fault."""
    found = checks()
    found["faults"] = [
        row
        for test in found["faults"]
        for row in ([f"{test}: {fault}" for fault in FAULTS if fault != "timeout"] if test == A_ROW_A_FAULT else [test])
    ]
    return found


def _functions(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name


def check_part(report: Report) -> str:
    """The tables of checks and stores."""
    lines = [CHECKS, "", _BEFORE_CHECKS.format(count=sum(map(len, checks().values())))]
    reasons: list[str] = []
    for module, tests in rows().items():
        lines += [f"### {module.capitalize()}", "", f"| | {' | '.join(STORES)} |", f"|---|{':-:|' * len(STORES)}"]
        for test in tests:
            found = report.get(f"test_{module}::{test}", {})
            cells = (_cell(found.get(name), reasons) for name in STORES.values())
            lines.append(f"| {_title(test)} | {' | '.join(cells)} |")
        lines.append("")
    lines += ["### Why a check does not apply", ""]
    lines += [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, ""])


def _title(test: str) -> str:
    return test.removeprefix("test_").replace("_", " ")


def _cell(found: Mapping[str, Any] | None, reasons: list[str]) -> str:
    if found is None or not (found["passed"] or found["failed"] or found["n/a"]):
        return "?"
    if found["failed"]:
        return "✗"
    numbers = []
    for reason in found["reasons"]:
        text = reason.removeprefix("n/a: ")
        if text not in reasons:
            reasons.append(text)
        numbers.append(str(reasons.index(text) + 1))
    why = f"n/a {', '.join(numbers)}"
    if not found["passed"]:
        return why
    return f"✓ ({why})" if numbers else "✓"


def merged(paths: Sequence[Path]) -> Report:
    """Reports of several runs as one: a later one replaces what an earlier one said of the same check and store."""
    whole: Report = {}
    for path in paths:
        for check, found in json.loads(path.read_text()).items():
            whole.setdefault(check, {}).update(found)
    return whole


def parts(text: str) -> tuple[str, str]:
    """(capabilities, checks) of a page."""
    before, _, after = text.partition(f"{CHECKS}\n")
    return before.partition(CAPABILITIES)[2], after


def differences(text: str) -> list[str]:
    """What of a page is not so any more."""
    told, checked = parts(text)
    found = []
    if told.strip() != capability_part().removeprefix(CAPABILITIES).strip():
        found.append("the capabilities are not those of the code: run python -m scripts.store_table")
    told_rows = re.findall(r"^\| ([^|`]+?) \| [✓n✗?]", checked, re.MULTILINE)
    wanted = [_title(test) for tests in rows().values() for test in tests]
    if told_rows != wanted:
        gone, new = sorted({*told_rows} - {*wanted}), sorted({*wanted} - {*told_rows})
        found.append(f"the checks are not those of the suite (gone: {gone}; new: {new}): run make contract-table")
    return found


def main(arguments: list[str]) -> int:
    """Exit status: 1 when ``--check`` finds a difference, or a report tells of a failure."""
    parser = argparse.ArgumentParser(prog="python -m scripts.store_table", description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--report", type=Path, nargs="+", default=[])
    asked = parser.parse_args(arguments)
    present = PAGE.read_text() if PAGE.exists() else ""
    if asked.check:
        wrong = differences(present)
        print(*(f"{PAGE.relative_to(CHECKOUT)}: {one}" for one in wrong), sep="\n", end="\n" if wrong else "")
        return 1 if wrong else 0
    checked = check_part(merged(asked.report)) if asked.report else f"{CHECKS}\n{parts(present)[1]}"
    PAGE.write_text(f"{_HEAD}\n{capability_part()}\n{checked}")
    return 1 if "| ✗" in checked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
