"""``python -m bench [NAME …]``: run benchmarks; all of them when none is named."""

from __future__ import annotations

import argparse
import importlib
import sys

BENCHMARKS = {
    "ready": "time from apply to Ready of a VectorIndex, beside the store's own create call",
    "scale": "1,000 VectorIndexes on one store: memory, and calls while nothing changes",
    "upsert": "records a second of every store, beside the vendor's own helper (STORES=chroma,… for some)",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:<10}{text}" for name, text in BENCHMARKS.items()),
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        print(f"bench: no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names:
        print(f"== {name}: {BENCHMARKS[name]}", flush=True)
        importlib.import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
