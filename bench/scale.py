"""1,000 VectorIndexes on one store: until all are Ready, the operator's memory, and its calls while nothing changes.

Calls to the store are counted by the operator's own metric and by what Chroma's side sees through a counting relay;
calls to the API server by the API server.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

from . import plots, report
from .world import ReadyWatch, World, say, world

COUNT = 1000
INTERVAL_S = 10
QUIET_S = 60
LIMIT_RSS_MIB = 150.0
_STORE_CALL = re.compile(r'^vectorwright_store_requests_total\{operation="(\w+)",.*\} ([0-9.e+]+)$', re.MULTILINE)


def _store_calls(world: World) -> dict[str, float]:
    calls: dict[str, float] = {}
    for operation, count in _STORE_CALL.findall(world.operator.get("/metrics")):
        calls[operation] = calls.get(operation, 0.0) + float(count)
    return calls


def _grown(before: dict[str, float], after: dict[str, float]) -> dict[str, int]:
    return {name: int(after[name] - before.get(name, 0)) for name in after if after[name] > before.get(name, 0)}


def main() -> None:
    """Measure, print, write the report."""
    with world() as parts:
        spec = {"chroma": {"url": parts.chroma.url}, "probeInterval": f"{INTERVAL_S}s"}
        parts.create("vectorstores", "VectorStore", "chroma", spec)
        parts.wait_ready("vectorstores", "chroma")
        empty = parts.rss_mib()
        watch, started = ReadyWatch(parts), time.perf_counter()

        def make(number: int) -> None:
            spec = {"storeRef": {"name": "chroma"}, "dimension": 8}
            parts.create("vectorindexes", "VectorIndex", f"index-{number}", spec)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(make, range(COUNT)))
        created = time.perf_counter() - started
        samples = [(created, parts.rss_mib())]
        while len(watch.at) < COUNT and time.perf_counter() - started < 600:
            time.sleep(0.5)
            samples.append((time.perf_counter() - started, parts.rss_mib()))
        watch.wait(lambda seen: len(seen) == COUNT, 1)
        all_ready = max(watch.at.values()) - started
        watch.stop()
        say(f"{COUNT} created in {created:.1f} s, all Ready after {all_ready:.1f} s")
        time.sleep(2 * INTERVAL_S)
        store_before, api_before = _store_calls(parts), parts.served_requests()
        for _ in range(QUIET_S // 5):
            time.sleep(5)
            samples.append((time.perf_counter() - started, parts.rss_mib()))
        peak = max(mib for _, mib in samples)
        store = _grown(store_before, _store_calls(parts))
        api = _grown(api_before, parts.served_requests())
        restarted = _after_restart(parts)
    listings = store.get("list_indexes", 0)
    figures = {
        "count": COUNT,
        "create_s": round(created, 1),
        "all_ready_s": round(all_ready, 1),
        "operator_rss_mib": {"empty": round(empty, 1), "with_all": round(peak, 1), "after_restart": restarted},
        "limit_rss_mib": LIMIT_RSS_MIB,
        "quiet": {"seconds": QUIET_S, "probe_interval_s": INTERVAL_S, "store_calls": store, "api_calls": api},
    }
    say(f"operator RSS: {empty:.0f} MiB empty, {peak:.0f} MiB with {COUNT} indexes, {restarted:.0f} after a restart")
    say(f"in {QUIET_S} quiet seconds: store calls {store} ({listings} listings), API calls {api}")
    report.write("scale", figures)
    plots.memory("scale", f"Operator memory with {COUNT} VectorIndexes", samples, LIMIT_RSS_MIB)


def _after_restart(parts: World) -> float:
    """Memory of an operator that finds all indexes there."""
    parts.operator.stop()
    parts.operator.start()
    time.sleep(2 * INTERVAL_S)
    return round(parts.rss_mib(), 1)
