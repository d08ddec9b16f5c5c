"""From a VectorStore and its Secrets to a connection.

What is checked: which keys of a Secret are read; each way in which a Secret, a ConfigMap or a certificate can be wrong,
in words that name it and never a value; control and data credentials; stores beside the operator; digests that change
with everything and tell nothing; who is woken by a changed Secret.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.reconciling import NAMESPACE, FakeData

from vectorwright.api.v1alpha1 import VectorStoreSpec
from vectorwright.api.v1alpha1.common import Credentials, Tls
from vectorwright.errors import Terminal
from vectorwright.observability.logs import redact
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.connections import (
    Reference,
    connection_digest,
    read_credentials,
    read_tls,
    remember_uses,
    store_connection,
)
from vectorwright.reconcile.context import Context
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings

KEY = Key("VectorStore", NAMESPACE, "vectors")


@dataclass
class Sockets:
    """Where stores beside the operator would listen."""

    asked: list[str | None] = field(default_factory=list)

    async def socket(self, path: str | None = None) -> Path:
        self.asked.append(path)
        return Path("/run/stores.sock")


@dataclass
class Reader:
    """Whoever can read credentials."""

    secrets: FakeData = field(default_factory=lambda: FakeData("Secret"))
    config_maps: FakeData = field(default_factory=lambda: FakeData("ConfigMap"))
    local_stores: Any = None


@pytest.fixture
def reader() -> Reader:
    return Reader()


async def credentials(reader: Reader, **keys: str) -> StoreCredentials:
    return await read_credentials(reader, NAMESPACE, Credentials(name="key", **keys), [])


async def refused(reader: Reader, **keys: str) -> tuple[str, str]:
    with pytest.raises(Terminal) as caught:
        await credentials(reader, **keys)
    return caught.value.reason, caught.value.message


async def test_the_usual_keys_are_read_where_they_are(reader: Reader) -> None:
    reader.secrets.set(NAMESPACE, "key", token="a-token", unrelated="x")
    assert await credentials(reader) == StoreCredentials(token="a-token")
    reader.secrets.set(NAMESPACE, "key", username="ada", password="a-password")
    assert await credentials(reader) == StoreCredentials(username="ada", password="a-password")
    assert await read_credentials(reader, NAMESPACE, None, []) == StoreCredentials()


async def test_a_key_that_is_named_is_read_and_must_be_there(reader: Reader) -> None:
    reader.secrets.set(NAMESPACE, "key", token="wrong-one", apiKey="right-one")
    assert (await credentials(reader, token_key="apiKey")).token == "right-one"
    assert await refused(reader, password_key="pass") == (
        "SecretKeyMissing",
        "Secret team-a/key has no key 'pass' (it has: apiKey, token)",
    )


async def test_what_kubectl_adds_at_the_end_of_a_file_is_no_part_of_a_token(reader: Reader) -> None:
    reader.secrets.set(NAMESPACE, "key", token="  a-token\n")
    assert (await credentials(reader)).token == "a-token"


async def test_each_way_in_which_a_secret_is_wrong_is_named(reader: Reader) -> None:
    assert await refused(reader) == ("SecretNotFound", "Secret team-a/key does not exist: create it")
    reader.secrets.set(NAMESPACE, "key")
    assert (await refused(reader))[1].startswith(
        "Secret team-a/key has none of the keys token, username, password (it has: none)"
    )
    reader.secrets.set(NAMESPACE, "key", token=" \n")
    assert await refused(reader) == ("SecretKeyInvalid", "Secret team-a/key, key 'token' is empty")
    reader.secrets.data[NAMESPACE, "key"] = {"token": b"\xff\xfe"}
    assert await refused(reader) == ("SecretKeyInvalid", "Secret team-a/key, key 'token': not UTF-8 text")


async def test_what_was_read_is_kept_out_of_logs(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    reader.secrets.set(NAMESPACE, "key", token="tok-0123456789abcdef", username="ada", password="pwd-0123456789abcdef")
    found = await credentials(reader)
    assert redact("the header was tok-0123456789abcdef") == redact("the header was pwd-0123456789abcdef")
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("x").info("%r", found)
    assert "0123456789abcdef" not in caplog.text


async def test_a_certificate_authority_comes_from_a_secret_or_a_config_map(reader: Reader) -> None:
    reader.secrets.set(NAMESPACE, "ca", ca__crt="FROM SECRET")
    reader.config_maps.set(NAMESPACE, "ca", bundle="FROM MAP")
    used: list[Reference] = []
    secret = Tls.model_validate({"caSecret": {"name": "ca"}, "serverName": "x", "insecureSkipVerify": False})
    assert await read_tls(reader, NAMESPACE, secret, used) == TlsSettings(
        "FROM SECRET", "x", insecure_skip_verify=False
    )
    other = Tls.model_validate({"caConfigMap": {"name": "ca", "key": "bundle"}})
    assert (await read_tls(reader, NAMESPACE, other, used)).ca == "FROM MAP"
    assert used == [Reference("Secret", NAMESPACE, "ca"), Reference("ConfigMap", NAMESPACE, "ca")]
    missing = Tls.model_validate({"caConfigMap": {"name": "none"}})
    with pytest.raises(Terminal, match="ConfigMap team-a/none does not exist: create it"):
        await read_tls(reader, NAMESPACE, missing, used)
    assert used[-1] == Reference("ConfigMap", NAMESPACE, "none"), "its arrival wakes who waits for it"


def spec(**changes: Any) -> VectorStoreSpec:
    return VectorStoreSpec.model_validate({"chroma": {"url": "http://chroma:8000"}, **changes})


async def test_control_and_data_credentials_go_different_ways(reader: Reader) -> None:
    reader.secrets.set(NAMESPACE, "admin", token="admin-token")
    reader.secrets.set(NAMESPACE, "data", token="data-token")
    both = spec(controlCredentials={"name": "admin"}, dataCredentials={"name": "data"})
    control = await store_connection(reader, KEY, both, [])
    data = await store_connection(reader, KEY, both, [], data=True)
    assert (control.credentials.token, data.credentials.token) == ("admin-token", "data-token")
    one = spec(controlCredentials={"name": "admin"})
    assert (await store_connection(reader, KEY, one, [], data=True)).credentials.token == "admin-token"
    only_data = spec(dataCredentials={"name": "data"})
    assert (await store_connection(reader, KEY, only_data, [])).credentials.token is None


async def test_a_store_beside_the_operator_needs_its_leave(reader: Reader) -> None:
    for provider in ({"lance": {"path": "team/docs"}}, {"memory": {"local": True}}):
        with pytest.raises(Terminal) as caught:
            await store_connection(reader, KEY, VectorStoreSpec.model_validate(provider), [])
        assert caught.value.reason == "LocalStoresNotAllowed"
        assert "--local-stores DIR" in caught.value.message
    served = VectorStoreSpec.model_validate({"lance": {"server": "http://lance:8080"}})
    assert (await store_connection(reader, KEY, served, [])).settings == {"server": "http://lance:8080"}


async def test_a_store_beside_the_operator_is_reached_by_its_socket(reader: Reader) -> None:
    reader.local_stores = Sockets()
    found = await store_connection(reader, KEY, VectorStoreSpec.model_validate({"lance": {"path": "team/docs"}}), [])
    assert found.settings["server"] == "unix:///run/stores.sock"
    assert found.settings["path"] == "team/docs"


# -- digests --
BASE = Connection("chroma", {"url": "http://a"}, StoreCredentials("t", "u", "p"), TlsSettings("CA", "name"), 30.0, 8)


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, provider="pgvector"),
        replace(BASE, settings={"url": "http://b"}),
        replace(BASE, credentials=replace(BASE.credentials, token="t2")),
        replace(BASE, credentials=replace(BASE.credentials, username="u2")),
        replace(BASE, credentials=replace(BASE.credentials, password="p2")),
        replace(BASE, credentials=StoreCredentials("u", "t", "p")),
        replace(BASE, tls=replace(BASE.tls, ca="CB")),
        replace(BASE, tls=replace(BASE.tls, server_name=None)),
        replace(BASE, tls=replace(BASE.tls, insecure_skip_verify=True)),
        replace(BASE, timeout=31.0),
        replace(BASE, max_concurrency=9),
    ],
)
def test_a_digest_changes_with_everything(other: Connection) -> None:
    assert connection_digest(other) != connection_digest(BASE)


def test_a_digest_is_that_of_equal_connections_and_shows_no_value() -> None:
    same = replace(BASE, settings=dict(BASE.settings))
    assert connection_digest(same) == connection_digest(BASE)
    assert len(connection_digest(BASE)) == 32
    assert "'t'" not in repr(BASE)
    assert "'p'" not in repr(BASE)


# -- uses --
def test_what_an_object_reads_is_remembered_until_it_reads_nothing() -> None:
    context = cast("Context", SimpleNamespace(uses={}))
    remember_uses(context, KEY, [Reference("Secret", "a", "x"), Reference("Secret", "a", "x")])
    assert context.uses == {KEY: frozenset({("Secret", "a", "x")})}
    remember_uses(context, KEY, [])
    remember_uses(context, KEY, [])
    assert context.uses == {}
