"""``vectorwright import``: manifests for what a store holds already, that change nothing when they are applied."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

from vectorwright.errors import VectorwrightError

from .connecting import add_cluster_flags, connected, get_store
from .inventory import Holding, holdings, opened, vector_indexes
from .manifests import UnsayableError, index_manifest, object_name

_DESCRIPTION = (
    "Print a VectorIndex for each index that a store holds and no VectorIndex names yet. They only observe: to apply "
    "them changes nothing in the store. To take an index over, change its managementPolicy to Manage."
)
OBSERVED = {"managementPolicy": "Observe", "adoptionPolicy": "IfMatching"}
"""To manage the index takes one edited line; its ownership mark is written then, and nothing else."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "import", help="print manifests for the indexes that a store holds", description=_DESCRIPTION
    )
    parser.add_argument("store", help="name of the VectorStore")
    parser.add_argument("indexes", nargs="*", metavar="INDEX", help="only these; all when left out")
    parser.add_argument("--with-tuning", action="store_true", help="write out the settings that the store has, too")
    add_cluster_flags(parser, "namespace of the VectorStore")
    parser.set_defaults(run=run)


@dataclass(slots=True)
class Printed:
    """Manifests, and what is said in place of others."""

    manifests: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    """Print the manifests. Exit status 1 when the store cannot be read, or lacks an index that was named."""
    try:
        printed, absent = asyncio.run(_import(args))
    except VectorwrightError as error:
        print(f"vectorwright import: {error.message}", file=sys.stderr)
        return 1
    print("".join(f"# {remark}\n" for remark in printed.remarks), end="")
    print(yaml.safe_dump_all(printed.manifests, sort_keys=False, allow_unicode=True), end="")
    for name in absent:
        print(f"vectorwright import: the store holds no index {name!r}", file=sys.stderr)
    return 1 if absent else 0


async def _import(args: argparse.Namespace) -> tuple[Printed, list[str]]:
    async with connected(args) as cluster:
        store = await get_store(cluster, args.store)
        indexes = await vector_indexes(cluster)
        async with opened(cluster, store) as (found, _):
            held = await holdings(store, found, indexes)
    wanted = set(args.indexes)
    chosen = [one for one in held if not wanted or wanted & {one.index.name, *one.aliases}]
    absent = sorted(wanted - {name for one in held for name in (one.index.name, *one.aliases)})
    taken = {index.metadata.name for index in indexes}
    return manifests(chosen, taken, with_tuning=args.with_tuning), absent


def manifests(chosen: Iterable[Holding], taken: set[str], *, with_tuning: bool = False) -> Printed:
    """Manifests of what no resource names, under names that are not ``taken``; remarks on the rest."""
    printed, taken = Printed(), set(taken)
    for holding in chosen:
        where = f"index {holding.index.name!r}"
        if holding.resource is not None:
            printed.remarks.append(f"{where}: VectorIndex {holding.resource.metadata.name} names it already")
            continue
        name = object_name(holding.name, taken)
        try:
            manifest = index_manifest(
                name=name,
                namespace=holding.store.metadata.namespace,
                store=holding.store.metadata.name,
                index_name=holding.name,
                description=holding.index,
                policies=OBSERVED,
                tuning=holding.store.spec.provider if with_tuning else None,
            )
        except UnsayableError as error:
            printed.remarks.append(f"{where}: it cannot be described by a VectorIndex: {error}")
            continue
        if holding.mark is not None:
            printed.remarks.append(f"{where} carries the ownership mark {holding.mark}: it can be observed only")
        taken.add(name)
        printed.manifests.append(manifest)
    return printed
