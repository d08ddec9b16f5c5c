"""Stores whose key is rotated, as those who use them see it: by the vendors' own clients and drivers."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import psycopg
import pytest
import weaviate
from pinecone import Pinecone, PineconeException, RetryConfig
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.models import Distance, PointStruct, VectorParams
from tests.support.pinecone import CLIENT_ID, CLIENT_SECRET, PineconeDouble
from tests.support.postgres_roles import PostgresWithRoles, refuses
from tests.support.qdrant import QdrantDouble, StartQdrant
from tests.support.weaviate import WeaviateWithUsers
from weaviate.auth import Auth
from weaviate.classes.config import Configure
from weaviate.exceptions import WeaviateBaseError

from vectorwright.rotation.base import KeyMaterial

Body = dict[str, Any]
Request = Callable[[], object]
"""One request of a consumer. Raises one of the store's ``errors`` when it is refused."""


def in_turn(*requests: Request) -> Request:
    """A request that is each of several in turn."""
    turns = itertools.cycle(requests)

    def request() -> object:
        return next(turns)()

    return request


class RotatedStore(ABC):
    """One identity at one store."""

    provider: ClassVar[str]
    identity: ClassVar[str]
    """Key of ``spec.identity``."""
    errors: ClassVar[tuple[type[Exception], ...]]
    """What the vendor's client raises."""
    refuses_sessions: ClassVar[bool] = False
    """Whether a key is shown only when a session begins: then a consumer begins one each time that it read the key."""

    @abstractmethod
    def settings(self) -> Body:
        """The provider's block of the VectorStore."""

    @abstractmethod
    def fields(self) -> Body:
        """The block ``spec.identity.<identity>``."""

    @abstractmethod
    def admin(self) -> dict[str, str]:
        """Fields of the admin's Secret."""

    @abstractmethod
    def session(self, key: KeyMaterial) -> AbstractContextManager[Request]:
        """What a consumer does with a key."""

    def accepts(self, key: KeyMaterial) -> bool:
        """Whether the store lets a key in, by a session of its own. What is no refusal is raised."""
        try:
            with self.session(key) as request:
                request()
        except self.errors as error:
            if not self.is_refusal(error):
                raise
            return False
        return True

    @abstractmethod
    def is_refusal(self, error: Exception) -> bool:
        """Whether an error says that the key is none (401, 403, class 28), or not any more."""

    @abstractmethod
    def live(self) -> set[str]:
        """Ids of the keys that the store lists, the admin's left out."""

    @abstractmethod
    def records(self, index: str) -> int:
        """Records of an index, as the store itself counts them."""

    def close(self) -> None:  # noqa: B027 - most have nothing of their own
        """End what the fixtures of the test do not end."""


class RotatedPostgres(RotatedStore):
    """Two login roles of a real PostgreSQL. Its sessions end with their role."""

    provider, identity = "pgvector", "postgres"
    errors = (psycopg.Error,)
    refuses_sessions = True

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.served: PostgresWithRoles = request.getfixturevalue("postgres_with_roles")

    def settings(self) -> Body:
        served = self.served
        place = {"host": served.host, "port": served.server.port, "database": served.database}
        return place | {"schema": served.schema, "sslMode": "disable"}

    def fields(self) -> Body:
        return {"role": self.served.base_role}

    def admin(self) -> dict[str, str]:
        return {"username": self.served.admin_role, "password": self.served.admin_password}

    @contextlib.contextmanager
    def session(self, key: KeyMaterial) -> Iterator[Request]:
        with self.served.connect(key.username or "", key.password or "") as connection:
            # What is made belongs to the base role, and so to both roles that take turns.
            connection.execute("SET client_min_messages = error")
            connection.execute("CREATE TABLE IF NOT EXISTS docs.consumer (n bigserial PRIMARY KEY, said text)")
            yield lambda: connection.execute("INSERT INTO docs.consumer (said) VALUES ('hello')")

    def is_refusal(self, error: Exception) -> bool:
        return isinstance(error, psycopg.errors.AdminShutdown | psycopg.errors.InsufficientPrivilege) or refuses(error)

    def live(self) -> set[str]:
        return {name for name, may_log_in in self.served.roles().items() if may_log_in}

    def records(self, index: str) -> int:
        with self.served.server.connect(self.served.database) as connection:
            found = connection.execute(f'SELECT count(*) FROM docs."{index}"').fetchone()
        return int(str((found or (0,))[0]))


class RotatedWeaviate(RotatedStore):
    """Two users of a real Weaviate."""

    provider, identity = "weaviate", "weaviate"
    errors = (WeaviateBaseError,)

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.served: WeaviateWithUsers = request.getfixturevalue("weaviate_with_users")
        self.served.make_role("writer")
        verbs = ("create", "read", "update", "delete")
        aliases = [{"action": f"{verb}_aliases", "aliases": {"collection": "*", "alias": "*"}} for verb in verbs]
        with self.served.api() as api:
            given = {"permissions": aliases}
            api.post("/authz/roles/writer/add-permissions", json=given).raise_for_status()
        self.served.make_role("rotator", actions=(), users="search*")
        self._admin = self.served.make_user("rotating-admin", "rotator")
        with self._client(self.served.admin_key) as client:
            client.collections.create("Consumer", vector_config=Configure.Vectors.self_provided())

    def settings(self) -> Body:
        return {"url": self.served.server.url, "grpcPort": self.served.grpc_port}

    def fields(self) -> Body:
        return {"user": "search", "roles": ["writer"]}

    def admin(self) -> dict[str, str]:
        return {"token": self._admin}

    def _client(self, key: str) -> weaviate.WeaviateClient:
        server, auth = self.served.server, Auth.api_key(key)
        return weaviate.connect_to_local(
            server.host, server.port, server.grpc_port, auth_credentials=auth, skip_init_checks=True
        )

    @contextlib.contextmanager
    def session(self, key: KeyMaterial) -> Iterator[Request]:
        with self._client(key.token or "") as client:
            consumer = client.collections.use("Consumer")
            yield in_turn(
                lambda: consumer.data.insert({"said": "hello"}, vector=[1.0, 0.0]),  # REST
                lambda: consumer.query.fetch_objects(limit=1),  # gRPC
            )

    def is_refusal(self, error: Exception) -> bool:
        said = str(error).lower()
        return any(word in said for word in ("401", "403", "unauthenticated", "unauthorized", "permission"))

    def live(self) -> set[str]:
        return set(self.served.users()) - {"rotating-admin"}

    def records(self, index: str) -> int:
        with self._client(self.served.admin_key) as client:
            return int(
                client.collections.use(f"{index[0].upper()}{index[1:]}".replace("-", "__"))
                .aggregate.over_all()
                .total_count
                or 0
            )


class RotatedQdrant(RotatedStore):
    """Tokens of a Qdrant double, which are revoked by a collection."""

    provider, identity = "qdrant", "qdrantToken"
    errors = (UnexpectedResponse, ResponseHandlingException)
    ADMIN: ClassVar = "the-api-key-of-a-qdrant-server-of-tests"
    REVOCATIONS: ClassVar = "valid-tokens"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        start: StartQdrant = request.getfixturevalue("start_qdrant")
        self.double: QdrantDouble = start(api_key=self.ADMIN, jwt_rbac=True)
        with self._client(self.ADMIN) as client:
            client.create_collection("consumer", vectors_config=VectorParams(size=2, distance=Distance.COSINE))

    def settings(self) -> Body:
        return {"url": self.double.url, "grpcPort": self.double.grpc_port}

    def fields(self) -> Body:
        return {"access": "m", "revocationCollection": self.REVOCATIONS}

    def admin(self) -> dict[str, str]:
        return {"token": self.ADMIN}

    @contextlib.contextmanager
    def _client(self, key: str) -> Iterator[QdrantClient]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
            client = QdrantClient(url=self.double.url, api_key=key, check_compatibility=False, timeout=10)
        try:
            yield client
        finally:
            client.close()

    @contextlib.contextmanager
    def session(self, key: KeyMaterial) -> Iterator[Request]:
        with self._client(key.token or "") as client:
            point = PointStruct(id=1, vector=[1.0, 0.0], payload={"said": "hello"})
            yield in_turn(lambda: client.upsert("consumer", [point]), lambda: client.count("consumer"))

    def is_refusal(self, error: Exception) -> bool:
        return isinstance(error, UnexpectedResponse) and error.status_code in {401, 403}

    def live(self) -> set[str]:
        with self._client(self.ADMIN) as client:
            if not client.collection_exists(self.REVOCATIONS):
                return set()
            points, _ = client.scroll(self.REVOCATIONS, limit=1000)
        return {str((point.payload or {})["key_id"]) for point in points}

    def records(self, index: str) -> int:
        with self._client(self.ADMIN) as client:
            return client.count(index, exact=True).count


class RotatedPinecone(RotatedStore):
    """API keys of a project of a Pinecone double: known, and refused, a moment after it was told."""

    provider, identity = "pinecone", "pinecone"
    errors = (PineconeException,)
    PROJECT: ClassVar = "5f1a6c0e-3b52-4d0e-9c53-3f7f0c6f2a11"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._by_hand = f"pcsk_by_hand_{secrets.token_hex(8)}"
        self.double = PineconeDouble({self._by_hand: self.PROJECT})
        self.double.admin.usable_after = self.double.admin.usable_until = 0.1

    def settings(self) -> Body:
        return {"controlUrl": f"{self.double.url}/at/{self.double.host}:{self.double.port}"}

    def fields(self) -> Body:
        url = self.double.url
        return {"projectId": self.PROJECT, "roles": ["ProjectEditor"], "adminUrl": url, "loginUrl": url}

    def admin(self) -> dict[str, str]:
        return {"username": CLIENT_ID, "password": CLIENT_SECRET}

    @contextlib.contextmanager
    def session(self, key: KeyMaterial) -> Iterator[Request]:
        retries = RetryConfig(max_retries=0)
        with Pinecone(api_key=key.token, retry_config=retries, host=self.double.url) as client:
            yield lambda: list(client.indexes.list())

    def is_refusal(self, error: Exception) -> bool:
        return getattr(error, "status_code", None) in {401, 403}

    def live(self) -> set[str]:
        return {key.id for value, key in list(self.double.admin.keys.items()) if value != self._by_hand}

    def records(self, index: str) -> int:
        with Pinecone(api_key=self._by_hand, host=self.double.url) as client:
            place = client.indexes.describe(index).host or ""
            with client.index(host=place) as opened:
                return int(opened.describe_index_stats().total_vector_count)

    def close(self) -> None:
        self.double.close()
