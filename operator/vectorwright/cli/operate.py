"""``vectorwright operator``: run the operator."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import Any

from vectorwright import settings as operator_settings
from vectorwright.errors import Terminal
from vectorwright.kube.connection import KubeConnection, load_connection
from vectorwright.observability.logs import configure_logging
from vectorwright.settings import Settings

_DESCRIPTION = (
    "Run the operator. Each flag can also be given as the variable in brackets; flags win, and repeatable ones take "
    "several values separated by commas there."
)


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("operator", help="run the operator", description=_DESCRIPTION, allow_abbrev=False)
    operator_settings.add_arguments(parser)
    parser.add_argument("--child", type=int, metavar="PID", help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status: 0 after SIGTERM, 1 when the operator cannot be kept running, 2 for a wrong setting."""
    try:
        settings = operator_settings.from_arguments(arguments, os.environ)
        connection = load_connection(settings.kubeconfig, settings.context)
        connection.ssl_context()
    except Terminal as error:
        print(f"vectorwright operator: {error.message}", file=sys.stderr)
        return 2
    configure_logging("json" if settings.log_format == "json" else "text", settings.log_level)
    if arguments.child is not None:
        return _child(settings, connection, arguments.child)
    return _parent(settings, connection, arguments.command_line)


def _parent(settings: Settings, connection: KubeConnection, command_line: list[str]) -> int:
    # Neither process loads what only the other needs.
    from .supervision.child import child_command  # noqa: PLC0415
    from .supervision.parent import Parent  # noqa: PLC0415

    async def lead() -> int:
        return await Parent(settings, connection, child_command(command_line)).run()

    try:
        return asyncio.run(lead())
    except Terminal as error:
        print(f"vectorwright operator: {error.message}", file=sys.stderr)
        return 1


def _child(settings: Settings, connection: KubeConnection, parent: int) -> int:
    from .supervision.tether import NoParentError, check_parent  # noqa: PLC0415

    try:
        check_parent(parent)
        from vectorwright.controllers import runtime  # noqa: PLC0415

        from .supervision.work import work  # noqa: PLC0415

        return work(settings, connection, runtime.run)
    except NoParentError as error:
        print(f"vectorwright operator: {error}", file=sys.stderr)
        return 1
