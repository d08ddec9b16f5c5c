"""``vectorwright worker``: one ingestion run, or one question to a local embedding model."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vectorwright.errors import Terminal
from vectorwright.observability.logs import configure_logging

_DESCRIPTION = (
    "Run one ingestion run, as DIR/run.json describes it. The operator starts it, as a Kubernetes Job or as its child. "
    "Exit status: 0 succeeded, 3 failed until somebody changes something, 4 failed but may be started again."
)


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("worker", help="run one ingestion run", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="folder with run.json, credentials and certificates"
    )
    listen = parser.add_mutually_exclusive_group()
    listen.add_argument("--listen", metavar="HOST:PORT", help="where to tell progress and take budgets")
    listen.add_argument("--unix", type=Path, metavar="PATH", help="the same, as a socket in the file system")
    parser.add_argument(
        "--termination-log", type=Path, metavar="FILE", help="file for the final state, 4096 bytes at most"
    )
    parser.add_argument("--exit-on-stdin-eof", action="store_true", help="end at once when standard input is closed")
    parser.add_argument("--log-format", choices=("json", "text"), default="json", help="form of the log on stderr")
    parser.add_argument("--probe-embedder", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status as the description says; 2 for wrong arguments."""
    if arguments.probe_embedder:
        configure_logging(arguments.log_format)
        return _probe()
    # A probe needs none of this.
    from vectorwright.ingest.control_server import Address  # noqa: PLC0415
    from vectorwright.ingest.worker import WorkerOptions, work  # noqa: PLC0415

    if arguments.directory is None:
        print("vectorwright worker: --directory is missing", file=sys.stderr)
        return 2
    address = None
    try:
        if arguments.listen is not None:
            address = Address.parse(arguments.listen)
        elif arguments.unix is not None:
            address = Address(unix=arguments.unix)
    except ValueError as error:
        print(f"vectorwright worker: --listen: {error}", file=sys.stderr)
        return 2
    configure_logging(arguments.log_format)
    options = WorkerOptions(arguments.directory, address, arguments.termination_log, arguments.exit_on_stdin_eof)
    return asyncio.run(work(options))


def _probe() -> int:
    """Answer what a local model is: its spec is on standard input, the answer goes to standard output."""
    from vectorwright.api.v1alpha1.embeddingmodel import EmbeddingModelSpec  # noqa: PLC0415
    from vectorwright.ingest.embedders.probe import answer_probe, error_answer  # noqa: PLC0415

    try:
        spec = EmbeddingModelSpec.model_validate_json(sys.stdin.buffer.read())
    except ValidationError:
        answer = error_answer(Terminal("the spec of the embedding model cannot be read"))
    else:
        answer = asyncio.run(answer_probe(spec))
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return 0
