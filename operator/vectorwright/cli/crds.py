"""``vectorwright crds``: write the CustomResourceDefinitions, or check that committed ones are those of the models."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vectorwright.api import crdgen


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("crds", help="print, write or check the CustomResourceDefinitions")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="write one file a kind there, instead of printing all")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when DIR differs from the models")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command. Exit code 1 when ``--check`` finds a difference, 2 for wrong arguments."""
    wanted = crdgen.files()
    directory: Path | None = args.dir
    if directory is None:
        if args.check:
            print("vectorwright crds: --check needs --dir DIR", file=sys.stderr)
            return 2
        print("---\n".join(wanted.values()), end="")
        return 0
    present = {path.name: path.read_text() for path in directory.glob("*.yaml")} if directory.is_dir() else {}
    present.pop("kustomization.yaml", None)
    different = sorted(name for name in {*wanted, *present} if wanted.get(name) != present.get(name))
    if args.check:
        for name in different:
            print(f"{directory / name} differs from the models: run `make crds` and commit it", file=sys.stderr)
        return 1 if different else 0
    directory.mkdir(parents=True, exist_ok=True)
    for name in different:
        if name in wanted:
            (directory / name).write_text(wanted[name])
        else:
            (directory / name).unlink()
        print(f"{'wrote' if name in wanted else 'removed'} {directory / name}")
    return 0
