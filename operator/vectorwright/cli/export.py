"""``vectorwright export``: the records of an index into a parquet file."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from vectorwright.errors import VectorwrightError
from vectorwright.ingest.copying.export import export_index

from .connecting import add_cluster_flags, connected
from .records import Ticker, open_index

_DESCRIPTION = (
    "Write ids, vectors, texts and metadata of an index to a parquet file, as they are. The file appears under its "
    "name when it is whole; one that is there is replaced. import-records reads it back, into any store."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "export", help="write the records of an index to a parquet file", description=_DESCRIPTION
    )
    parser.add_argument("index", help="name of the VectorIndex")
    parser.add_argument("file", type=Path, help="parquet file to write")
    parser.add_argument("--index-namespace", help="namespace (tenant, partition) of the index; the default one if not")
    add_cluster_flags(parser, "namespace of the VectorIndex")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command. Exit status 1 when index or file cannot be had."""
    try:
        count = asyncio.run(_export(args))
    except VectorwrightError as error:
        print(f"vectorwright export: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vectorwright export: stopped; no file was written", file=sys.stderr)
        return 130
    print(f"{count} records of {args.index} written to {args.file}")
    return 0


async def _export(args: argparse.Namespace) -> int:
    async with connected(args) as cluster, open_index(cluster, args.index, args.index_namespace) as index:
        dimension = index.resource.status.dimension
        return await export_index(index.store, index.name, args.file, dimension=dimension, told=Ticker("export").tell)
