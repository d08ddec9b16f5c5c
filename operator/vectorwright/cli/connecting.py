"""What commands for people share: the cluster that they mean, and the stores that its resources describe."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vectorwright.api.v1alpha1 import VectorStore
from vectorwright.errors import NotFound, Terminal
from vectorwright.kube import resources
from vectorwright.kube.client import KubeClient
from vectorwright.kube.connection import load_connection
from vectorwright.kube.resources import ResourceType
from vectorwright.kube.watched import data_of
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.connections import store_connection
from vectorwright.stores.base import Store
from vectorwright.stores.registry import open_store


def add_cluster_flags(parser: argparse.ArgumentParser, namespace_help: str) -> None:
    """Add ``-n``, ``--kubeconfig`` and ``--context``."""
    parser.add_argument("-n", "--namespace", help=f"{namespace_help}; the context's when left out")
    parser.add_argument("--kubeconfig", type=Path, help="kubeconfig file; $KUBECONFIG when left out")
    parser.add_argument("--context", help="context of the kubeconfig")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, and the namespace that is meant in it."""

    client: KubeClient
    namespace: str


@asynccontextmanager
async def connected(args: argparse.Namespace) -> AsyncIterator[Cluster]:
    """The cluster that the flags name. Raises Terminal, Retryable."""
    kubeconfig: Path | None = args.kubeconfig
    if kubeconfig is None and args.context is None and (named := os.environ.get("KUBECONFIG")):
        kubeconfig = Path(named.split(os.pathsep)[0])
    connection = load_connection(kubeconfig, args.context)
    async with KubeClient(connection) as client:
        yield Cluster(client, args.namespace or connection.namespace)


class Objects:
    """Secrets or ConfigMaps, read one by one."""

    def __init__(self, client: KubeClient, resource: ResourceType) -> None:
        self._client, self._resource = client, resource

    async def get(self, namespace: str, name: str) -> dict[str, bytes] | None:
        """The data of one object; None when it does not exist."""
        try:
            body = await self._client.get(self._resource, name, namespace)
        except NotFound:
            return None
        return data_of(body, self._resource)


class ListeningSocket:
    """The socket of a store beside the operator, as its VectorStore's status tells it."""

    def __init__(self, endpoint: str | None) -> None:
        self._endpoint = endpoint or ""

    async def socket(self, path: str | None) -> Path:
        """The socket. Raises Terminal when the store is not one beside the operator."""
        if not self._endpoint.startswith("unix://"):
            raise Terminal("the VectorStore does not tell where it listens: is it Ready?", reason="StoreNotReady")
        return Path(self._endpoint.removeprefix("unix://"))


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads credentials by single requests."""

    secrets: Objects
    config_maps: Objects
    local_stores: ListeningSocket | None


def reader_for(client: KubeClient, store: VectorStore) -> Reader:
    """Who reads what a VectorStore refers to."""
    return Reader(
        Objects(client, resources.SECRETS),
        Objects(client, resources.CONFIG_MAPS),
        ListeningSocket(store.status.endpoint),
    )


async def get_store(cluster: Cluster, name: str) -> VectorStore:
    """A VectorStore by its name. Raises NotFound, Terminal, Retryable."""
    return VectorStore.model_validate(await cluster.client.get(resources.VECTOR_STORES, name, cluster.namespace))


async def open_described(client: KubeClient, store: VectorStore, *, data: bool, namespace: str = "") -> Store:
    """The store behind a VectorStore, with its control credentials, or (``data``) with those for records.

    ``namespace`` is one within an index of the store. Raises Terminal, Retryable.
    """
    key = Key("VectorStore", store.metadata.namespace, store.metadata.name)
    connection = await store_connection(reader_for(client, store), key, store.spec, [], data=data)
    return open_store(replace(connection, namespace=namespace))
