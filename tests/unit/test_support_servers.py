"""The servers that other tests stand on: they answer, they stop and start again, and they never outlive their owner."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import psycopg
import pytest
import trustme
from deploy.devcluster.processes import Identity, wait_for
from tests.support.chroma import ChromaServer, StartChroma
from tests.support.postgres import PostgresServer, StartPostgres

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.server


def test_chroma_answers(chroma_server: ChromaServer) -> None:
    answer = httpx.get(f"{chroma_server.url}/api/v2/version", trust_env=False)
    assert answer.status_code == 200
    assert "." in answer.json()


def test_chroma_keeps_data_and_port_over_a_crash(start_chroma: StartChroma) -> None:
    server = start_chroma()
    url = f"{server.url}/api/v2/tenants/default_tenant/databases/default_database/collections"
    with httpx.Client(trust_env=False) as client:
        assert client.post(url, json={"name": "kept"}).status_code == 200
        server.kill()
        with pytest.raises(httpx.TransportError):
            client.get(url)
        server.start()
        assert [collection["name"] for collection in client.get(url).json()] == ["kept"]


def test_postgres_has_pgvector_and_passwords(postgres_server: PostgresServer) -> None:
    name = postgres_server.new_database()
    with postgres_server.connect(name) as connection:
        connection.execute("CREATE EXTENSION vector")
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,4]'::vector").fetchone() == (2.0,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_server.dsn().replace(postgres_server.password, "wrong"))


def test_postgres_over_tls_is_verified(postgres_server: PostgresServer, tmp_path: Path) -> None:
    dsn = postgres_server.dsn(tls=True)
    with psycopg.connect(dsn) as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.execute("SELECT repeat('x', 1000000)").fetchone() == ("x" * 1_000_000,)
    stranger = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(dsn.replace(str(postgres_server.ca_file), str(stranger)))
    with pytest.raises(psycopg.OperationalError, match="TLS connections only"):
        psycopg.connect(dsn.replace("verify-full", "disable"))


def test_postgres_keeps_data_and_port_over_a_stop_and_a_crash(start_postgres: StartPostgres) -> None:
    server = start_postgres()
    with server.connect() as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (7)")
    server.stop()
    with pytest.raises(psycopg.OperationalError):
        server.connect()
    server.start()
    server.kill()
    server.start()
    with server.connect() as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (7,)


def test_a_killed_owner_leaves_no_server_and_no_data(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import pathlib, sys, time
        from tests.support.chroma import start_chroma_server
        from tests.support.postgres import start_postgres_server
        chroma = start_chroma_server(pathlib.Path(sys.argv[1]) / "chroma")
        postgres = start_postgres_server()
        postgres.connect()
        print(*(i.pid for server in (chroma, postgres) for i in server.process.identities), flush=True)
        print(postgres.base, flush=True)
        time.sleep(600)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        processes = [Identity.of(int(pid)) for pid in owner.stdout.readline().split()]
        data = Path(owner.stdout.readline().strip())
        assert len(processes) == 4
        owner.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(one and one.alive() for one in processes), what="the servers to end", timeout=20)
    wait_for(lambda: not data.exists(), what="the data to be removed", timeout=20)
