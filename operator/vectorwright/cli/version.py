"""``vectorwright version``: what is installed."""

from __future__ import annotations

import argparse
from typing import Any

from vectorwright import __version__


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser("version", help="print the version")
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print it."""
    print(f"vectorwright {__version__}")
    return 0
