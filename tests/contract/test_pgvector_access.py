"""Getting to PostgreSQL, and being kept from it.

- databases and schemas that are not there, roles that may not, TLS that is not trusted
- pgvector missing: made where the role may, asked for where not
- locks that are not had, statements that take too long, servers that restart
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import trustme
from psycopg import sql
from tests.contract.conftest import StoreFactory
from tests.contract.data import MARK, batch, definition, vectors
from tests.contract.providers.pgvector import Pgvector
from tests.support.postgres import PostgresServer

from vectorwright.errors import Retryable, Terminal
from vectorwright.stores.base import Store
from vectorwright.stores.filters import Eq
from vectorwright.stores.pgvector.store import PgvectorStore
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings, open_store

pytestmark = pytest.mark.server


@pytest.fixture
def provider(request: pytest.FixtureRequest) -> Pgvector:
    return Pgvector(request)


def changed(provider: Pgvector, **settings: object) -> Connection:
    """The provider's connection with other settings."""
    connection = provider.connection()
    return replace(connection, settings={**connection.settings, **settings})


async def test_a_percent_sign_in_the_schema(provider: Pgvector, open_another: StoreFactory) -> None:
    schema = f"100% {provider.schema}"
    with provider.server.connect() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    store = open_another(changed(provider, schema=schema))
    await store.create_index(definition())
    await store.upsert("docs", batch(3, metadata=[{"word": "50%"}] * 3))
    assert len(await store.query("docs", vectors(1)[0], 2, Eq("word", "50%"))) == 2


@pytest.mark.parametrize(
    ("settings", "reason"), [({"database": "nope"}, "DatabaseNotFound"), ({"schema": "nope"}, "SchemaNotFound")]
)
async def test_what_the_spec_names_must_exist(
    provider: Pgvector, open_another: StoreFactory, settings: dict[str, str], reason: str
) -> None:
    with pytest.raises(Terminal) as refused:
        await open_another(changed(provider, **settings)).probe()
    assert refused.value.reason == reason
    assert "nope" in refused.value.message


def new_role(server: PostgresServer, database: str, *grants: str) -> StoreCredentials:
    """A role that may log in, with rights in a database."""
    role = f"role_{np.random.default_rng().integers(2**40)}"
    with server.connect(database) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'of the role'").format(sql.Identifier(role)))
        for grant in grants:
            connection.execute(sql.SQL(grant).format(sql.Identifier(role)))
    return StoreCredentials(username=role, password="of the role")


async def test_pgvector_is_made_where_the_role_may(provider: Pgvector, open_another: StoreFactory) -> None:
    database = provider.server.new_database()
    may = new_role(provider.server, database, "ALTER ROLE {} SUPERUSER")
    store = open_another(replace(changed(provider, database=database, schema="public"), credentials=may))
    for _ in range(2):  # a probe finds out and leaves nothing behind
        assert "not yet installed" in (await store.probe()).version
    assert await store.list_indexes() == []
    await store.create_index(definition())
    await store.upsert("docs", batch(3))
    assert await store.count("docs") == 3
    assert "pgvector 0." in (await store.probe()).version


async def test_pgvector_is_asked_for_where_the_role_may_not(provider: Pgvector, open_another: StoreFactory) -> None:
    database = provider.server.new_database()
    may_not = new_role(provider.server, database, "GRANT CREATE ON SCHEMA public TO {}")
    store = open_another(replace(changed(provider, database=database, schema="public"), credentials=may_not))
    for call in (store.probe, lambda: store.create_index(definition())):
        with pytest.raises(Terminal) as refused:
            await call()
        assert refused.value.reason == "ExtensionMissing"
        assert "CREATE EXTENSION vector" in refused.value.message


async def test_a_role_without_rights_is_refused(docs: Store, provider: Pgvector, open_another: StoreFactory) -> None:
    role = new_role(provider.server, provider.server.database, f'GRANT USAGE ON SCHEMA "{provider.schema}" TO {{}}')
    store = open_another(replace(provider.connection(), credentials=role))
    assert [index.name for index in await store.list_indexes()] == ["docs"]
    for call in (
        lambda: store.upsert("docs", batch(1)),
        lambda: store.count("docs"),
        lambda: store.delete_index("docs"),
        lambda: store.set_mark("docs", None, None),
        lambda: store.create_index(definition("more")),
    ):
        with pytest.raises(Terminal) as refused:
            await call()
        assert type(refused.value) is Terminal
        assert refused.value.reason == "AccessDenied"
    assert await docs.count("docs") == 0


async def test_the_identity_of_the_backend(provider: Pgvector, open_another: StoreFactory) -> None:
    with provider.server.connect() as connection:
        (system,) = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone() or ("",)
    own = (await open_another(None).probe()).backend_id
    assert str(system) in own
    assert provider.schema in own
    assert (await open_another(changed(provider, schema="public")).probe()).backend_id != own


def test_credentials_without_a_user_are_terminal(provider: Pgvector) -> None:
    with pytest.raises(Terminal) as refused:
        open_store(replace(provider.connection(), credentials=StoreCredentials(password="p")))
    assert refused.value.reason == "MissingCredentials"


async def test_tls_is_verified(provider: Pgvector, open_another: StoreFactory) -> None:
    server = provider.server
    ca, stranger = server.ca_file.read_text(), trustme.CA().cert_pem.bytes().decode()

    def connect(tls: TlsSettings, mode: str | None = None, host: str = server.host) -> Store:
        settings = {**provider.connection().settings, "host": host, "port": server.tls_port}
        del settings["sslMode"]
        if mode is not None:
            settings["sslMode"] = mode
        return open_another(replace(provider.connection(), settings=settings, tls=tls))

    for good in (
        connect(TlsSettings(ca=ca)),
        connect(TlsSettings(ca=ca), host="localhost"),
        connect(TlsSettings(ca=ca, server_name="localhost"), "verify-full"),
        connect(TlsSettings(ca=ca), "verify-ca"),
        connect(TlsSettings(), "require"),
        connect(TlsSettings(insecure_skip_verify=True)),
    ):
        assert await good.list_indexes() == []
    for bad in (
        connect(TlsSettings()),
        connect(TlsSettings(ca=stranger)),
        connect(TlsSettings(ca=stranger), "verify-ca"),
        connect(TlsSettings(ca=ca, server_name="other.example")),
    ):
        with pytest.raises(Terminal) as refused:
            await bad.list_indexes()
        assert refused.value.reason == "TLSVerificationFailed"
    with pytest.raises(Terminal) as plain:
        await open_another(changed(provider, sslMode="require")).probe()
    assert plain.value.reason == "TLSNotSupported"
    with pytest.raises(Terminal) as unreadable:
        connect(TlsSettings(ca="not a certificate"))
    assert unreadable.value.reason == "InvalidCA"


async def test_a_lock_that_is_not_had_is_retryable(provider: Pgvector, docs: Store, open_another: StoreFactory) -> None:
    store = open_another(replace(provider.connection(), timeout=2.0))
    await store.list_indexes()
    with provider.server.connect() as holder, holder.transaction():
        table = sql.Identifier(provider.schema, "docs")
        holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
        with pytest.raises(Retryable):
            await store.upsert("docs", batch(1))
        with pytest.raises(Retryable):
            await store.delete_index("docs")
    await store.upsert("docs", batch(1))
    assert await docs.count("docs") == 1


async def test_a_statement_that_takes_too_long_ends_on_the_server(
    provider: Pgvector, open_another: StoreFactory
) -> None:
    store = open_another(replace(provider.connection(), timeout=0.3))
    assert isinstance(store, PgvectorStore)
    with pytest.raises(Retryable) as late:
        async with store._pool.link() as link:
            await link.connection.execute("SELECT pg_sleep(30) /* too long */")
    assert late.value.reason == "Timeout"
    with provider.server.connect() as watcher:
        running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%too long */' AND state = 'active'"
        assert watcher.execute(running).fetchone() == (0,)


async def test_a_server_that_restarts_is_used_again(
    start_postgres: Callable[[], PostgresServer], provider: Pgvector, open_another: StoreFactory
) -> None:
    server = start_postgres()
    settings = {"host": server.host, "port": server.port, "database": server.database, "sslMode": "disable"}
    credentials = StoreCredentials(username=server.user, password=server.password)
    store = open_another(replace(provider.connection(), settings=settings, credentials=credentials, timeout=5))
    await store.create_index(definition())
    await asyncio.gather(*(store.upsert("docs", batch(20, start=20 * part)) for part in range(4)))
    server.kill()
    with pytest.raises(Retryable):
        await store.count("docs")
    with pytest.raises(Retryable):
        await store.list_indexes()
    server.start()
    assert await store.count("docs") == 80
    await store.upsert("docs", batch(5, start=80))
    (index,) = await store.list_indexes()
    assert index.mark == MARK


async def test_idle_connections_are_kept_and_bounded(
    provider: Pgvector, docs: Store, open_another: StoreFactory
) -> None:
    store = open_another(replace(provider.connection(), max_concurrency=3))
    assert isinstance(store, PgvectorStore)
    await asyncio.gather(*(store.count("docs") for _ in range(30)))
    assert 1 <= len(store._pool._idle) <= 3
    await store.close()
    assert store._pool._idle == []
    with pytest.raises(Terminal):
        await store.count("docs")
