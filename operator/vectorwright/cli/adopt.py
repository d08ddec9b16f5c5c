"""``vectorwright adopt``: find, by their marks, indexes that a rebuilt cluster left, and take them up again."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass, field
from typing import Any

import yaml

from vectorwright.api.v1alpha1 import EmbeddingModel, VectorIndex
from vectorwright.errors import Conflict, VectorwrightError
from vectorwright.kube import resources
from vectorwright.kube.installation import installation_id
from vectorwright.stores.base import OwnershipMark

from .connecting import Cluster, add_cluster_flags, connected
from .inventory import Holding, Inventory, opened, take_inventory
from .manifests import UnsayableError, index_manifest
from .tables import table

_DESCRIPTION = (
    "Find the indexes whose ownership mark names a VectorIndex of this namespace that is not there, and make that "
    "VectorIndex again. The mark is the proof: an index without one, or of an installation that was not named, is "
    "never taken. A cluster that was rebuilt without the same --installation-id has another id: name the old one "
    "with --from-installation, once its operator is gone, and the marks are rewritten."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "adopt", help="take up again what a rebuilt cluster left in its stores", description=_DESCRIPTION
    )
    parser.add_argument("indexes", nargs="*", metavar="INDEX", help="names in the store, or of the lost VectorIndexes")
    parser.add_argument("--all", action="store_true", help="all that are found")
    parser.add_argument("--store", help="name of a VectorStore; all of the namespace when left out")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and change nothing")
    parser.add_argument(
        "-o", "--output", choices=("table", "yaml"), default="table", help="yaml prints manifests, and makes nothing"
    )
    parser.add_argument(
        "--installation-id", metavar="ID", help="id of this installation, where the operator has one set"
    )
    parser.add_argument(
        "--from-installation", metavar="ID", help="also take over the marks of this installation, which is gone"
    )
    add_cluster_flags(parser, "namespace of the VectorStores and of the VectorIndexes")
    parser.set_defaults(run=run)


@dataclass(slots=True)
class Found:
    """One index to take up, and what becomes of it."""

    holding: Holding
    mark: OwnershipMark
    vectors: int
    exact: bool
    manifest: dict[str, Any] | None = None
    result: str = ""
    failed: bool = False
    remarks: list[str] = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    """Do it. Exit status 1 when something that was meant could not be taken up, 2 for wrong arguments."""
    if bool(args.indexes) is args.all:
        print("vectorwright adopt: name indexes, or give --all", file=sys.stderr)
        return 2
    try:
        found, inventory = asyncio.run(_adopt(args))
    except VectorwrightError as error:
        print(f"vectorwright adopt: {error.message}", file=sys.stderr)
        return 1
    if args.output == "yaml":
        print(yaml.safe_dump_all([one.manifest for one in found if one.manifest], sort_keys=False), end="")
    elif found:
        rows = [
            (
                one.holding.store.metadata.name,
                one.holding.index.name,
                ("" if one.exact else "~") + str(one.vectors),
                str(one.mark),
                one.result,
            )
            for one in found
        ]
        print(table(("STORE", "INDEX", "VECTORS", "MARK", "RESULT"), rows), end="")
    else:
        print("nothing to adopt: every marked index has its VectorIndex")
    for one in found:
        for remark in one.remarks:
            print(f"vectorwright adopt: index {one.holding.index.name}: {remark}", file=sys.stderr)
    for store, message in inventory.unread.items():
        print(f"vectorwright adopt: VectorStore {store} could not be read: {message}", file=sys.stderr)
    named = {name for one in found for name in (one.holding.index.name, *one.holding.aliases, one.mark.name)}
    absent = [name for name in args.indexes if name not in named]
    for name in absent:
        print(f"vectorwright adopt: no lost index {name!r} with a mark of this installation", file=sys.stderr)
    return 1 if absent or inventory.unread or any(one.failed for one in found) else 0


async def _adopt(args: argparse.Namespace) -> tuple[list[Found], Inventory]:
    async with connected(args) as cluster:
        mine = await installation_id(cluster.client, args.installation_id)
        believed = {mine, args.from_installation} - {None}

        def lost(holding: Holding) -> bool:
            mark = holding.mark
            if mark is None or mark.installation not in believed or mark.namespace != cluster.namespace:
                return False
            # Its resource may stand again while the mark is the old installation's: then only that is left to do.
            if holding.resource is not None and (
                mark.installation == mine or holding.resource.metadata.name != mark.name
            ):
                return False
            return args.all or bool({holding.index.name, *holding.aliases, mark.name} & set(args.indexes))

        inventory = await take_inventory(cluster, args.store, wanted=lost)
        models = await _models(cluster)
        found = [
            Found(holding, holding.mark, count, exact)
            for holding, count, exact in inventory.holdings
            if count is not None and holding.mark is not None
        ]
        for one in found:
            _describe(one, cluster.namespace, models)
            if one.failed or args.output == "yaml":
                continue
            if args.dry_run:
                one.result = f"would {_deed(one, mine)}"
                continue
            try:
                await _take_up(cluster, one, mine)
                one.result = f"done: {_deed(one, mine)}"
            except VectorwrightError as error:
                one.result, one.failed = error.message, True
    return found, inventory


async def _models(cluster: Cluster) -> dict[str, str]:
    """Fingerprint → name of the EmbeddingModels of the namespace."""
    bodies = await cluster.client.list(resources.EMBEDDING_MODELS, cluster.namespace)
    models = sorted((EmbeddingModel.model_validate(body) for body in bodies), key=lambda one: one.metadata.name)
    return {one.status.fingerprint: one.metadata.name for one in reversed(models) if one.status.fingerprint}


def _describe(one: Found, namespace: str, models: dict[str, str]) -> None:
    """The manifest of a lost VectorIndex, or why there is none."""
    if one.holding.resource is not None:
        return
    fingerprint = one.holding.index.model_fingerprint
    model = models.get(fingerprint) if fingerprint else None
    if fingerprint and model is None:
        one.remarks.append(
            f"no EmbeddingModel here has the fingerprint {fingerprint} of its vectors: name one in embeddingModelRef "
            "before anything is ingested"
        )
    try:
        one.manifest = index_manifest(
            name=one.mark.name,
            namespace=namespace,
            store=one.holding.store.metadata.name,
            index_name=one.holding.name,
            description=one.holding.index,
            policies={},
            model=model,
        )
    except UnsayableError as error:
        one.result, one.failed = f"cannot be described by a VectorIndex: {error}", True


def _deed(one: Found, mine: str) -> str:
    deeds = [] if one.mark.installation == mine else [f"rewrite its mark for installation {mine}"]
    if one.manifest is not None:
        deeds.append(f"make VectorIndex {one.mark.namespace}/{one.mark.name}")
    return " and ".join(deeds)


async def _take_up(cluster: Cluster, one: Found, mine: str) -> None:
    """The mark first: a VectorIndex whose mark is another's would be a conflict. Raises what the two calls raise."""
    if one.mark.installation != mine:
        async with opened(cluster, one.holding.store) as (store, _):
            now = await store.describe_index(one.holding.index.name)
            if now.mark != one.mark or now.incarnation != one.holding.index.incarnation:
                raise Conflict("it changed its owner in the meantime: look again", reason="OwnedByAnother")
            mark = OwnershipMark(mine, one.mark.namespace, one.mark.name)
            await store.set_mark(now.name, mark, now.model_fingerprint)
    if one.manifest is not None:
        try:
            await cluster.client.create(resources.VECTOR_INDEXES, one.manifest, cluster.namespace)
        except Conflict:
            body = await cluster.client.get(resources.VECTOR_INDEXES, one.mark.name, cluster.namespace)
            named = VectorIndex.model_validate(body)
            raise Conflict(
                f"VectorIndex {named.metadata.name} exists, and names index "
                f"{named.spec.index_name or named.metadata.name} of VectorStore {named.spec.store_ref.name}",
                reason="AlreadyExists",
            ) from None
