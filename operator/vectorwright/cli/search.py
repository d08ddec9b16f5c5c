"""``vectorwright search``: ask an index a question, through the resources that describe it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import textwrap
from typing import Any

import orjson

from vectorwright.api.v1alpha1 import EmbeddingModel, VectorIndex
from vectorwright.errors import Terminal, VectorwrightError
from vectorwright.ingest.embedders.registry import open_embedder
from vectorwright.kube import resources
from vectorwright.kube.client import KubeClient
from vectorwright.reconcile.connections import read_credentials, read_tls
from vectorwright.stores.base import Match, Vectors
from vectorwright.stores.filters import And, Eq, Filter

from .connecting import Reader, add_cluster_flags, connected, get_store, open_described, reader_for

SNIPPET = 240
"""Characters of a match's text that are shown."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("search", help="search an index")
    parser.add_argument("index", help="name of the VectorIndex")
    parser.add_argument("question", help="what to look for")
    parser.add_argument("-k", "--top-k", type=int, default=5, help="number of matches (default: %(default)s)")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="only records with this metadata; repeatable",
    )
    parser.add_argument(
        "--index-namespace", default="", metavar="NAME", help="namespace (tenant, partition) within the index to search"
    )
    parser.add_argument("--output", choices=("text", "json"), default="text", help="form of the answer")
    add_cluster_flags(parser, "namespace of the VectorIndex")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command. Exit code 1 when the search fails, 2 for wrong arguments."""
    # Before a library sets the whole process to log each of its requests: the local model's does so when imported.
    logging.basicConfig(level=logging.WARNING, format="vectorwright search: %(message)s")
    try:
        matches = asyncio.run(_search(args))
    except VectorwrightError as error:
        print(f"vectorwright search: {error.message}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"vectorwright search: {error}", file=sys.stderr)
        return 2
    if args.output == "json":
        print(orjson.dumps([_as_json(match) for match in matches], option=orjson.OPT_INDENT_2).decode())
    else:
        print("\n".join(_as_text(rank, match) for rank, match in enumerate(matches, 1)) or "no match")
    return 0


def _where(terms: list[str]) -> Filter | None:
    parts = []
    for term in terms:
        name, separator, value = term.partition("=")
        if not separator or not name:
            raise ValueError(f"--where wants FIELD=VALUE, not {term!r}")
        parts.append(Eq(name, _scalar(value)))
    return And(tuple(parts)) if parts else None


def _scalar(text: str) -> str | int | float | bool:
    """A JSON number or boolean as such, anything else as text."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, bool | int | float) else text


async def _search(args: argparse.Namespace) -> list[Match]:
    where = _where(args.where)
    async with connected(args) as cluster:
        client, namespace = cluster.client, cluster.namespace
        index = VectorIndex.model_validate(await client.get(resources.VECTOR_INDEXES, args.index, namespace))
        name = index.status.physical_name
        if name is None:
            raise Terminal(f"VectorIndex {args.index} was not reconciled yet", reason="IndexNotReady")
        store = await get_store(cluster, index.spec.store_ref.name)
        vector = await _embed(client, reader_for(client, store), index, args.question)
        async with await open_described(client, store, data=True, namespace=args.index_namespace) as opened:
            return await opened.query(name, vector, args.top_k, where)


async def _embed(client: KubeClient, reader: Reader, index: VectorIndex, question: str) -> Vectors:
    """The question as a vector of the index's own model."""
    reference, namespace = index.spec.embedding_model_ref, index.metadata.namespace
    if reference is None:
        raise Terminal(
            f"VectorIndex {index.metadata.name} has no embedding model: a question cannot be turned into a vector",
            reason="NoEmbeddingModel",
        )
    model = EmbeddingModel.model_validate(await client.get(resources.EMBEDDING_MODELS, reference.name, namespace))
    if index.status.model_fingerprint not in (None, model.status.fingerprint):
        raise Terminal(
            f"VectorIndex {index.metadata.name} holds vectors of another model than EmbeddingModel {reference.name}",
            reason="ModelMismatch",
        )
    credentials = await read_credentials(reader, namespace, model.spec.credentials, [])
    tls = await read_tls(reader, namespace, model.spec.tls, [])
    embedder = open_embedder(model.spec, token=credentials.token or credentials.password, ca=tls.ca)
    try:
        vector: Vectors = (await embedder.embed([question])).vectors[0]
        return vector
    finally:
        await embedder.close()


def _place(match: Match) -> str:
    """Where the match is: file and lines, or the document."""
    metadata = match.record.metadata
    place = str(metadata.get("path") or metadata.get("vw_doc") or match.record.id)
    if first := metadata.get("start_line"):
        place += f":{first}-{metadata.get('end_line', first)}"
    return place


def _as_text(rank: int, match: Match) -> str:
    metadata = match.record.metadata
    commit = str(metadata.get("commit", ""))[:10]
    head = f"{rank}. {match.score:.4f}  {_place(match)}" + (f"  commit {commit}" if commit else "")
    text = " ".join((match.record.text or "").split())
    return f"{head}\n{textwrap.indent(textwrap.shorten(text, SNIPPET, placeholder=' …'), '   ')}"


def _as_json(match: Match) -> dict[str, Any]:
    return {
        "id": match.record.id,
        "score": match.score,
        "text": match.record.text,
        "metadata": match.record.metadata,
    }
