"""Where values of keys show: nowhere but in the Secrets, whatever the stores say.

Aspects covered: rotations of every strategy that needs no workload, by an operator that logs everything, with admins
and keys that are refused, and stores that quote in their errors what they were sent; each value that ever was in a
Secret, an access token among them, in every encoding; logs, tracebacks, all objects with their managed fields and
events, metrics, arguments and environments of all processes, files, the log of a PostgreSQL server that notes every
statement. What a worker's directory holds, and who may read it. The search itself finds what is put into each of these.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from tests.rotation.cases import IssuerCase
from tests.rotation.issuers.generated import Generated
from tests.rotation.issuers.milvus_users import MilvusDualIdentity
from tests.rotation.issuers.pinecone_keys import PineconeDualKey
from tests.rotation.issuers.postgres_roles import PostgresRolesCase
from tests.rotation.issuers.qdrant_cloud_keys import QdrantCloudDualKey
from tests.rotation.issuers.qdrant_tokens import RevocableTokenCase
from tests.rotation.issuers.weaviate_users import WeaviateDualIdentity
from tests.support import canary
from tests.support.canary import Canary, Place, TellingFront
from tests.support.rotation_client import at_work, versions
from tests.support.telling_postgres import TellingPostgres
from tests.support.vectorwright import Body, Resources

pytestmark = [pytest.mark.cluster, pytest.mark.server, pytest.mark.timeout(600)]

CASES: dict[str, type[IssuerCase]] = {
    "postgres": PostgresRolesCase,
    "weaviate": WeaviateDualIdentity,
    "qdrant": RevocableTokenCase,
    "cloud": QdrantCloudDualKey,
    "pinecone": PineconeDualKey,
    "milvus": MilvusDualIdentity,
    "generated": Generated,
}
OVER_HTTP = ("weaviate", "cloud", "pinecone")
"""Those whose issuers ask over HTTP, and can be told what they asked."""
VALUES = ("token", "password")


@pytest.fixture
def near() -> Iterator[Path]:
    """A directory with a short path: the path of a socket has about a hundred characters."""
    with tempfile.TemporaryDirectory(prefix="vw-") as made:
        yield Path(made)


@pytest.fixture
def resources(devcluster: Cluster, crds: list[str], namespace: str, near: Path) -> Iterator[Resources]:
    """A namespace with an operator of its own that logs everything."""
    directory, temporary = near / "operator", near / "tmp"
    directory.mkdir()
    temporary.mkdir()
    flags = ("--namespace", namespace, "--no-leader-election", "--log-level", "debug")
    operator = TrialOperator(devcluster.kubeconfig, *flags, directory=directory, environment={"TMPDIR": str(temporary)})
    with operator:
        found = Resources(devcluster, namespace, operator)
        yield found
        found.close()


class Scene:
    """Rotations of all cases in one namespace."""

    def __init__(self, resources: Resources, request: pytest.FixtureRequest, known: Canary) -> None:
        self.resources, self.known = resources, known
        self.fronts: list[TellingFront] = []
        self.cases: dict[str, IssuerCase] = {}
        for name, case in CASES.items():
            made = self.cases[name] = case(request)
            if name in OVER_HTTP:
                self._quote(made)
            fields = {"verifyThroughStore": False} if name == "generated" else {}
            self.rotate(name, made.assignment(name, **fields), made)

    def _quote(self, case: IssuerCase) -> None:
        fronts: dict[tuple[str, int], TellingFront] = {}
        grpc_port = case.double.cluster.grpc_port if isinstance(case, QdrantCloudDualKey) else None

        def through(host: str, port: int) -> tuple[str, int]:
            if port == grpc_port:
                return host, port
            if (host, port) not in fronts:
                fronts[host, port] = TellingFront(host, port)
                self.fronts.append(fronts[host, port])
            return fronts[host, port].host, fronts[host, port].port

        case.through = through  # type: ignore[method-assign]

    def rotate(self, name: str, assignment: Any, case: IssuerCase) -> None:
        """Make a store that is reached with the published key, and the rotation of that."""
        connection, credentials = assignment.connection, assignment.connection.credentials
        store: Body = {connection.provider: dict(connection.settings), "limits": {"timeout": "5s"}}
        self.resources.create(
            "VectorStore", name, {**store, "controlCredentials": {"name": f"{name}-key"}, "probeInterval": "5s"}
        )
        spec: Body = {
            "storeRef": {"name": name},
            "identity": {case.identity: dict(assignment.identity)},
            "strategy": case.strategy.value,
            "secret": {"name": f"{name}-key", "data": {"header": "Bearer ${token}", "before": "${previousToken}"}},
            "overlap": "100ms",
            "revokePolicy": "Automatic",
        }
        given = {part: getattr(credentials, part) for part in ("token", "username", "password")}
        if admin := {part: value for part, value in given.items() if value}:
            self.resources.secret(f"{name}-admin", **admin)
            spec["adminCredentials"] = {"name": f"{name}-admin"}
        self.resources.create("APIKeyRotation", name, spec)

    def note(self, stop: threading.Event) -> None:
        """Learn every value that is ever in a Secret."""
        for body in versions(self.resources.core.list_namespaced_secret, stop, namespace=self.resources.namespace):
            for field, encoded in (body.data or {}).items():
                value = base64.b64decode(encoded).decode()
                if field.rpartition(".")[2] in VALUES and value:
                    self.known.add(f"{field} of Secret {body.metadata.name}", value)
            double = getattr(self.cases["pinecone"], "double")  # noqa: B009 - of one case alone
            for token in list(double.admin._tokens):
                self.known.add("access token of Pinecone", token)

    def until_idle(self, name: str, request: str | None, timeout: float = 180) -> None:
        self.resources.wait(
            "APIKeyRotation",
            name,
            lambda body: (
                ((status := body.get("status") or {}).get("step"), status.get("handledRequest")) == ("Idle", request)
                and status.get("revision")
            ),
            timeout,
        )

    def request(self, value: str) -> None:
        for name in CASES:
            self.resources.annotate("APIKeyRotation", name, rotate_requested_at=value)

    def close(self) -> None:
        for case in self.cases.values():
            case.close()
        for front in self.fronts:
            front.close()


@contextlib.contextmanager
def every_statement(case: IssuerCase) -> Iterator[tuple[Path, int]]:
    """Have a PostgreSQL server note all statements: its log, and where that begins."""
    assert isinstance(case, PostgresRolesCase)
    server = case.served.server
    with server.connect() as admin:
        admin.execute("ALTER SYSTEM SET log_statement = 'all'")
        admin.execute("ALTER SYSTEM SET log_min_duration_statement = 0")
        admin.execute("SELECT pg_reload_conf()")
    time.sleep(0.5)
    try:
        yield server.base / "log", (server.base / "log").stat().st_size
    finally:
        with server.connect() as admin:
            admin.execute("ALTER SYSTEM RESET ALL")
            admin.execute("SELECT pg_reload_conf()")


def ingest(resources: Resources) -> Path:
    """Start a run in a store with a rotated key, and return the directory of its worker while it works."""
    index: Body = {"storeRef": {"name": "postgres"}, "indexName": "docs", "dimension": 4, "metric": "cosine"}
    resources.create("VectorIndex", "docs", index)
    resources.wait_ready("VectorIndex", "docs", timeout=180)
    rows = "\n".join(json.dumps({"text": f"record {n}", "v": [n, 1, 1, 1]}) for n in range(2000))
    resources.config_map("rows", **{"table.jsonl": rows})
    spec: Body = {"indexRef": {"name": "docs"}, "source": {"configMap": {"name": "rows"}}}
    spec |= {"embedding": {"precomputed": {"field": "v"}}, "batch": {"maxRecords": 10, "maxRequestsPerSecond": 10}}
    resources.create("IngestionJob", "job", {**spec, "runner": {"type": "InProcess"}})
    temporary = resources.operator.directory.parent / "tmp"
    found: list[Path] = []

    def has_begun(_: Body) -> bool:
        found[:] = [path.parent for path in temporary.glob("vw-run-*/progress.sock")]
        return bool(found)

    resources.wait("IngestionJob", "job", has_begun, timeout=180)
    return found[0]


def everywhere(resources: Resources, log: Path, since: int) -> list[Place]:
    """All places."""
    operator = resources.operator
    return [
        *canary.objects(resources.cluster, resources.namespace),
        Place("metrics", operator.get("/metrics").encode()),
        *canary.processes(operator.pid),
        *canary.files(operator.directory),
        *canary.files(operator.directory.parent / "tmp", but=("credentials",)),
        canary.log("log of PostgreSQL", log, since),
    ]


@pytest.fixture
def scene(resources: Resources, request: pytest.FixtureRequest) -> Iterator[Scene]:
    made = Scene(resources, request, Canary())
    yield made
    made.close()


def test_no_key_shows_anywhere(scene: Scene, resources: Resources) -> None:
    known = scene.known
    scene.cases["postgres"].without_right()  # made by the tests, in clear text: before the server notes statements
    with contextlib.closing(TellingPostgres()) as telling, every_statement(scene.cases["postgres"]) as (log, since):
        with at_work(scene.note):
            for name in CASES:
                scene.until_idle(name, None)
            modes = canary.modes(ingest(resources))
            refused(scene, telling)
            for front in scene.fronts:
                front.tells = True
            scene.request("while they tell")
            time.sleep(8)
            places = everywhere(resources, log, since)
            for front in scene.fronts:
                front.tells = False
            for name in CASES:
                scene.until_idle(name, "while they tell")
            scene.request("once more")
            for name in CASES:
                scene.until_idle(name, "once more")
        places += everywhere(resources, log, since)
        assert telling.told >= 2
    assert all(front.told >= 3 for front in scene.fronts)
    assert known.find(places) == []
    # Values of three keys of each, and of each admin, were looked for, in as many places as there are.
    owners = known.owners
    for name in CASES:
        # Most are seen first in the private Secret.
        its = (f" of Secret {name}-key", f" of Secret {name}.key-rotation")
        assert len([owner for owner in owners if owner.endswith(its)]) >= 3, (name, owners)
    assert "access token of Pinecone" in owners
    names = {place.name.split(" ")[0] for place in places}
    assert {"APIKeyRotation", "Event", "Secret", "VectorStore", "metrics", "cmdline", "environ", "file", "log"} <= names
    content = {place.name: place.content for place in places}
    assert b"DEBUG" in content["file operator.log"]
    assert b"SCRAM-SHA-256" in content["log of PostgreSQL"]
    assert b"ALTER ROLE" in content["log of PostgreSQL"]
    check_directory(modes)


def refused(scene: Scene, telling: TellingPostgres) -> None:
    """Admins that are wrong, and one whose store quotes its password."""
    postgres, weaviate = scene.cases["postgres"], scene.cases["weaviate"]
    scene.rotate("wrong-postgres", postgres.wrong_admin(), postgres)
    scene.rotate("wrong-weaviate", weaviate.wrong_admin(), weaviate)
    scene.rotate("powerless-postgres", postgres.without_right(), postgres)
    scene.rotate("missing-postgres", postgres.missing_role(), postgres)
    quoted = postgres.wrong_admin()
    quoted.connection.settings.update(host=telling.host, port=telling.port)  # type: ignore[attr-defined]
    scene.rotate("quoted-postgres", quoted, postgres)
    for name in ("wrong-postgres", "wrong-weaviate", "powerless-postgres", "missing-postgres"):
        scene.resources.wait(
            "APIKeyRotation",
            name,
            lambda body: any(
                item["type"] == "Stalled" and item["status"] == "True"
                for item in (body.get("status") or {}).get("conditions") or ()
            ),
        )


def check_directory(modes: dict[str, str]) -> None:
    """A worker's directory: nobody else may read any of it, and of credentials there is the store's key alone."""
    assert set(modes.values()) <= {"600", "700", "755", "644"}, modes
    credentials = {path: mode for path, mode in modes.items() if "credentials" in path}
    assert credentials, modes
    folders = {"credentials", "store"}
    assert {mode for path, mode in credentials.items() if Path(path).name not in folders} == {"600"}, credentials
    assert {mode for path, mode in credentials.items() if Path(path).name in folders} == {"700"}, credentials
    assert {Path(path).name for path in credentials} - folders <= {"username", "password", "token"}


PLANTED = "vw-canary-Zm9v/+bar_ä'\"{}-0123456789"
"""As unlike a password of ours as a value can be: every encoding writes it in another way."""


PLACES = ("annotation", "field", "status", "event", "config map", "log", "file", "statement", "argument", "variable")


def written(value: str) -> dict[str, str]:
    """Ways in which a value may be told by those who do not mean to."""
    basic = base64.b64encode(f"someone:{value}".encode()).decode()
    return {
        "raw": f"x{value}x",
        "basic": f"Basic {basic}",
        "base64url": base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
        "URL": f"https://host/?key={quote(value, safe='')}",
        "hex": f"\\x{value.encode().hex()}",
        "repr": repr({"key": value}),
        "JSON": json.dumps({"key": value}),
        "JSON of JSON": json.dumps({"key": base64.b64encode(value.encode()).decode()}),
    }


@pytest.mark.parametrize("shape", list(written(PLANTED)))
def test_the_search_knows_encodings(shape: str) -> None:
    known = Canary()
    known.add("the planted one", PLANTED)
    assert known.find([Place("here", written(PLANTED)[shape].encode())]), shape
    other = written(PLANTED[::-1])[shape].encode()
    assert known.find([Place("here", other)]) == []


def test_the_search_knows_parts_of_tokens() -> None:
    claims = base64.urlsafe_b64encode(b'{"exp":1795272620,"access":"m"}').decode().rstrip("=")
    known = Canary()
    known.add("the token", f"eyJhbGciOiJIUzI1NiJ9.{claims}.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg")
    for told in (claims, "c2lnbmF0dXJlLW9mLXRoZS10b2tlbg", '{"exp":1795272620,"access":"m"}'):
        assert known.find([Place("here", f"…{told}…".encode())])
    assert known.find([Place("here", b"eyJhbGciOiJIUzI1NiJ9.e30.")]) == []


def test_the_search_finds_what_is_put_into_each_place(
    resources: Resources, postgres_with_roles: Any, tmp_path: Path
) -> None:
    planted = {name: f"planted-{secrets.token_hex(12)}" for name in PLACES}
    known = Canary()
    for name, value in planted.items():
        known.add(name, value)
    resources.create("VectorStore", "store", {"memory": {"local": True}})
    resources.wait_ready("VectorStore", "store")
    resources.operator.stop()  # it would put its own status right
    place = ("vectorwright.dev", "v1alpha1", resources.namespace, "vectorstores", "store")
    notes = {"note": planted["annotation"], f"x/{planted['field']}": "told by managed fields"}
    resources.patch("VectorStore", "store", {"metadata": {"annotations": notes}})
    resources._custom.patch_namespaced_custom_object_status(*place, {"status": {"endpoint": planted["status"]}})
    about = {"kind": "VectorStore", "name": "store", "namespace": resources.namespace}
    event: Any = {"metadata": {"name": "told"}, "message": planted["event"], "reason": "Told", "involvedObject": about}
    resources.core.create_namespaced_event(resources.namespace, event)
    resources.config_map("told", key=base64.b64encode(planted["config map"].encode()).decode())
    resources.secret("hidden", key=planted["config map"])
    with resources.operator.log.open("a") as log:
        log.write(planted["log"])
    (resources.operator.directory / "deep").mkdir()
    (resources.operator.directory / "deep" / "file").write_text(planted["file"])
    server = postgres_with_roles.server
    since = (server.base / "log").stat().st_size
    with server.connect() as admin, contextlib.suppress(psycopg.Error):
        admin.execute(f"SELECT nothing FROM nowhere WHERE password = '{planted['statement']}'")
    command = [sys.executable, "-c", "input()", planted["argument"]]
    environment = {**os.environ, "KEY": planted["variable"]}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as child:
        found = known.find(
            [
                *canary.processes(child.pid),
                *canary.objects(resources.cluster, resources.namespace),
                *canary.files(resources.operator.directory),
                canary.log("log of PostgreSQL", server.base / "log", since),
            ]
        )
        child.communicate(b"\n")
    assert {finding.value for finding in found} == set(planted)
    where = {finding.value: finding.place for finding in found}
    assert where["config map"] == "ConfigMap told"
    assert where["event"] == "Event told"
    assert where["argument"].startswith("cmdline ")
    assert where["variable"].startswith("environ ")
    assert planted["status"] not in str(found)
