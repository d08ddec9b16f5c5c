"""Which addresses a source may reach: public ones, and those that the installer allows.

A source names hosts that somebody else wrote, and its worker stands inside the cluster: without a check it would read
the cloud's metadata service or a neighbour's database for whoever can create a job. So every name is resolved here,
**every** address it resolves to is checked, and the caller connects to the checked address, never to the name again (a
second look-up could answer differently). Redirects are new addresses and are checked the same way.

Refused: what the IANA registries of special-purpose addresses call private, shared, loopback, link-local,
documentation, benchmarking, reserved, multicast or unspecified, and everything of IPv6 outside global unicast. Where an
IPv6 address holds an IPv4 one (mapped, NAT64's well-known prefix), that one is judged.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import SplitResult, urlsplit

from vectorwright.errors import Retryable, Terminal

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Looks a host up: (host, port) → addresses as text. Raises ``socket.gaierror``."""

RESOLVE_TIMEOUT = 10.0
"""Seconds: twice the resolver's own default of 5 s for the first server."""

DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo, ORCHID and other protocol assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4 embeds any IPv4 address
        "3fff::/20",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def shown_url(url: str) -> str:
    """An address as it may be shown: without user information, query and fragment, which may hold secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    return SplitResult(parts.scheme, host, parts.path, "", "").geturl()


async def system_resolver(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver knows, without repetition, in its order of preference."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def _embedded_v4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _REFUSED_V6)


class AddressPolicy:
    """Decides which addresses may be reached.

    ``allow_networks`` are CIDRs that the installer allows although they are not public. Raises Terminal
    ``InvalidSpec`` where one is not a CIDR.
    """

    def __init__(self, allow_networks: Sequence[str] = (), *, resolver: Resolver | None = None) -> None:
        self._resolver = resolver
        try:
            self._allowed = tuple(ipaddress.ip_network(text) for text in allow_networks)
        except ValueError as error:
            raise Terminal(
                f"--allow-networks holds something that is not a network such as 10.0.0.0/8 or fd00::/8: {error}"
            ) from None

    def check(self, host: str, address: str) -> str:
        """Return ``address`` in the form to connect to, or raise Terminal ``AddressRefused``.

        ``host`` is only for the message.
        """
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            raise Terminal(
                f"host {host} resolves to {address!r}, which is not an IP address", reason="AddressRefused"
            ) from None
        embedded = _embedded_v4(parsed) if isinstance(parsed, ipaddress.IPv6Address) else None
        judged = embedded or parsed
        if _is_public(judged) or self._is_allowed(parsed) or self._is_allowed(judged):
            return str(parsed)
        named = f"host {host} is the address {parsed}" if host == str(parsed) else f"host {host} resolves to {parsed}"
        raise Terminal(
            f"{named}, which is not a public address; sources may not reach it. Whoever installed Vectorwright can "
            f"allow it with --allow-networks={judged}/{judged.max_prefixlen} or a wider network",
            reason="AddressRefused",
        )

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of ``host``, all of them checked, in the order to try.

        Raises Terminal ``AddressRefused`` when one of them may not be reached, Terminal ``HostNotFound`` when the name
        does not exist, Retryable ``NameResolutionFailed`` when the resolver does not answer.
        """
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT):
                found = await (self._resolver or system_resolver)(host, port)
        except TimeoutError:
            raise Retryable(
                f"looking up host {host} took more than {RESOLVE_TIMEOUT:.0f} s", reason="NameResolutionFailed"
            ) from None
        except socket.gaierror as error:
            if error.errno in {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}:
                raise Terminal(
                    f"host {host} does not exist: check the address for a typing error", reason="HostNotFound"
                ) from None
            raise Retryable(f"looking up host {host} failed", reason="NameResolutionFailed") from None
        except UnicodeError:
            raise Terminal(f"{host!r} is not the name of a host", reason="HostNotFound") from None
        if not found:
            raise Terminal(f"host {host} has no address", reason="HostNotFound")
        return [self.check(host, address) for address in found]

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self._allowed)
