"""``make check``: everything that can be said about the code without running it."""

from __future__ import annotations

import sys
from pathlib import Path

from scripts.steps import BIN, Steps, succeeds

CHECKS: list[tuple[str, list[str | Path]]] = [
    ("format (make fmt mends it)", [BIN / "ruff", "format", "--check", "--quiet", "."]),
    ("lint", [BIN / "ruff", "check", "--quiet", "."]),
    ("types", [BIN / "mypy"]),
    ("import contracts", [BIN / "lint-imports", "--no-logo"]),
    ("crds/ agrees with the models (make crds mends it)", [BIN / "vectorwright", "crds", "--check", "--dir", "crds"]),
    (
        "docs/reference.md agrees with crds/ (make crds mends it)",
        [BIN / "python", "-m", "scripts.reference", "--check"],
    ),
    (
        "docs/store-contract.md agrees with the stores and the suite (make contract-table mends it)",
        [BIN / "python", "-m", "scripts.store_table", "--check"],
    ),
]


def main() -> int:
    steps = Steps(len(CHECKS))
    failed = []
    for title, command in CHECKS:
        with steps.step(title):
            if not succeeds(command):
                failed.append(title)
    steps.end(f"FAILED: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
