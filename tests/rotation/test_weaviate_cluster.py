"""Users of Weaviate in a cluster of two nodes: what was made or revoked at one node is known at the other in time.

- a key that was made through one node is accepted by the other; a revoked one is refused by both
- both tell of the same users, whichever was asked to make them
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from deploy.devcluster.gobuild import ensure_built
from deploy.devcluster.processes import free_port, wait_for
from deploy.servers.go_programs import weaviate_program
from tests.rotation.cases import key_request, owner
from tests.rotation.steps import becomes
from tests.support.weaviate import API_KEY, WeaviateServer

from vectorwright.rotation.base import Assignment, IssuedKey, LiveKey
from vectorwright.rotation.weaviate_users import WeaviateUsers, open_issuer
from vectorwright.stores.registry import Connection, StoreCredentials

pytestmark = pytest.mark.server
SECONDS = 5.0
"""Within which both nodes must agree; 0.1 to 0.8 s were seen on a busy machine."""


def four_ports() -> list[int]:
    """Free ports in a row: nodes on one machine find each other's by counting on."""
    while True:
        first = free_port()
        with ExitStack() as held:
            try:
                for port in range(first, first + 4):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except (OSError, OverflowError):
                continue
        return list(range(first, first + 4))


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Node(WeaviateServer):
    """One of several nodes."""

    joined: dict[str, str]

    def take(self, ports: list[int]) -> None:
        self._inner_ports = ports

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self.joined}


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """Two nodes of one cluster."""
    base = Path(tempfile.mkdtemp(prefix="vectorwright-weaviate-"))
    program = ensure_built(weaviate_program(), lambda _: None)
    ports = [four_ports(), four_ports()]
    assert not set(ports[0]) & set(ports[1])
    raft = ",".join(f"node{number}:{row[2]}" for number, row in enumerate(ports, 1))
    made = []
    for number, row in enumerate(ports, 1):
        node = Node(program, base / f"node{number}", free_port(), api_key=API_KEY, makes_users=True, remove=base)
        node.take(row)
        node.joined = {
            "CLUSTER_IN_LOCALHOST": "true",
            "CLUSTER_HOSTNAME": f"node{number}",
            "RAFT_JOIN": raft,
            "RAFT_BOOTSTRAP_EXPECT": "2",
            "RAFT_ENABLE_ONE_NODE_RECOVERY": "false",
            **({"CLUSTER_JOIN": f"127.0.0.1:{ports[0][0]}"} if number > 1 else {}),
        }
        made.append(node)
    try:
        with ThreadPoolExecutor(2) as starting:  # neither answers before they have found each other
            first = starting.submit(made[0].start)
            # The second asks for the first once, when it starts.
            wait_for(lambda: listens(ports[0][0]), what="the first node", timeout=60)
            made[1].start()
            first.result()
        yield made
    finally:
        for node in made:
            node.stop()
        shutil.rmtree(base)


@asynccontextmanager
async def at(node: Node) -> AsyncIterator[WeaviateUsers]:
    connection = Connection("weaviate", {"url": node.url}, StoreCredentials(token=API_KEY), timeout=10)
    issuer = open_issuer(Assignment(connection, {"user": "docs", "roles": ["viewer"]}, owner("search")))
    yield issuer
    await issuer.close()


async def agree(issuers: Sequence[WeaviateUsers], wanted: bool, key: IssuedKey) -> None:
    """Both nodes accept a key, or refuse it."""
    for issuer in issuers:
        await becomes(wanted, lambda: issuer.accepts(key.material), SECONDS)  # noqa: B023 - awaited here


async def ids(issuer: WeaviateUsers) -> list[str]:
    return [key.id for key in await issuer.live()]


async def test_both_nodes_know_of_keys_in_time(nodes: list[Node]) -> None:
    async with at(nodes[0]) as first, at(nodes[1]) as second:
        both = (first, second)
        for issuer in both:
            await issuer.check()
        current = await first.create(key_request(first, 1))
        await agree(both, True, current)
        for revision in range(2, 7):
            # They take turns in making, too: a user that one deleted is made anew by the other.
            makes, other = both if revision % 3 else both[::-1]
            made = await makes.create(key_request(makes, revision, current.material))
            await agree(both, True, made)
            await other.revoke(LiveKey(current.id, current.id))
            await agree(both, False, current)
            await agree(both, True, made)
            for issuer in both:
                await becomes([made.id], lambda: ids(issuer), SECONDS)  # noqa: B023 - awaited here
            current = made
