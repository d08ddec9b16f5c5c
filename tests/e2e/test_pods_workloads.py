"""Workloads of a test's own in real pods, as tests of rotation need them.

What is checked: a Deployment of our image runs a program on two replicas that reads a Secret, in its environment and in
its files; a changed annotation of the template rolls it, and the new pods have the new value. The image has what every
store, source and model needs.
"""

from __future__ import annotations

import json
from functools import partial

import pytest
from tests.support.real_pods import Pods, wait_until

pytestmark = [pytest.mark.pods, pytest.mark.cluster, pytest.mark.timeout(300)]
PROGRAM = """
    import os, time
    while True:
        with open("/etc/secret/password") as file:
            print(os.environ["password"], file.read(), flush=True)
        time.sleep(0.2)
"""


EVERYTHING = """
    import importlib, re, time
    from importlib import metadata
    from vectorwright.stores.registry import MODULES
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0] for line in metadata.requires("vectorwright")}
    missing = []
    for name in sorted(names - {"vectorwright"}):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    for module in [*MODULES.values(), "faiss", "lancedb", "wordllama"]:
        importlib.import_module(module)
    print("missing:", missing, "of", len(names), flush=True)
    time.sleep(600)
"""


def secret(pods: Pods, value: str) -> None:
    pods.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"password": value}})


def test_a_deployment_reads_its_secret_and_rolls(pods: Pods) -> None:
    secret(pods, "first")
    deployment = pods.deployment("client", PROGRAM, secret="login")
    assert deployment["status"]["readyReplicas"] == 2
    wait_until(lambda: pods.logs("app=client").count("first first") >= 2, "both replicas read the Secret")
    old = {pod["metadata"]["uid"] for pod in pods.all("app=client")}
    secret(pods, "second")
    change = {"spec": {"template": {"metadata": {"annotations": {"example.org/revision": "2"}}}}}
    pods.kubectl("patch", "deployment", "client", "-p", json.dumps(change))
    pods.wait_rolled_out("client")
    fresh = [pod for pod in pods.all("app=client") if "deletionTimestamp" not in pod["metadata"]]
    assert len(fresh) == 2
    assert not old & {pod["metadata"]["uid"] for pod in fresh}
    for pod in fresh:
        wait_until(partial(has_read, pods, pod["metadata"]["name"], "second second"), "a new pod has the new value")
        assert not has_read(pods, pod["metadata"]["name"], "first")


def has_read(pods: Pods, name: str, value: str) -> bool:
    return value in pods.kubectl("logs", name)


def test_the_image_has_every_driver(pods: Pods) -> None:
    pods.deployment("everything", EVERYTHING, replicas=1)
    wait_until(lambda: "missing:" in pods.logs("app=everything"), "everything is imported", 90)
    assert "missing: [] of" in pods.logs("app=everything")
