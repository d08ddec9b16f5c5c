"""Rotation of a role of a real PostgreSQL, for clients in real pods, by the operator that runs as pods with the rights
of ``components/key-rotation``.

What is checked: a rolling update brings each key to both replicas of a Deployment, once, and no query of any pod is
refused; the role before cannot log in once the history says so; a pod that has the old key in its environment holds the
revocation back, by name, while the kubelet refreshes its mounted file; a run of an IngestionJob goes on over a rotation
with the refreshed file; a standby finishes a rotation whose leader dies in the middle.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from deploy.devcluster.paths import CHECKOUT
from tests.support.installed import InstalledOperator
from tests.support.openai import OpenAIServer
from tests.support.postgres_roles import PostgresWithRoles
from tests.support.real_pods import Doors, Pods, wait_until
from tests.support.rotated_pods import READY_FILE, Clients, collecting, never_without_a_key
from tests.support.rotations import Rotation
from tests.support.vectorwright import Body, Resources

pytestmark = [pytest.mark.pods, pytest.mark.cluster, pytest.mark.server, pytest.mark.timeout(600)]
COMPONENT = CHECKOUT / "deploy" / "kustomize" / "components" / "key-rotation"
WORKERS = "app.kubernetes.io/component=worker"
ROTATIONS = 3
KUBELET_SECONDS = 100.0
"""Within this a kubelet refreshes a mounted Secret: a minute, lengthened by a half, and its look at the Secret."""
DOCUMENTS, BATCH = 480, 4
BYSTANDER = """
    import hashlib, os, time
    def short(value):
        return hashlib.sha256(value.encode()).hexdigest()[:12]
    while True:
        with open("/etc/secret/password") as file:
            print("environment", short(os.environ["password"]), "file", short(file.read()), flush=True)
        time.sleep(0.5)
"""


@dataclass
class Scene:
    """A store with roles, and the rotation that makes and publishes them."""

    rotation: Rotation
    served: PostgresWithRoles
    pods: Pods
    place: Body
    """Where pods find the database."""

    def key(self) -> tuple[str, str]:
        """User and password that are published now."""
        values = self.rotation.values
        return values["username"], values["password"]

    def accepts(self, key: tuple[str, str]) -> bool:
        """Whether PostgreSQL lets in with a key."""
        return self.served.accepts(*key)

    def deploy(self, clients: Clients) -> None:
        """The Deployment that is restarted."""
        self.pods.deployment("client", clients.program, secret="key", ready_file=READY_FILE, grace=20)

    def generation(self) -> int:
        """How often the Deployment's spec was written."""
        return int(self.pods.get("deployment", "client")["metadata"]["generation"])

    def replicas(self) -> set[str]:
        """Names of the pods of the Deployment that are not ending."""
        found = self.pods.all("app=client")
        assert [pod for pod in found if pod["status"]["containerStatuses"][0]["restartCount"]] == []
        return {pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def is_refused(self, revision: int, old: tuple[str, str], keys: list[tuple[str, str]]) -> Body:
        """The record of a rotation that is through: the key before is dead, and the history has all of it."""
        record: Body = self.rotation.status["history"][0]
        assert (record["revision"], record["reason"], record["keyId"]) == (revision, "Requested", self.key()[0])
        assert record["revokedKeyId"] == old[0]
        moments = [record[f"{what}At"] for what in ("started", "published", "revoked", "refused", "finished")]
        assert moments == sorted(moments)
        assert [self.accepts(key) for key in (*keys, self.key())] == [False] * len(keys) + [True]
        assert self.served.sessions(old[0]) == 0
        return record


@pytest.fixture
def scene(served: Resources, pods: Pods, doors: Doors, postgres_with_roles: PostgresWithRoles) -> Iterator[Scene]:
    """The rotation, made and not awaited."""
    pods.kubectl("apply", "-k", str(COMPONENT))
    host, _, port = doors.to(postgres_with_roles.server.port).rpartition(":")
    database = postgres_with_roles.database
    served.secret("admin", username=postgres_with_roles.admin_role, password=postgres_with_roles.admin_password)
    block = {"host": host, "port": int(port), "database": database, "schema": "docs", "sslMode": "disable"}
    store = {"pgvector": block, "controlCredentials": {"name": "key"}, "probeInterval": "1s"}
    served.create("VectorStore", "store", store)
    rotation = Rotation(served, secret="key")
    rotation.make(
        adminCredentials={"name": "admin"},
        identity={"postgres": {"role": postgres_with_roles.base_role}},
        revokePolicy=None,
        rolloutRestartTargets=[{"kind": "Deployment", "name": "client"}],
    )
    place = {"host": host, "port": int(port), "dbname": database, "sslmode": "disable"}
    yield Scene(rotation, postgres_with_roles, pods, place)
    # While the operator still has its rights here.
    served.cluster.kubectl_run("-n", served.namespace, "delete", "akr", "--all", "--timeout=60s")


@pytest.fixture
def clients(scene: Scene, doors: Doors) -> Iterator[Clients]:
    """What the clients of the Deployment tell; it runs once this is there, and the first key is published."""
    with collecting(doors, scene.place) as found:
        scene.deploy(found)
        scene.rotation.idle(1, 120)
        scene.pods.wait_rolled_out("client")
        wait_until(lambda: scene.replicas() <= set(found.told), "both replicas work")
        yield found
        scene.pods.kubectl("delete", "deployment", "--all", "--timeout=60s")
        scene.pods.wait_gone("app=client")


def confirmed(scene: Scene, old: tuple[str, str]) -> None:
    """Give the word for the first revocation, as ``blockedBy`` says it."""
    told = scene.rotation.blocked("vectorwright.dev/confirm-revoke=", 120)
    word = told.partition("vectorwright.dev/confirm-revoke=")[2].split()[0]
    assert word == f"{old[0]}@1"  # names that take turns come again
    assert scene.accepts(old), "revoked without a person's word"
    scene.rotation.annotate(confirm_revoke=word)


def test_each_replica_is_replaced_once_and_no_query_is_refused(scene: Scene, clients: Clients) -> None:
    keys: list[tuple[str, str]] = []
    seconds = []
    with never_without_a_key(scene.rotation) as steps:
        for revision in range(2, ROTATIONS + 2):
            keys.append(scene.key())
            generation, before, began = scene.generation(), scene.replicas(), time.monotonic()
            gone = set(clients.told) - before
            scene.rotation.request()
            if revision == 2:
                confirmed(scene, keys[-1])
            scene.rotation.idle(revision, 120)
            seconds.append(time.monotonic() - began)
            scene.is_refused(revision, keys[-1], keys)
            assert scene.generation() == generation + 1
            after = scene.replicas()
            assert len(after) == 2
            assert not after & before
            assert set(clients.told) - gone == before | after, "some pod was replaced more than once"
            assert before <= clients.ended()
    assert clients.errors() == []
    assert {clients.told[pod]["user"] for pod in scene.replicas()} == {scene.key()[0]}
    assert all(one["queries"] > 0 for one in clients.told.values())
    assert len(scene.rotation.status["history"]) == ROTATIONS + 1
    assert len(scene.served.roles()) <= 2
    assert len(set(keys)) == ROTATIONS
    print(f"\n{clients.figures()}; rotations took {seconds}; {steps}")  # noqa: T201


def test_who_keeps_the_old_key_holds_its_revocation_back_while_files_are_refreshed(
    scene: Scene, clients: Clients
) -> None:
    scene.pods.deployment("bystander", BYSTANDER, replicas=1, secret="key")
    (bystander,) = scene.pods.all("app=bystander")
    name, old = bystander["metadata"]["name"], scene.key()
    scene.rotation.change(revokePolicy="Automatic")
    with never_without_a_key(scene.rotation):
        scene.rotation.request()
        wait_until(lambda: scene.key() != old, "the new key is published", 120)
        published, began = scene.key(), time.monotonic()
        both = f"environment {short(old)} file {short(published)}"
        wait_until(
            lambda: both in scene.pods.kubectl("logs", name),
            "the kubelet refreshes the mounted Secret",
            KUBELET_SECONDS,
        )
        refreshed = time.monotonic() - began
        told = scene.rotation.blocked(f"pod {name} of ReplicaSet bystander-", 120)
        assert "client" not in told, "its own targets have the new key"
        # A file that is refreshed says nothing of what the program remembers.
        time.sleep(5)
        assert scene.rotation.status["step"] == "Wait"
        assert scene.accepts(old)
        assert f"environment {short(published)}" not in scene.pods.kubectl("logs", name)
        scene.pods.kubectl("delete", "deployment", "bystander")
        scene.rotation.idle(2, 60)
        scene.is_refused(2, old, [old])
    assert clients.errors() == []
    print(f"\n{clients.figures()}; the kubelet took {refreshed:.0f} s")  # noqa: T201


def short(value: tuple[str, str]) -> str:
    """As the bystander tells a password."""
    return hashlib.sha256(value[1].encode()).hexdigest()[:12]


@pytest.mark.parametrize("how", ["deleted", "killed"])
def test_a_standby_finishes_what_a_leader_began(
    scene: Scene, clients: Clients, installed: InstalledOperator, how: str
) -> None:
    scene.pods.deployment("bystander", BYSTANDER, replicas=1, secret="key")
    scene.rotation.change(revokePolicy="Automatic")
    leader, before = installed.wait_led(), installed.holder()
    old, generation, known = scene.key(), scene.generation(), set(clients.told)
    with never_without_a_key(scene.rotation) as steps:
        scene.rotation.request()
        scene.rotation.step("Wait", timeout=120)
        if how == "deleted":
            installed.pods.delete_at_once(leader["metadata"]["name"])
        else:
            installed.pods.kill(leader)
        installed.wait_led(after=before)
        scene.rotation.nudge()
        scene.rotation.blocked("of ReplicaSet bystander-", 120)
        assert scene.accepts(old)
        scene.pods.kubectl("delete", "deployment", "bystander")
        scene.rotation.idle(2, 120)
        scene.is_refused(2, old, [old])
    assert scene.generation() == generation + 1
    assert len(scene.replicas()) == 2
    assert set(clients.told) - known == scene.replicas(), "a pod was replaced twice"
    assert len(scene.pods.kubectl("get", "replicasets", "-l", "app=client", "-o", "name").split()) == generation + 1
    assert [reason for reason in scene.rotation.reasons() if reason == "RestartReverted"] == []
    assert clients.errors() == []
    print(f"\n{clients.figures()}; {steps}")  # noqa: T201


def test_a_run_goes_on_over_a_rotation(
    served: Resources, scene: Scene, clients: Clients, doors: Doors, openai_server: OpenAIServer
) -> None:
    served.secret("embedder-key", **{"api-key": openai_server.key})
    served.config_map("pages", **{f"page-{n:03}.md": f"# Page {n}\n\ntext number {n}\n" for n in range(DOCUMENTS)})
    model = {"baseUrl": f"http://{doors.to(openai_server.port)}/v1", "model": openai_server.model, "batchSize": BATCH}
    credentials = {"name": "embedder-key", "tokenKey": "api-key"}
    served.create("EmbeddingModel", "model", {"openAI": model, "credentials": credentials})
    index = {"storeRef": {"name": "store"}, "indexName": "pages", "embeddingModelRef": {"name": "model"}}
    served.create("VectorIndex", "index", index)
    served.wait_ready("VectorIndex", "index", 120)
    openai_server.delay = 2.0
    job = {"indexRef": {"name": "index"}, "source": {"configMap": {"name": "pages"}}, "runner": {}}
    served.create("IngestionJob", "job", {**job, "batch": {"maxRecords": BATCH, "workers": 1}})
    scene.rotation.change(revokePolicy="Automatic")
    old = scene.key()
    openai_server.embedded.clear()
    wait_until(lambda: len(pages(openai_server)) >= BATCH * 2, "the run is in the middle", 120)
    (worker,) = scene.pods.all(WORKERS)
    with never_without_a_key(scene.rotation):
        scene.rotation.request()
        wait_until(lambda: scene.key() != old, "the new key is published", 120)
        name, began = worker["metadata"]["name"], time.monotonic()
        wait_until(
            lambda: "the credentials for the store changed" in scene.pods.kubectl("logs", name),
            "the worker goes on with the new key",
            KUBELET_SECONDS,
        )
        renewed, done = time.monotonic() - began, len(set(pages(openai_server)))
        assert done < DOCUMENTS, "the run was over before it had the new key"
        # It has not ended when the Deployment is through, however busy the machine is.
        openai_server.delay = 10.0
        scene.rotation.blocked(f"pod {name} of Job ", 120)
        assert scene.rotation.status["step"] == "Wait"
        assert scene.accepts(old)
        openai_server.delay = 0.0
        body = served.wait_phase("job", "Succeeded", "Failed", "Unverified", timeout=180)
        scene.rotation.idle(2, 120)
        scene.is_refused(2, old, [old])
    counts = body["status"]["counts"]
    assert body["status"]["phase"] == "Succeeded", body["status"]
    assert counts["vectorsWritten"] == DOCUMENTS
    assert counts.get("documentsFailed", 0) + counts.get("vectorsFailed", 0) == 0
    assert len(pages(openai_server)) == DOCUMENTS, "nothing is embedded twice"
    assert clients.errors() == []
    print(f"\n{clients.figures()}; new key after {renewed:.0f} s, at {done} of {DOCUMENTS} documents")  # noqa: T201


def pages(embedder: OpenAIServer) -> list[str]:
    """What was embedded of the documents, in order; the operator has a probe of its own embedded now and then."""
    return [text for text in embedder.embedded if text.startswith("# Page")]
