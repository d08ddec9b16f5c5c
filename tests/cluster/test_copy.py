"""An index moves to another store, through the operator on a real API server, between real stores.

Aspects covered: a new VectorIndex and one job; SIGKILL in the middle, and a run that goes on where it was; what changed
and what is gone in a later run; what the API server and the operator refuse; export to a file and import from it on the
command line.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes
import psycopg
import pyarrow.parquet as pq
import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from psycopg import sql
from tests.support.chroma import ChromaServer
from tests.support.json_lines import json_lines_job
from tests.support.postgres import PostgresServer
from tests.support.vectorwright import Resources, condition

pytestmark = pytest.mark.cluster

RECORDS = 240


@pytest.fixture
def mine(devcluster: Cluster, namespace: str, own_operator: TrialOperator) -> Iterator[Resources]:
    """Our resources, served by an operator of this test's own."""
    found = Resources(devcluster, namespace, own_operator)
    yield found
    found.close()


class Table:
    """The table of an index in PostgreSQL."""

    def __init__(self, server: PostgresServer, schema: str, name: str) -> None:
        self._server = server
        self._place = sql.Identifier(schema, name)

    def rows(self) -> dict[str, tuple[Any, ...]]:
        """Id → text, metadata and vector."""
        with self._server.connect() as connection:
            try:
                found = connection.execute(
                    sql.SQL("SELECT id, text, metadata::text, embedding::text FROM {}").format(self._place)
                ).fetchall()
            except psycopg.errors.UndefinedTable:
                return {}
        return {str(row[0]): tuple(row[1:]) for row in found}


def _fill(index: str, count: int) -> dict[str, Any]:
    lines = (
        {"id": f"doc {n}", "text": f"record {n}", "n": n, "share": n / 7, "whole": float(n), "vector": [n + 1, 1, 2]}
        for n in range(count)
    )
    fields = {"textFields": ["text"], "metadataFields": ["n", "share", "whole"]}
    parse = {"type": "jsonLines", "idField": "id", **fields}
    return json_lines_job(lines, index, parse=parse, sync={"mode": "Sync"})


def _copy(**more: Any) -> dict[str, Any]:
    return {
        "indexRef": {"name": "new"},
        "source": {"vectorIndex": {"name": "old"}},
        "sync": {"mode": "Sync"},
        "runner": {"type": "InProcess"},
        **more,
    }


def _stores(mine: Resources, chroma: ChromaServer, postgres: PostgresServer, **limits: Any) -> Table:
    """Two stores, an index in each of them; the one in Chroma is filled."""
    schema = f"copy_{secrets.token_hex(5)}"
    with postgres.connect() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    mine.secret("database", username=postgres.user, password=postgres.password)
    place = {
        "host": postgres.host, "port": postgres.port, "database": postgres.database, "schema": schema,
        "sslMode": "disable",
    }  # fmt: skip
    credentials = {"controlCredentials": {"name": "database"}, "dataCredentials": {"name": "database"}}
    mine.create("VectorStore", "postgres", {"pgvector": place, **credentials, "probeInterval": "1s", **limits})
    mine.create("VectorStore", "chroma", {"chroma": {"url": chroma.url}, "probeInterval": "1s"})
    named = {"indexName": f"{mine.namespace}-old"}
    mine.create("VectorIndex", "old", {"storeRef": {"name": "chroma"}, "dimension": 3, "metric": "euclidean", **named})
    mine.create("VectorIndex", "new", {"storeRef": {"name": "postgres"}, "dimension": 3, "metric": "euclidean"})
    mine.create("IngestionJob", "fill", _fill("old", RECORDS))
    mine.wait_phase("fill", "Succeeded")
    mine.wait_ready("VectorIndex", "new")
    return Table(postgres, schema, "new")


def test_an_index_moves_although_the_operator_is_killed_in_the_middle(
    mine: Resources, chroma_server: ChromaServer, postgres_server: PostgresServer
) -> None:
    mine.operator.start()
    table = _stores(mine, chroma_server, postgres_server, limits={"requestsPerSecond": 15})
    mine.create("IngestionJob", "move", _copy(batch={"maxRecords": 2, "workers": 2}))
    mine.wait("IngestionJob", "move", lambda _: len(table.rows()) >= 40)
    mine.operator.kill()
    time.sleep(1)
    stored = table.rows()
    time.sleep(1)
    assert len(table.rows()) == len(stored) < RECORDS, "the worker outlived its operator, or was too fast"

    mine.operator.start()
    body = mine.wait_phase("move", "Succeeded")
    counts = body["status"]["counts"]
    assert (counts["documentsUnchanged"], counts["vectorsWritten"]) == (len(stored), RECORDS - len(stored))
    assert (body["status"]["verification"], body["status"]["done"]) == ("Exact", f"{RECORDS}/{RECORDS}")
    rows = table.rows()
    assert {name: rows[name] for name in stored} == stored
    assert set(rows) == {f"doc {n}" for n in range(RECORDS)}
    text, metadata, vector = rows["doc 7"]
    assert (text, vector) == ("record 7", "[8,1,2]")
    told = json.loads(metadata)
    assert (told["n"], told["share"], told["whole"], told["vw_source"]) == (7, 1.0, 7.0, f"{mine.namespace}/fill")
    assert [type(told[name]) for name in ("n", "share", "whole")] == [int, float, float]
    mine.wait("VectorIndex", "new", lambda item: item["status"].get("vectors") == RECORDS)

    # What is gone from the source goes; the rest is left alone.
    spec = {"source": _fill("old", RECORDS - 20)["source"]}
    mine.patch("IngestionJob", "fill", {"spec": spec})
    mine.wait("IngestionJob", "fill", lambda item: (item["status"].get("counts") or {}).get("vectorsDeleted") == 20)
    mine.wait_phase("fill", "Succeeded")
    mine.annotate("IngestionJob", "move", run_requested_at="1")
    body = mine.wait("IngestionJob", "move", lambda item: item["status"].get("handledRequest") == "1")
    counts = mine.wait_phase("move", "Succeeded")["status"]["counts"]
    assert (counts["documentsUnchanged"], counts["vectorsDeleted"], counts["vectorsWritten"]) == (RECORDS - 20, 20, 0)
    assert set(table.rows()) == {f"doc {n}" for n in range(RECORDS - 20)}

    # A job that takes over in the new index finds everything done.
    mine.delete("IngestionJob", "move")
    mine.create("IngestionJob", "taken-over", {**_fill("new", RECORDS - 20), "sourceName": f"{mine.namespace}/fill"})
    counts = mine.wait_phase("taken-over", "Succeeded")["status"]["counts"]
    assert (counts["documentsUnchanged"], counts["vectorsWritten"]) == (RECORDS - 20, 0)


def test_export_and_import_on_the_command_line(
    mine: Resources, chroma_server: ChromaServer, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    mine.operator.start()
    table = _stores(mine, chroma_server, postgres_server)

    def run(*arguments: str) -> tuple[int, str, str]:
        flags = ("--kubeconfig", str(mine.cluster.kubeconfig), "-n", mine.namespace)
        command = [str(Path(sys.executable).with_name("vectorwright")), *arguments, *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    file = tmp_path / "old.parquet"
    assert run("export", "old", str(file)) == (0, f"{RECORDS} records of old written to {file}\n", "")
    assert pq.ParquetFile(file).metadata.num_rows == RECORDS
    told = "0 failed; Exact verified\n"
    assert run("import-records", str(file), "--index", "new") == (
        0, f"new: {RECORDS} records written, 0 there already, {told}", "",
    )  # fmt: skip
    assert run("import-records", str(file), "--index", "new") == (
        0, f"new: 0 records written, {RECORDS} there already, {told}", "",
    )  # fmt: skip
    assert set(table.rows()) == {f"doc {n}" for n in range(RECORDS)}
    status, _, said = run("export", "absent", str(file))
    assert (status, "VectorIndex absent does not exist" in said) == (1, True)
    status, _, said = run("import-records", str(tmp_path / "absent.parquet"), "--index", "new")
    assert (status, "cannot be read" in said) == (1, True)
    assert postgres_server.password not in said


def test_what_cannot_be_copied_is_refused_before_any_run(
    mine: Resources, chroma_server: ChromaServer, postgres_server: PostgresServer
) -> None:
    mine.operator.start()
    table = _stores(mine, chroma_server, postgres_server)
    mine.create("IngestionJob", "tenant", _copy(indexNamespace="tenant-a"))
    told = mine.wait_condition("IngestionJob", "tenant", "Stalled", "True", "UnsupportedNamespace")
    assert "'tenant-a'" in told
    mine.create("VectorIndex", "other", {"storeRef": {"name": "postgres"}, "dimension": 3, "metric": "cosine"})
    mine.wait_ready("VectorIndex", "other")
    mine.create("IngestionJob", "metric", _copy(indexRef={"name": "other"}))
    told = mine.wait_condition("IngestionJob", "metric", "Stalled", "True", "WrongMetric")
    assert "VectorIndex old compares by euclidean, and VectorIndex other by cosine" in told
    for name in ("tenant", "metric"):
        assert "lastRuns" not in mine.get("IngestionJob", name)["status"]
    assert table.rows() == {}
    for spec, message in (
        (_copy(parse={"type": "text"}), "leave out parse, chunk and embedding"),
        (_copy(indexRef={"name": "old"}), "an index cannot be copied onto itself"),
        (_copy(source={"vectorIndex": {"name": "old"}, "http": {"urls": ["https://x.example"]}}), "exactly one of"),
        (_copy(indexNamespace="not/one"), "indexNamespace"),
    ):
        with pytest.raises(kubernetes.client.ApiException) as caught:
            mine.create("IngestionJob", "refused", spec)
        assert message in str(caught.value.body)
    with pytest.raises(kubernetes.client.ApiException, match="indexNamespace is immutable"):
        mine.patch("IngestionJob", "tenant", {"spec": {"indexNamespace": "tenant-b"}})
    assert condition(mine.get("IngestionJob", "tenant"), "Ready")["status"] == "False"
