"""What an APIKeyRotation tells: columns, conditions as tools read them, attempts, metrics, and ``vectorwright rotate``.

- In progress for kstatus only until there is a key for what the spec says; failed when somebody must act; current while
  the next key is issued.
- ``kubectl get akr`` and ``kubectl wait`` show it; expiry, renewal and results are metrics, which go with the resource.
- The command follows a rotation, allows the revocation, and says what is missing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import kubernetes
import pytest
from tests.support.qdrant import StartQdrant
from tests.support.rotation_stores import until
from tests.support.rotations import Rotation, make_anywhere
from tests.support.vectorwright import Body, Resources

pytestmark = pytest.mark.cluster

Reading = Literal["Terminating", "InProgress", "Failed", "Current"]


def kstatus(body: Body) -> Reading:
    """As kstatus reads an object of a custom resource."""
    if body["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = body.get("status") or {}
    observed = status.get("observedGeneration")
    conditions = {item["type"]: item["status"] for item in status.get("conditions") or ()}
    if observed is not None and observed != body["metadata"]["generation"]:
        return "InProgress"
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "InProgress" if conditions.get("Ready", "True") != "True" else "Current"


class Watching:
    """Every version of one resource that the API server told of."""

    def __init__(self, resources: Resources, name: str) -> None:
        self.seen: list[Body] = []
        self._client = kubernetes.config.new_client_from_config(str(resources.cluster.kubeconfig))
        self._custom: Any = kubernetes.client.CustomObjectsApi(self._client)
        self._watch: Any = kubernetes.watch.Watch()
        self._place = ("vectorwright.dev", "v1alpha1", resources.namespace, "apikeyrotations")
        self._selector = f"metadata.name={name}"
        self._since = ""
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        listed = self._custom.list_namespaced_custom_object
        which = {"field_selector": self._selector, "resource_version": self._since}
        for event in self._watch.stream(listed, *self._place, **which, timeout_seconds=280):
            self.seen.append(event["object"])
            if event["type"] == "DELETED":
                return

    def __enter__(self) -> list[Body]:
        # The thread may be slow to begin: it is told everything from now on.
        self._since = self._custom.list_namespaced_custom_object(*self._place)["metadata"]["resourceVersion"]
        self._thread.start()
        return self.seen

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._client.close()


def test_tools_see_progress_until_there_is_a_key_and_then_a_current_object(resources: Resources) -> None:
    make_anywhere(resources)
    rotation = Rotation(resources)
    with Watching(resources, rotation.name) as seen:
        rotation.make(rotationInterval="1h")
        resources.cluster.kubectl_run(
            "wait", "akr/rotation", "-n", resources.namespace, "--for=condition=Ready", "--timeout=60s"
        )
        rotation.idle(1)
        rotation.request()
        rotation.idle(2)
        rotation.change(identity={"generated": {"prefix": "vx_"}})
        rotation.idle(3)
        rotation.change(schedule={"cron": "99 * * * *"}, rotationInterval=None)
        rotation.stalled("InvalidSchedule")
        rotation.delete()
    # A new object tells nothing yet, as any does; from the first status on it is in progress until there is a key.
    told = [body for body in seen if body.get("status")]
    published = [(body["status"].get("revision") or 0) for body in told]
    readings: dict[tuple[int, int], set[Reading]] = {}
    for body, revision in zip(told, published, strict=True):
        if body["metadata"].get("deletionTimestamp"):
            continue
        same = body["status"].get("observedGeneration") == body["metadata"]["generation"]
        if same:
            readings.setdefault((revision, body["metadata"]["generation"]), set()).add(kstatus(body))
    assert readings == {
        (0, 1): {"InProgress"},
        (1, 1): {"Current"},
        (2, 1): {"Current"},
        (2, 2): {"InProgress"},
        (3, 2): {"Current"},
        (3, 3): {"Failed"},
    }
    assert told[0]["status"]["conditions"][0]["status"] == "Unknown"


def test_columns_show_where_a_rotation_is(resources: Resources, start_qdrant: StartQdrant) -> None:
    key = "an-api-key-of-the-server"
    server = start_qdrant(api_key=key, jwt_rbac=True)
    resources.create("VectorStore", "store", {"qdrant": {"url": server.url, "grpcPort": server.grpc_port}})
    resources.secret("admin", token=key)
    rotation = Rotation(resources)
    rotation.make(
        identity={"qdrantToken": {"access": "r"}},
        adminCredentials={"name": "admin"},
        rotationInterval="1d",
        keyLifetime="36h",
        overlap="1h",
    )
    status = rotation.idle(1)
    rotation.request()
    rotation.blocked("the overlap")

    def columns(*flags: str) -> dict[str, str]:
        shown = resources.cluster.kubectl_run("get", "akr", "rotation", "-n", resources.namespace, *flags)
        head, line = shown.splitlines()
        starts = [found.start() for found in re.finditer(r"\S+", head)]
        ends = [*starts[1:], None]
        cells = [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
        return dict(zip(head.split(), cells, strict=True))

    now = rotation.status
    short = columns()
    assert list(short) == ["NAME", "READY", "STEP", "STORE", "SECRET", "EXPIRES", "NEXT", "AGE"]
    assert [short[name] for name in ("READY", "STEP", "STORE", "SECRET")] == ["True", "Grace", "store", "published"]
    assert (short["EXPIRES"], short["NEXT"]) == (now["notAfter"], now["renewalTime"])
    wide = columns("-o", "wide")
    assert wide["BLOCKEDBY"].startswith("the overlap, until 20")
    assert wide["REVISION"] == "2"
    lives = datetime.fromisoformat(status["notAfter"]) - datetime.fromisoformat(status["issuedAt"])
    assert lives.total_seconds() == 36 * 3600

    # And as metrics.
    until(lambda: metrics(resources, rotation.name))  # a child that is slow to answer is left out
    found = metrics(resources, rotation.name)
    for name, field in (("expiration", "notAfter"), ("renewal", "renewalTime")):
        moment = datetime.fromisoformat(now[field]).timestamp()
        assert abs(found[f"vectorwright_key_{name}_timestamp_seconds"] - moment) < 1
    assert found["vectorwright_key_rotation_blocked"] == 1
    assert found['vectorwright_key_rotations_total{result="success"}'] == 1
    server.stop()
    other = Rotation(resources, "other", "other-key")
    other.make(identity={"qdrantToken": {"access": "r"}}, adminCredentials={"name": "admin"})
    other.wait(lambda status: status.get("failedAttempts"))
    until(lambda: metrics(resources, other.name).get('vectorwright_key_rotations_total{result="failure"}'))
    for ended in (rotation, other):
        ended.delete()
        until(partial(_is_forgotten, resources, ended.name))  # when the operator has heard of it


def _is_forgotten(resources: Resources, name: str) -> bool:
    return metrics(resources, name) == {}


def metrics(resources: Resources, name: str) -> dict[str, float]:
    """The metrics of a rotation, without the labels that say whose they are."""
    found = {}
    for line in resources.operator.get("/metrics").splitlines():
        match = re.fullmatch(r"(vectorwright_key_\w+)\{(.*)\} (\S+)", line)
        if match and f'namespace="{resources.namespace}"' in match[2] and f'name="{name}"' in match[2]:
            rest = [part for part in match[2].split(",") if part.split("=")[0] not in {"namespace", "name"}]
            found[match[1] + (f"{{{','.join(rest)}}}" if rest else "")] = float(match[3])
    return found


def command(kubeconfig: Path, namespace: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``vectorwright rotate``."""
    program = Path(sys.executable).with_name("vectorwright")
    return subprocess.run(
        [program, "rotate", "--kubeconfig", kubeconfig, "-n", namespace, *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_the_command_follows_a_rotation_and_allows_the_revocation(resources: Resources, tmp_path: Path) -> None:
    make_anywhere(resources)
    rotation = Rotation(resources)
    rotation.make(revokePolicy="ConfirmFirst", overlap="0s")
    first = rotation.idle(1)["current"]["id"]
    kubeconfig = resources.cluster.kubeconfig
    ended = command(kubeconfig, resources.namespace, "rotation", "--wait", "--timeout", "15")
    assert ended.returncode == 1
    assert f"vectorwright.dev/confirm-revoke={first}" in ended.stderr
    assert "not through after 15 s" in ended.stderr
    ended = command(kubeconfig, resources.namespace, "rotation", "--wait", "--confirm")
    assert (ended.returncode, ended.stderr.count("Revoke")) in {(0, 0), (0, 1)}
    status = rotation.idle(2)
    second = status["current"]["id"]
    assert ended.stdout == f"rotation: key {second} is published; key {first} is revoked, not provable\n"
    ended = command(kubeconfig, resources.namespace, "rotation", "--wait")
    assert ended.returncode == 0
    assert f"key {second} is revoked" in ended.stdout
    ended = command(kubeconfig, resources.namespace, "nobody")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"APIKeyRotation nobody does not exist in namespace {resources.namespace}" in ended.stderr
    # Somebody who may look, and not ask.
    run, namespace = resources.cluster.kubectl_run, resources.namespace
    run("create", "serviceaccount", "reader", "-n", namespace)
    run("create", "role", "reader", "-n", namespace, "--verb=get", "--resource=apikeyrotations.vectorwright.dev")
    run("create", "rolebinding", "reader", "-n", namespace, "--role=reader", f"--serviceaccount={namespace}:reader")
    token = run("create", "token", "reader", "-n", namespace).strip()
    weak = tmp_path / "kubeconfig"
    weak.write_text(run("config", "view", "--raw", "--minify", "--flatten"))
    run("config", "set-credentials", "reader", f"--token={token}", "--kubeconfig", str(weak))
    run("config", "set-context", "--current", "--user=reader", "--kubeconfig", str(weak))
    ended = command(weak, namespace, "rotation", "--wait")
    assert ended.returncode == 1
    assert "cannot patch resource" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert rotation.status["revision"] == 3
