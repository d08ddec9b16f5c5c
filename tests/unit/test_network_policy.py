"""Which addresses sources may reach.

- every kind of address that is not public is refused, in every way of writing it
- names are judged by all the addresses they resolve to
- the installer's networks are allowed, and only those
- messages say host, address and the flag; a name that does not exist is told from a resolver that is down
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest import network
from vectorwright.ingest.network import AddressPolicy, Resolver, shown_url

REFUSED = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.170",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.1.2.3",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "5f00::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def answering(*addresses: str) -> Resolver:
    async def resolve(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return resolve


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    with pytest.raises(Terminal) as refused:
        AddressPolicy().check("docs.example", address)
    assert refused.value.reason == "AddressRefused"


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert AddressPolicy().check("docs.example", address)


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("127.0.0.0/8", "127.0.0.1"),
        ("127.0.0.0/8", "::ffff:127.0.0.1"),
        ("10.0.0.0/8", "64:ff9b::a00:1"),
        ("fd00::/8", "fd00::7"),
        ("::1/128", "::1"),
    ],
)
def test_the_installers_networks_are_allowed(allowed: str, address: str) -> None:
    assert AddressPolicy([allowed]).check("docs.example", address)


def test_another_network_stays_refused() -> None:
    with pytest.raises(Terminal):
        AddressPolicy(["127.0.0.0/8"]).check("docs.example", "169.254.169.254")


def test_the_message_says_host_address_and_flag() -> None:
    with pytest.raises(Terminal) as refused:
        AddressPolicy().check("metadata.example", "169.254.169.254")
    assert refused.value.message == (
        "host metadata.example resolves to 169.254.169.254, which is not a public address; sources may not reach it. "
        "Whoever installed Vectorwright can allow it with --allow-networks=169.254.169.254/32 or a wider network"
    )


def test_something_that_is_no_network_is_refused_at_once() -> None:
    with pytest.raises(Terminal, match="--allow-networks"):
        AddressPolicy(["10.0.0.0/33"])


async def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    policy = AddressPolicy(resolver=answering("8.8.8.8", "10.0.0.5"))
    with pytest.raises(Terminal) as refused:
        await policy.resolve("two-faced.example", 443)
    assert refused.value.reason == "AddressRefused"
    assert "10.0.0.5" in refused.value.message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost", "::1"])
async def test_every_way_of_writing_loopback_is_refused(host: str) -> None:
    with pytest.raises(Terminal) as refused:
        await AddressPolicy().resolve(host, 80)
    assert refused.value.reason == "AddressRefused"


async def test_all_addresses_come_back_in_order() -> None:
    policy = AddressPolicy(resolver=answering("2606:4700::1111", "1.1.1.1"))
    assert await policy.resolve("docs.example", 443) == ["2606:4700::1111", "1.1.1.1"]


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (socket.EAI_NONAME, Terminal, "HostNotFound"),
        (socket.EAI_AGAIN, Retryable, "NameResolutionFailed"),
        (socket.EAI_FAIL, Retryable, "NameResolutionFailed"),
    ],
)
async def test_a_missing_name_is_told_from_a_resolver_that_is_down(code: int, kind: type, reason: str) -> None:
    async def fail(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(code, "no")

    with pytest.raises((Terminal, Retryable)) as failed:
        await AddressPolicy(resolver=fail).resolve("nowhere.example", 443)
    assert type(failed.value) is kind
    assert failed.value.reason == reason


async def test_a_resolver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "RESOLVE_TIMEOUT", 0.05)

    async def hang(_host: str, _port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    with pytest.raises(Retryable) as failed:
        await AddressPolicy(resolver=hang).resolve("slow.example", 443)
    assert failed.value.reason == "NameResolutionFailed"


async def test_a_name_that_cannot_be_encoded_does_not_exist() -> None:
    with pytest.raises(Terminal) as failed:
        await AddressPolicy().resolve("a" * 70 + ".example", 80)
    assert failed.value.reason == "HostNotFound"


def test_addresses_are_shown_without_what_may_be_secret() -> None:
    shown = shown_url("https://user:pass@docs.example:8443/a/b?token=s3cret#part")
    assert shown == "https://docs.example:8443/a/b"
