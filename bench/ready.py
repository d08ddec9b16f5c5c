"""Time from the creation of a VectorIndex to Ready, as a client's watch sees it, beside the store's own create call.

One index after another, 200 of them, in a Chroma server on loopback. What the operator adds is the whole time less the
median of the same create call made directly.
"""

from __future__ import annotations

import statistics
import time

import httpx

from . import plots, report
from .world import ReadyWatch, World, say, world

COUNT = 200
LIMIT_MS = 100.0
"""What the operator may add at the 99th percentile."""


def _direct(url: str) -> list[float]:
    """Milliseconds of Chroma's own create call, 200 times."""
    taken = []
    with httpx.Client(base_url=url, trust_env=False) as client:
        path = "/api/v2/tenants/default_tenant/databases/default_database/collections"
        for number in range(COUNT):
            body = {"name": f"direct-{number}", "configuration": {"hnsw": {"space": "cosine"}}}
            started = time.perf_counter()
            client.post(path, json=body).raise_for_status()
            taken.append((time.perf_counter() - started) * 1000)
    return taken


def _through(world: World) -> list[float]:
    """Milliseconds from the create call of a VectorIndex to the watch event that says Ready."""
    watch, taken = ReadyWatch(world), []
    for number in range(COUNT):
        name = f"index-{number}"
        started = time.perf_counter()
        world.create("vectorindexes", "VectorIndex", name, {"storeRef": {"name": "chroma"}, "dimension": 8})
        watch.wait(lambda seen, name=name: name in seen, 30)  # type: ignore[misc]
        taken.append((watch.at[name] - started) * 1000)
    watch.stop()
    return taken


def main() -> None:
    """Measure, print, write the report."""
    with world() as parts:
        parts.create("vectorstores", "VectorStore", "chroma", {"chroma": {"url": parts.chroma.url}})
        parts.wait_ready("vectorstores", "chroma")
        direct = _direct(parts.chroma.url)
        through = _through(parts)
    create = statistics.median(direct)
    added = [value - create for value in through]
    figures = {
        "count": COUNT,
        "store_create_ms": report.quantiles(direct),
        "apply_to_ready_ms": report.quantiles(through),
        "added_ms": report.quantiles(added),
        "limit_added_p99_ms": LIMIT_MS,
    }
    say(f"store's own create call: median {create:.1f} ms")
    say(f"apply → Ready: median {figures['apply_to_ready_ms']['median']:.1f} ms")  # type: ignore[index]
    p99 = figures["added_ms"]["p99"]  # type: ignore[index]
    say(
        f"added by the operator: p99 {p99:.1f} ms of {LIMIT_MS:.0f} ({'reached' if p99 <= LIMIT_MS else 'NOT reached'})"
    )
    report.write("ready", figures)
    plots.distribution(
        "ready",
        f"VectorIndex: apply → Ready, {COUNT} times, one after another",
        {"the store's own create call": direct, "apply → Ready": through, "added by the operator": added},
        LIMIT_MS,
        "ms",
    )
