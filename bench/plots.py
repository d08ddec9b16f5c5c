"""Plots of the reports: each figure is drawn from the numbers that its JSON report tells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from .report import REPORTS


def _save(name: str) -> Path:
    path = REPORTS / f"{name}.svg"
    mpl.rcParams["svg.hashsalt"] = name  # the same numbers give the same file
    plt.tight_layout()
    plt.savefig(path, metadata={"Date": None})
    plt.close()
    print(f"   drew {path.relative_to(REPORTS.parents[1])}", flush=True)
    return path


def distribution(name: str, title: str, series: dict[str, Sequence[float]], limit: float, unit: str) -> Path:
    """Cumulative distributions, with a line at the limit that the 99th percentile is to stay under."""
    plt.figure(figsize=(7, 3.5))
    for label, values in series.items():
        ordered = sorted(values)
        plt.step(ordered, [(n + 1) / len(ordered) for n in range(len(ordered))], where="post", label=label)
    plt.axvline(limit, linestyle="--", color="grey", label=f"limit {limit:g} {unit}")
    plt.axhline(0.99, linewidth=0.5, color="grey")
    plt.xlim(left=0)
    plt.ylim(0, 1.01)
    plt.xlabel(unit)
    plt.ylabel("share of indexes")
    plt.title(title)
    plt.legend(loc="lower right")
    return _save(name)


def memory(name: str, title: str, samples: Sequence[tuple[float, float]], limit: float) -> Path:
    """Memory in MiB over seconds, with the limit."""
    plt.figure(figsize=(7, 3.5))
    plt.plot([at for at, _ in samples], [mib for _, mib in samples], label="parent and working process")
    plt.axhline(limit, linestyle="--", color="grey", label=f"limit {limit:g} MiB")
    plt.ylim(bottom=0)
    plt.xlabel("seconds since the first index was applied")
    plt.ylabel("MiB resident")
    plt.title(title)
    plt.legend(loc="lower right")
    return _save(name)


def rates(name: str, title: str, groups: dict[str, dict[str, float]]) -> Path:
    """Vectors a second, one bar a contestant, one group a store; a logarithmic axis, because stores differ much."""
    labels = [f"{contestant}  ({store})" for store, found in groups.items() for contestant in found]
    values = [rate for found in groups.values() for rate in found.values()]
    colours = ["tab:blue" if label.startswith("vectorwright") else "tab:grey" for label in labels]
    plt.figure(figsize=(9, 0.32 * len(labels) + 1.4))
    bars = plt.barh(range(len(labels)), values, color=colours)
    plt.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=7)
    plt.yticks(range(len(labels)), labels, fontsize=7)
    plt.gca().invert_yaxis()
    plt.xscale("log")
    plt.xlabel("vectors a second")
    plt.title(title, fontsize=9)
    return _save(name)
