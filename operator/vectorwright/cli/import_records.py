"""``vectorwright import-records``: records from a parquet file into an index."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from vectorwright.api.v1alpha1.ingestion_source import Source
from vectorwright.api.v1alpha1.ingestionjob import Batch, Phase
from vectorwright.errors import Terminal, VectorwrightError
from vectorwright.ingest.copying.record_reader import FileOrigin
from vectorwright.ingest.copying.run import CopyRun
from vectorwright.ingest.runspec import RunSpec, RunState, StoreTarget

from .connecting import add_cluster_flags, connected
from .records import OpenIndex, Ticker, open_index

_DESCRIPTION = (
    "Write the records of a parquet file to an index as they are: ids, vectors, texts and metadata. The file is one "
    "that export wrote, or has the columns id (text) and vector (list of float32), and text and metadata (JSON) where "
    "it has them. What is there already and equal is not written again; a record of another source is not overwritten."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "import-records", help="write the records of a parquet file to an index", description=_DESCRIPTION
    )
    parser.add_argument("file", type=Path, help="parquet file to read")
    parser.add_argument("--index", required=True, help="name of the VectorIndex")
    parser.add_argument("--index-namespace", help="namespace (tenant, partition) of the index; the default one if not")
    parser.add_argument("--batch-size", type=int, help="records in one write (default: 500, or what the store takes)")
    parser.add_argument("--workers", type=int, help="writes in flight (default: 4)")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also write over records with the same id that no source owns (without vw_source), where they differ",
    )
    add_cluster_flags(parser, "namespace of the VectorIndex")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command. Exit status 1 when it fails, or when records could not be kept."""
    logging.basicConfig(level=logging.ERROR, format="vectorwright import-records: %(message)s")
    try:
        state = asyncio.run(_import(args))
    except VectorwrightError as error:
        print(f"vectorwright import-records: {error.message}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"vectorwright import-records: {error}", file=sys.stderr)
        return 2
    return _report(args, state)


def _report(args: argparse.Namespace, state: RunState) -> int:
    counts = state.counts
    for letter in state.dead_letters:
        print(f"vectorwright import-records: {letter.document}: {letter.message}", file=sys.stderr)
    if (more := counts.documents_failed - len(state.dead_letters)) > 0:
        print(f"vectorwright import-records: and {more} more", file=sys.stderr)
    if state.message:
        print(f"vectorwright import-records: {state.message}", file=sys.stderr)
    print(
        f"{args.index}: {counts.vectors_written} records written, {counts.documents_unchanged} there already, "
        f"{counts.documents_failed} failed; {state.verification or 'not'} verified"
    )
    return 0 if state.phase is Phase.SUCCEEDED else 1


def _spec(args: argparse.Namespace, index: OpenIndex) -> RunSpec:
    status = index.resource.status
    if not status.dimension or not status.metric or not status.incarnation:
        raise Terminal(f"VectorIndex {args.index} was not reconciled yet", reason="IndexNotReady")
    for flag, value in (("--batch-size", args.batch_size), ("--workers", args.workers)):
        if value is not None and not 1 <= value <= 10_000:
            raise ValueError(f"{flag} wants 1 to 10000, not {value}")
    return RunSpec(
        run_id="import-records",
        job=f"{index.resource.metadata.namespace}/import-records",
        source_name="import-records",
        source=Source(),
        batch=Batch(max_records=args.batch_size, workers=min(args.workers, 64) if args.workers else None),
        store=StoreTarget(
            provider=index.provider,
            settings={},
            index=index.name,
            namespace=args.index_namespace or "",
            incarnation=status.incarnation,
            dimension=status.dimension,
            metric=status.metric,
            sole_writer=args.overwrite,
            made_for_us=args.overwrite,
        ),
    )


async def _import(args: argparse.Namespace) -> RunState:
    async with connected(args) as cluster, open_index(cluster, args.index, args.index_namespace) as index:
        run = CopyRun(_spec(args, index), store=index.store, origin=FileOrigin(args.file))
        ticking = asyncio.create_task(_tick(run))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, run.stop)
        try:
            return await run.execute()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking


async def _tick(run: CopyRun) -> None:
    ticker = Ticker("import-records")
    while True:
        await asyncio.sleep(1.0)
        counts = run.progress.counts
        ticker.tell(counts.vectors_written + counts.documents_unchanged)
