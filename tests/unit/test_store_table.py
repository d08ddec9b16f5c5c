"""The page of stores and checks says what the code does, and what the suite is.

- its capabilities are those of the code, its checks those of the suite, each of them run in every store
- results become cells: passed, failed, not applicable with a reason, not run
- a skip in the suite has a reason of the capability matrix: there is one way to skip, and no other
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from scripts import store_table
from scripts.store_table import STORES, check_part, checks, differences, merged, rows
from tests.contract.providers import PROVIDERS
from tests.contract.report import NOT_APPLICABLE, not_applicable

from vectorwright.stores.base import Capabilities

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "store-contract.md").read_text()


def test_the_page_agrees_with_the_code_and_the_suite() -> None:
    # In a process of its own: it opens a store of every kind, with all SDKs.
    command = [sys.executable, "-m", "scripts.store_table", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_check_ran_in_every_store_and_none_failed() -> None:
    told = PAGE.partition(store_table.CHECKS)[2].partition("### Why")[0]
    cells = [cell.strip() for line in told.splitlines() if line.startswith("| ") for cell in line.split("|")[2:-1]]
    assert len(cells) >= 80 * len(STORES)
    assert not {"✗", "?"} & set(cells)


def test_there_are_enough_checks_and_a_column_for_every_store() -> None:
    assert sum(map(len, checks().values())) >= 80
    assert set(STORES.values()) == set(PROVIDERS)


def test_a_page_of_old_checks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_table, "capability_part", lambda: f"{store_table.CAPABILITIES}\n\nthe same\n")
    page = f"{store_table.capability_part()}\n{check_part({})}"
    assert differences(page) == []
    assert "capabilities" in differences(page.replace("the same", "another"))[0]
    stale = page.replace("an empty batch is fine", "an old check")
    assert "gone: ['an old check']; new: ['an empty batch is fine']" in differences(stale)[0]


def test_results_become_cells(tmp_path: Path) -> None:
    def cell(passed: int, failed: int, other: int, *reasons: str) -> dict[str, object]:
        return {"passed": passed, "failed": failed, "n/a": other, "reasons": list(reasons)}

    report = {
        "test_records::test_an_empty_batch_is_fine": {
            "pinecone": cell(1, 0, 0),
            "qdrant": cell(3, 1, 0),
            "weaviate": cell(0, 0, 2, f"{NOT_APPLICABLE}first", f"{NOT_APPLICABLE}second"),
            "milvus": cell(1, 0, 1, f"{NOT_APPLICABLE}second"),
        }
    }
    part = check_part(report)
    (row,) = (line for line in part.splitlines() if line.startswith("| an empty batch is fine"))
    assert row.startswith("| an empty batch is fine | ✓ | ✗ | n/a 1, 2 | ✓ (n/a 2) | ? |")
    assert "1. first\n2. second\n" in part
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text('{"check": {"a": {"passed": 1}, "b": {"passed": 1}}}')
    second.write_text('{"check": {"b": {"failed": 1}}}')
    assert merged([first, second]) == {"check": {"a": {"passed": 1}, "b": {"failed": 1}}}


def test_a_row_for_every_fault() -> None:
    faults = rows()["faults"]
    assert len(faults) == 12
    assert sum(row.startswith(store_table.A_ROW_A_FAULT) for row in faults) == 11


def test_a_check_does_not_apply_for_a_reason_of_the_capabilities() -> None:
    without = Capabilities(metrics=frozenset({"cosine"}), max_dimension=8)
    assert not_applicable([pytest.mark.needs("aliases").mark], without) == "n/a: aliases is False in its capabilities"
    assert not_applicable([pytest.mark.needs(aliases=False).mark], without) is None
    assert not_applicable([pytest.mark.needs("marks").mark, pytest.mark.needs("durable").mark], without) is None
    assert (
        not_applicable([pytest.mark.needs(durable=False).mark], without) == "n/a: durable is True in its capabilities"
    )
    with pytest.raises(AttributeError):
        not_applicable([pytest.mark.needs("no_such_capability").mark], without)


def test_nothing_in_the_shared_suite_is_skipped_in_another_way() -> None:
    for module in store_table.MODULES:
        text = (store_table.SUITE / f"test_{module}.py").read_text()
        assert "pytest.skip" not in text
        assert "skipif" not in text
        assert "xfail" not in text
