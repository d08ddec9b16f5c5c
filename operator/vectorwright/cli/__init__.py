"""The command line, one file a command. Only the module of the command that was asked for is imported."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vectorwright import __version__


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command lives. Its module has ``add_parser(subparsers)``, which sets ``run`` as a default."""

    module: str
    help: str


COMMANDS: Mapping[str, Command] = {
    "operator": Command("vectorwright.cli.operate", "run the operator"),
    "worker": Command("vectorwright.cli.worker", "run one step of an ingestion run"),
    "store-server": Command("vectorwright.cli.store_server", "serve the stores that live in files or memory"),
    "crds": Command("vectorwright.cli.crds", "print or check the custom resource definitions"),
    "export": Command("vectorwright.cli.export", "write the records of an index to a parquet file"),
    "import-records": Command("vectorwright.cli.import_records", "write the records of a parquet file to an index"),
    "rotate": Command("vectorwright.cli.rotate", "have a key replaced now"),
    "search": Command("vectorwright.cli.search", "search an index"),
    "import": Command("vectorwright.cli.import_indexes", "print manifests for the indexes that a store holds"),
    "adopt": Command("vectorwright.cli.adopt", "take up again what a rebuilt cluster left in its stores"),
    "orphans": Command("vectorwright.cli.orphans", "list what the stores hold and nothing owns"),
    "version": Command("vectorwright.cli.version", "print the version"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; 2 for a wrong command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = COMMANDS.get(given[0]) if given else None
    if command is None:
        return _overview(given)
    parser = argparse.ArgumentParser(prog="vectorwright")
    module = importlib.import_module(command.module)
    module.add_parser(parser.add_subparsers(required=True))
    parsed = parser.parse_args(given)
    parsed.command_line = given[1:]
    status: int = parsed.run(parsed)
    return status


def _overview(given: Sequence[str]) -> int:
    """What there is to call: asked for on stdout, after a wrong call on stderr."""
    width = max(map(len, COMMANDS)) + 2
    lines = [
        "usage: vectorwright COMMAND [flags]",
        "",
        "A Kubernetes operator for vector indexes.",
        "",
        *(f"  {name:<{width}}{command.help}" for name, command in COMMANDS.items()),
        "",
        "'vectorwright COMMAND --help' tells its flags.",
    ]
    match given:
        case ["--version"]:
            print(f"vectorwright {__version__}")
            return 0
        case ["-h" | "--help" | "help"]:
            print("\n".join(lines))
            return 0
        case []:
            print("\n".join(lines), file=sys.stderr)
        case [word, *_]:
            print(f"vectorwright: no command {word!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
    return 2
