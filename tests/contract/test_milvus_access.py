"""How Milvus is reached: databases, credentials, TLS, versions.

- a database that does not exist is not an empty one
- the token, or user and password, go with every call, and nowhere else
- certificates are verified against the authorities that are named
- a server that is too old says so; what cannot be meant is refused before any call
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import pytest
import trustme
from tests.contract.conftest import StoreFactory
from tests.contract.providers.base import SECRET
from tests.contract.providers.milvus import Milvus
from tests.support.milvus import StartMilvus
from tests.support.tls import TlsFront

from vectorwright.errors import Retryable, Terminal
from vectorwright.stores.milvus.stubs import milvus_pb2
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings, open_store

pytestmark = pytest.mark.server


@pytest.fixture
def provider(request: pytest.FixtureRequest) -> Milvus:
    return Milvus(request)


class Recorder(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A server that tells its version, and remembers what came with the calls."""

    def __init__(self) -> None:
        self.version = "v2.6.1"
        self.sent: list[dict[str, str]] = []

    def service(self, handler_call_details: Any) -> Any:
        self.sent.append(dict(handler_call_details.invocation_metadata))
        answers = {
            "GetVersion": milvus_pb2.GetVersionResponse(version=self.version),
            "ShowCollections": milvus_pb2.ShowCollectionsResponse(),
        }
        answer = answers[handler_call_details.method.rpartition("/")[2]].SerializeToString()
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)


@pytest.fixture
def recorder() -> Iterator[tuple[Recorder, str]]:
    """A recorder and its address."""
    handler, workers = Recorder(), ThreadPoolExecutor(2)
    server = grpc.server(workers, handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"http://127.0.0.1:{port}"
    server.stop(0).wait(10)
    workers.shutdown()


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        (StoreCredentials(token=SECRET), SECRET),
        (StoreCredentials(username="reader", password=SECRET), f"reader:{SECRET}"),
        (StoreCredentials(token="key", username="reader", password=SECRET), "key"),
        (StoreCredentials(), None),
    ],
)
async def test_credentials_and_database_go_with_every_call(
    recorder: tuple[Recorder, str], credentials: StoreCredentials, said: str | None
) -> None:
    handler, url = recorder
    connection = Connection("milvus", {"url": url, "database": "shop"}, credentials=credentials)
    async with open_store(connection) as store:
        info = await store.probe()
        assert await store.list_indexes() == []
    assert info.version == "v2.6.1"
    expected = None if said is None else base64.b64encode(said.encode()).decode()
    assert len(handler.sent) == 3
    for sent in handler.sent:
        assert (sent.get("authorization"), sent["dbname"]) == (expected, "shop")
    assert SECRET not in str(info) + repr(connection)


async def test_a_server_that_is_too_old_is_refused(recorder: tuple[Recorder, str]) -> None:
    handler, url = recorder
    handler.version = "v2.3.21"
    async with open_store(Connection("milvus", {"url": url})) as store:
        with pytest.raises(Terminal) as refused:
            await store.probe()
    assert refused.value.reason == "UnsupportedVersion"
    assert "v2.3.21" in refused.value.message


async def test_certificates_are_verified(
    provider: Milvus, tls_front: Callable[..., TlsFront], open_another: StoreFactory
) -> None:
    front = tls_front(provider.server.port, grpc=True)
    connection = replace(provider.connection(), settings={"url": front.url, "database": provider.database})
    ca = front.ca_file.read_text()
    stranger = trustme.CA().cert_pem.bytes().decode()
    for trusted in (TlsSettings(ca=ca), TlsSettings(ca=ca, server_name="localhost")):
        assert await open_another(replace(connection, tls=trusted)).list_indexes() == []
    for untrusted in (TlsSettings(), TlsSettings(ca=stranger), TlsSettings(ca=ca, server_name="other.example")):
        with pytest.raises(Terminal) as refused:
            await open_another(replace(connection, tls=untrusted)).list_indexes()
        assert refused.value.reason == "TLSVerificationFailed"


def test_a_bundle_without_a_certificate_is_refused() -> None:
    with pytest.raises(Terminal) as refused:
        open_store(Connection("milvus", {"url": "https://127.0.0.1:1"}, tls=TlsSettings(ca="# nothing yet")))
    assert refused.value.reason == "InvalidCA"


async def test_a_database_that_does_not_exist_is_not_an_empty_one(provider: Milvus, open_another: StoreFactory) -> None:
    connection = provider.connection()
    store = open_another(replace(connection, settings={**connection.settings, "database": "nowhere"}))
    for call in (store.probe, store.list_indexes, lambda: store.describe_index("docs"), lambda: store.count("docs")):
        with pytest.raises(Terminal) as refused:
            await call()
        assert refused.value.reason == "DatabaseNotFound"
        assert "nowhere" in refused.value.message


async def test_tls_where_there_is_none(start_milvus: StartMilvus) -> None:
    url = start_milvus().url.replace("http:", "https:")
    async with open_store(Connection("milvus", {"url": url}, timeout=5)) as store:
        with pytest.raises(Retryable) as refused:
            await store.list_indexes()
    assert refused.value.reason == "TLSHandshakeFailed"


def test_certificates_are_always_verified() -> None:
    connection = Connection("milvus", {"url": "https://127.0.0.1:1"}, tls=TlsSettings(insecure_skip_verify=True))
    with pytest.raises(Terminal) as refused:
        open_store(connection)
    assert refused.value.reason == "UnsupportedTLS"


def test_an_address_with_a_path_is_refused() -> None:
    with pytest.raises(Terminal) as refused:
        open_store(Connection("milvus", {"url": "http://127.0.0.1:1/milvus"}, credentials=StoreCredentials("t")))
    assert refused.value.reason == "InvalidSpec"
