"""``vectorwright orphans``: what the stores hold and nothing owns."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

import orjson

from vectorwright.errors import NotFound, VectorwrightError
from vectorwright.kube import resources
from vectorwright.kube.installation import installation_id

from .connecting import Cluster, add_cluster_flags, connected
from .inventory import Holding, Inventory, take_inventory
from .tables import table

_DESCRIPTION = (
    "List the indexes that no VectorIndex names: nobody's, and those whose VectorIndex is gone. Nothing is changed. "
    "What carries the mark of another installation is somebody's, and left out unless --foreign asks for it."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "orphans", help="list what the stores hold and nothing owns", description=_DESCRIPTION
    )
    parser.add_argument("--store", help="name of a VectorStore; all of the namespace when left out")
    parser.add_argument("--foreign", action="store_true", help="also what other installations own")
    parser.add_argument(
        "--installation-id", metavar="ID", help="id of this installation, where the operator has one set"
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="(default: %(default)s)")
    add_cluster_flags(parser, "namespace of the VectorStores")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them. Exit status 1 when a store cannot be read: then the list is not all."""
    try:
        inventory, why = asyncio.run(_orphans(args))
    except VectorwrightError as error:
        print(f"vectorwright orphans: {error.message}", file=sys.stderr)
        return 1
    rows = [_as_json(holding, count, exact, why[holding.index.name]) for holding, count, exact in inventory.holdings]
    if args.output == "json":
        print(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
    elif rows:
        cells = [
            (
                row["store"],
                row["index"],
                ("" if row["exact"] else "~") + str(row["vectors"]),
                row["mark"] or "-",
                row["why"],
            )
            for row in rows
        ]
        print(table(("STORE", "INDEX", "VECTORS", "MARK", "WHY"), cells), end="")
    else:
        print("no orphans")
    for store, message in inventory.unread.items():
        print(f"vectorwright orphans: VectorStore {store} could not be read: {message}", file=sys.stderr)
    return 1 if inventory.unread else 0


def _as_json(holding: Holding, count: int | None, exact: bool, why: str) -> dict[str, Any]:
    return {
        "store": holding.store.metadata.name,
        "index": holding.index.name,
        "aliases": list(holding.aliases),
        "vectors": count,
        "exact": exact,
        "mark": str(holding.mark) if holding.mark else None,
        "why": why,
    }


async def _orphans(args: argparse.Namespace) -> tuple[Inventory, dict[str, str]]:
    """The orphans, and why each is one."""
    async with connected(args) as cluster:
        mine = await installation_id(cluster.client, args.installation_id)
        inventory = await take_inventory(cluster, args.store, wanted=lambda holding: holding.resource is None)
        why: dict[str, str] = {}
        kept = []
        for holding, count, exact in inventory.holdings:
            reason = await _reason(cluster, holding, mine, foreign=args.foreign)
            if reason is not None and count is not None:
                why[holding.index.name] = reason
                kept.append((holding, count, exact))
    return Inventory(tuple(kept), inventory.unread), why


async def _reason(cluster: Cluster, holding: Holding, mine: str, *, foreign: bool) -> str | None:
    """Why an index that no VectorIndex beside its store names is an orphan; None where it is not."""
    mark = holding.mark
    if mark is None:
        return "nobody's: it carries no ownership mark"
    if mark.installation != mine:
        return f"of installation {mark.installation}" if foreign else None
    try:
        await cluster.client.get(resources.VECTOR_INDEXES, mark.name, mark.namespace)
    except NotFound:
        return f"VectorIndex {mark.namespace}/{mark.name} is gone"
    if mark.namespace == cluster.namespace:
        return f"VectorIndex {mark.namespace}/{mark.name} names another index"
    return None
