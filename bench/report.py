"""What every report says of the machine, and where it goes."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vectorwright import __version__

REPORTS = Path(__file__).parent / "reports"


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median, 90th and 99th percentile and maximum, rounded to four significant digits."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    found = {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "p90": at(0.9),
        "p99": at(0.99),
        "max": ordered[-1],
    }
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def read(name: str) -> dict[str, Any]:
    """The report of an earlier run; empty where there is none."""
    path = REPORTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def write(name: str, figures: dict[str, Any]) -> Path:
    """Write ``bench/reports/<name>.json`` and return its path."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    report = {
        "benchmark": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "vectorwright": __version__,
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
            "load_at_end": round(os.getloadavg()[0], 2),
        },
        **figures,
    }
    path = REPORTS / f"{name}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"   wrote {path.relative_to(REPORTS.parents[1])}", flush=True)
    return path
