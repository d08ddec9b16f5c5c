"""Where a node is on the network: ranges that no other cluster of this machine and no route of it uses.

Each cluster has a block of 1024 addresses: the wire between machine and node, the pods, and the Services.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

BLOCKS = tuple(IPv4Network("10.213.0.0/16").subnets(new_prefix=22))
"""One block a cluster: 64 of them on a machine. Of the private ranges this is one that few networks use."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of one cluster with a node."""

    block: IPv4Network

    @property
    def interface(self) -> str:
        """The machine's end of the wire to the node. It exists once: who makes it owns the block."""
        return f"vwnode{BLOCKS.index(self.block)}"

    @property
    def wire(self) -> IPv4Network:
        return IPv4Network((int(self.block.network_address), 30))

    @property
    def machine(self) -> IPv4Address:
        """This machine, as the node and its pods see it; the API server listens there."""
        return self.wire[1]

    @property
    def node(self) -> IPv4Address:
        """The node; the kubelet and the DNS server listen there."""
        return self.wire[2]

    @property
    def pods(self) -> IPv4Network:
        return IPv4Network((int(self.block.network_address) + 256, 24))

    @property
    def services(self) -> IPv4Network:
        return IPv4Network((int(self.block.network_address) + 512, 24))


def free_blocks(routes: Iterable[str]) -> list[Addresses]:
    """The blocks that none of the machine's ``routes`` leads to, each given as ``ip route`` names its destination.

    The default route counts for nothing: it leads everywhere.
    """
    taken = [IPv4Network(route, strict=False) for route in routes if route != "default"]
    return [
        Addresses(block)
        for block in BLOCKS
        if not any(block.overlaps(network) for network in taken if network.prefixlen > 0)
    ]
