"""What a rotation of both keys of a Qdrant server refuses before it changes anything, and how it says so.

- Secrets that are not there, not to be written, or that others write; a second key that a person made
- workloads whose restart would have requests refused, would never end, or would change nothing
- servers that are too old, that let everybody in, or that have other keys than the Secret
- replicas that differ: neither accepted nor refused
- a controller elsewhere: there is no cluster to do it in
"""

from __future__ import annotations

import base64
from typing import Any

import pytest
from tests.rotation.cases import key_request, owner
from tests.support.api_double import ApiDouble, Body, merge
from tests.support.qdrant import QdrantDouble, StartQdrant, StartQdrantReplicas
from tests.support.qdrant_workload import FIRST, NAMESPACE, identity, pod_spec, secret_manifest, workload_manifest

from vectorwright.errors import Conflict, Retryable, Terminal, VectorwrightError
from vectorwright.rotation.base import Assignment, KeyMaterial
from vectorwright.rotation.qdrant_server_keys import QdrantServerKeys
from vectorwright.rotation.qdrant_server_secret import ANNOTATION
from vectorwright.stores.registry import Connection

NAME = "qdrant"


@pytest.fixture
def api() -> ApiDouble:
    """A fitting Secret and workload."""
    made = ApiDouble()
    made.apply(secret_manifest(NAME))
    made.apply(workload_manifest(NAME))
    return made


@pytest.fixture
def double(start_qdrant: StartQdrant) -> QdrantDouble:
    return start_qdrant(api_key=FIRST)


def opened(api: ApiDouble, server: Any, **changes: Any) -> QdrantServerKeys:
    place = Connection("qdrant", {"url": server.url, "grpcPort": server.grpc_port}, timeout=5)
    return QdrantServerKeys(Assignment(place, {**identity(NAME), **changes}, owner("search"), api.client()))


async def refused(api: ApiDouble, server: Any, **changes: Any) -> VectorwrightError:
    """What a check says, and then creating a key, too; nothing is written."""
    issuer = opened(api, server, **changes)
    told: list[VectorwrightError] = []
    for call in (issuer.check, lambda: issuer.create(key_request(issuer, 1))):
        with pytest.raises((Terminal, Conflict)) as failed:
            await call()
        told.append(failed.value)
    assert told[0].reason == told[1].reason
    assert FIRST not in str(told)
    return told[0]


def change(api: ApiDouble, kind: str, name: str, **changes: Any) -> None:
    body = api.get_now(kind, NAMESPACE, name)
    api.objects[kind, NAMESPACE, name] = merge(body, changes)


async def test_what_fits_is_not_refused(api: ApiDouble, double: QdrantDouble) -> None:
    await opened(api, double).check()
    assert api.writes == []


def encoded(**fields: bytes) -> dict[str, str]:
    return {name.replace("_", "-"): base64.b64encode(value).decode() for name, value in fields.items()}


SECRETS: list[tuple[str, Body, str, str]] = [
    (
        "of External Secrets",
        {"metadata": {"ownerReferences": [{"kind": "ExternalSecret", "name": "keys", "controller": True}]}},
        "SecretManaged",
        "managed by ExternalSecret keys",
    ),
    ("of Helm", {"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm"}}}, "SecretManaged", "by Helm"),
    ("of Flux", {"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}}, "SecretManaged", "by Flux"),
    ("of Argo", {"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": "x"}}}, "SecretManaged", "Argo CD"),
    ("immutable", {"immutable": True}, "SecretImmutable", "is immutable"),
    ("without a key", {"data": {"api-key": None}}, "ServerKeyMissing", "nothing under 'api-key'"),
    ("with an empty key", {"data": encoded(api_key=b"")}, "ServerKeyMissing", "nothing under 'api-key'"),
    ("with bytes", {"data": encoded(api_key=b"\xff\xfe\xfd")}, "InvalidSpec", "is not text"),
    ("with two keys", {"data": encoded(alt_api_key=b"of a person")}, "BothKeysInUse", "did not make"),
    ("with a note", {"metadata": {"annotations": {ANNOTATION: "{}"}}}, "InvalidSpec", "cannot be read"),
    ("with a text", {"metadata": {"annotations": {ANNOTATION: "no json"}}}, "InvalidSpec", "cannot be read"),
]


@pytest.mark.parametrize(
    ("changes", "reason", "told"), [case[1:] for case in SECRETS], ids=[case[0] for case in SECRETS]
)
async def test_a_secret_that_cannot_be_used(
    api: ApiDouble, double: QdrantDouble, changes: Body, reason: str, told: str
) -> None:
    change(api, "Secret", f"{NAME}-keys", **changes)
    error = await refused(api, double)
    assert (error.reason, told in error.message) == (reason, True), error.message
    assert f"Secret {NAMESPACE}/{NAME}-keys" in error.message
    assert api.writes == []


async def test_a_second_field_that_is_empty_or_the_same_is_free(api: ApiDouble, double: QdrantDouble) -> None:
    for value in (b"", FIRST.encode()):
        change(api, "Secret", f"{NAME}-keys", data=encoded(alt_api_key=value))
        await opened(api, double).check()


async def test_a_secret_that_is_not_there_or_may_not_be_read(
    api: ApiDouble, double: QdrantDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await refused(api, double, secretName="elsewhere")).reason == "SecretNotFound"
    assert (await refused(api, double, altApiKeyField="api-key")).reason == "InvalidSpec"

    async def forbidden(*_: Any, **__: Any) -> Body:
        raise Terminal("get secrets/qdrant-keys in team-a: cannot get resource", reason="Forbidden")

    monkeypatch.setattr(api, "get", forbidden)
    error = await refused(api, double)
    assert (error.reason, "components/key-rotation" in error.message) == ("SecretForbidden", True)


def without_probe() -> Body:
    spec = pod_spec(NAME)
    del spec["containers"][0]["readinessProbe"]
    return {"template": {"spec": spec}}


WORKLOADS: list[tuple[str, str, Body, str, str]] = [
    ("one replica", "StatefulSet", {"replicas": 1}, "TooFewReplicas", "has 1 replica, not 2"),
    ("no replicas", "StatefulSet", {"replicas": 0}, "TooFewReplicas", "has 0 replicas, not 2"),
    ("replicas left out", "Deployment", {"replicas": None}, "TooFewReplicas", "has 1 replica,"),
    ("Recreate", "Deployment", {"strategy": {"type": "Recreate"}}, "TooFewReplicas", "(Recreate)"),
    (
        "all at once",
        "Deployment",
        {"strategy": {"rollingUpdate": {"maxUnavailable": "100%"}}},
        "TooFewReplicas",
        "(maxUnavailable 100%)",
    ),
    (
        "two at once",
        "StatefulSet",
        {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}},
        "TooFewReplicas",
        "(maxUnavailable 2)",
    ),
    ("no probe", "StatefulSet", without_probe(), "TooFewReplicas", "no readiness probe"),
    ("OnDelete", "StatefulSet", {"updateStrategy": {"type": "OnDelete"}}, "RestartTargetRefused", "(OnDelete)"),
    (
        "partitioned",
        "StatefulSet",
        {"updateStrategy": {"rollingUpdate": {"partition": 1}}},
        "RestartTargetRefused",
        "partitioned",
    ),
    ("paused", "Deployment", {"paused": True}, "RestartTargetRefused", "is paused"),
    (
        "other keys",
        "StatefulSet",
        {"template": {"spec": {"containers": [{"name": "qdrant", "readinessProbe": {}}]}}},
        "RestartTargetRefused",
        "takes nothing from Secret qdrant-keys",
    ),
]


@pytest.mark.parametrize(
    ("kind", "spec", "reason", "told"), [case[1:] for case in WORKLOADS], ids=[case[0] for case in WORKLOADS]
)
async def test_a_workload_that_cannot_be_restarted(
    api: ApiDouble, double: QdrantDouble, kind: str, spec: Body, reason: str, told: str
) -> None:
    if kind != "StatefulSet":
        api.apply(workload_manifest(NAME, kind))
    change(api, kind, NAME, spec=spec)
    error = await refused(api, double, workload={"kind": kind, "name": NAME})
    assert (error.reason, told in error.message) == (reason, True), error.message
    assert f"{kind} {NAMESPACE}/{NAME}" in error.message
    single = opened(api, double, workload={"kind": kind, "name": NAME}, allowSingleReplica=True)
    if reason == "TooFewReplicas":
        await single.check()
    else:
        with pytest.raises(Terminal):
            await single.check()
    assert api.writes == []


@pytest.mark.parametrize("spec", [{"replicas": 3, "strategy": {"rollingUpdate": {"maxUnavailable": "99%"}}}, {}])
async def test_a_deployment_fits_as_well(api: ApiDouble, double: QdrantDouble, spec: Body) -> None:
    api.apply(workload_manifest(NAME, "Deployment", **spec))
    await opened(api, double, workload={"kind": "Deployment", "name": NAME}).check()


async def test_a_workload_that_is_not_there(api: ApiDouble, double: QdrantDouble) -> None:
    issuer = opened(api, double, workload={"kind": "StatefulSet", "name": "elsewhere"})
    with pytest.raises(Terminal, match="StatefulSet team-a/elsewhere does not exist") as failed:
        await issuer.check()
    assert failed.value.reason == "RestartTargetNotFound"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"api_key": FIRST, "version": "1.16.3"}, "UnsupportedVersion"),
        ({}, "AuthorizationDisabled"),
        ({"api_key": "another-key-than-that-of-the-secret"}, "AccessDenied"),
    ],
)
async def test_a_server_that_does_not_fit(
    api: ApiDouble, start_qdrant: StartQdrant, options: dict[str, str], reason: str
) -> None:
    with pytest.raises(Terminal) as failed:
        await opened(api, start_qdrant(**options)).check()
    assert failed.value.reason == reason
    assert FIRST not in failed.value.message


async def test_replicas_that_differ_prove_nothing(api: ApiDouble, start_qdrant_replicas: StartQdrantReplicas) -> None:
    replicas = start_qdrant_replicas(2, api_key=FIRST)
    issuer = opened(api, replicas)
    assert await issuer.accepts(KeyMaterial(token=FIRST))
    replicas.replicas[1].restart(api_key="a-key-that-one-replica-has-alone")
    for key in (FIRST, "a-key-that-one-replica-has-alone"):
        with pytest.raises(Retryable, match="some replicas"):
            await issuer.accepts(KeyMaterial(token=key))
    assert not await issuer.accepts(KeyMaterial(token="a-key-that-none-of-them-has"))


def test_it_takes_a_cluster() -> None:
    place = Connection("qdrant", {"url": "http://127.0.0.1:1"})
    with pytest.raises(Terminal, match="in its cluster"):
        QdrantServerKeys(Assignment(place, identity(NAME), owner("search")))
