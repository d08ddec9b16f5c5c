"""The Secret that a rotation publishes, on a real API server, with keys that need no store.

- It holds the key under the names that the spec gives, templates filled in, with annotations that tell which key it is,
  and no owner reference.
- One that exists is refused and stays as it was: another's, a controller's, an immutable one, one of another type;
  adopted only when the spec says so, and then the key in it is told to be nobody's to revoke.
- Deleted it is made again with the same key, edited it is repaired, or left where the spec says so.
- Another namespace has to consent in the Secret itself, by name or for a whole namespace.
- The resource deleted: key and Secret stay, or go, by policy; nothing of its own is left behind.
- A wrong spec is told, and nothing is made.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import kubernetes
import pytest
from tests.support.cluster import new_namespace
from tests.support.vectorwright import Body, Resources, condition

pytestmark = pytest.mark.cluster

STATE = "rotation.key-rotation"


@pytest.fixture(autouse=True)
def _store(resources: Resources) -> None:
    """An address: nobody answers there, and nobody needs to."""
    resources.create("VectorStore", "store", {"chroma": {"url": "http://chroma.example:8000"}})


def spec(**changes: Any) -> Body:
    """A rotation that goes on by itself."""
    return {
        "storeRef": {"name": "store"},
        "identity": {"generated": {"prefix": "vw_"}},
        "secret": {"name": "published"},
        "overlap": "0s",
        "revokePolicy": "Automatic",
        **changes,
    }


def make(resources: Resources, name: str = "rotation", **changes: Any) -> None:
    resources.create("APIKeyRotation", name, spec(**changes))


def idle(resources: Resources, revision: int = 1, name: str = "rotation") -> Body:
    """The rotation once the key of a revision is published and nothing goes on."""
    return resources.wait(
        "APIKeyRotation",
        name,
        lambda body: ((status := body.get("status") or {}).get("step"), status.get("revision")) == ("Idle", revision),
    )


def secret(resources: Resources, name: str = "published", namespace: str | None = None) -> Any:
    return resources.core.read_namespaced_secret(name, namespace or resources.namespace)


def there(resources: Resources, name: str, namespace: str | None = None) -> bool:
    found = resources.core.list_namespaced_secret(
        namespace or resources.namespace, field_selector=f"metadata.name={name}"
    )
    return bool(found.items)


def plant(resources: Resources, namespace: str, body: Any) -> None:
    """A Secret that was there before, as a plain manifest."""
    resources.core.create_namespaced_secret(namespace, body)


def values(found: Any) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in (found.data or {}).items()}


def rotate(resources: Resources, request: str, name: str = "rotation") -> None:
    resources.annotate("APIKeyRotation", name, rotate_requested_at=request)


def test_it_holds_what_the_spec_says(resources: Resources) -> None:
    make(
        resources,
        secret={
            "name": "published",
            "keys": {"token": "CHROMA_TOKEN"},
            "data": {"URL": "${endpoint}", "HOST": "${host}:${port}", "header": "Bearer ${token}", "price": "$$5"},
            "labels": {"team": "a"},
            "annotations": {"note": "hello"},
            "type": "example.com/key",
        },
    )
    status = idle(resources)["status"]
    found = secret(resources)
    held = values(found)
    token = held["CHROMA_TOKEN"]
    assert token.startswith("vw_")
    assert held == {
        "CHROMA_TOKEN": token,
        "URL": "http://chroma.example:8000",
        "HOST": "chroma.example:8000",
        "header": f"Bearer {token}",
        "price": "$5",
    }
    assert found.type == "example.com/key"
    assert found.metadata.owner_references is None
    assert {"team": "a", "app.kubernetes.io/managed-by": "vectorwright"}.items() <= found.metadata.labels.items()
    annotations = found.metadata.annotations
    assert annotations["note"] == "hello"
    assert annotations["vectorwright.dev/key-id"] == status["current"]["id"]
    assert annotations["vectorwright.dev/key-revision"] == "1"
    assert datetime.fromisoformat(annotations["vectorwright.dev/issued-at"])
    assert token not in str(resources.get("APIKeyRotation", "rotation"))
    assert resources.wait_event("rotation", "KeyPublished")
    assert token not in str(resources.events("rotation"))


def test_fields_that_the_spec_no_longer_wants_go_and_others_stay(resources: Resources) -> None:
    make(resources, secret={"name": "published", "data": {"one": "1", "two": "2"}})
    idle(resources)
    resources.core.patch_namespaced_secret("published", resources.namespace, {"stringData": {"theirs": "stays"}})
    resources.patch("APIKeyRotation", "rotation", {"spec": {"secret": {"data": {"two": None, "three": "3"}}}})
    resources.wait(
        "APIKeyRotation", "rotation", lambda _: set(values(secret(resources))) == {"token", "one", "three", "theirs"}
    )


@pytest.mark.parametrize(
    ("metadata", "rest", "reason"),
    [
        ({}, {}, "SecretExists"),
        ({"labels": {"argocd.argoproj.io/instance": "apps"}}, {}, "SecretManaged"),
        ({"labels": {"reconcile.external-secrets.io/managed": "true"}}, {}, "SecretManaged"),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, {}, "SecretManaged"),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "maker", "uid": "u-1"}]},
            {},
            "SecretManaged",
        ),
        ({"annotations": {"vectorwright.dev/owner": "cluster/team/other"}}, {}, "SecretNotOurs"),
        ({}, {"immutable": True}, "SecretImmutable"),
    ],
    ids=["anybody's", "Argo CD", "External Secrets", "Helm", "owned", "another rotation's", "immutable"],
)
def test_one_that_exists_is_refused_and_untouched(
    resources: Resources, metadata: Body, rest: Body, reason: str
) -> None:
    if "ownerReferences" in metadata:
        resources.config_map("maker", a="b")
        maker: Any = resources.core.read_namespaced_config_map("maker", resources.namespace)
        uid = maker.metadata.uid
        metadata["ownerReferences"][0]["uid"] = uid
    body = {"metadata": {"name": "published", **metadata}, "stringData": {"token": "by-hand-value"}, **rest}
    plant(resources, resources.namespace, body)
    before = secret(resources).to_dict()
    # A policy that adopts makes no difference to what is managed by somebody else.
    adopts = reason != "SecretExists"
    make(resources, secret={"name": "published", **({"adoptionPolicy": "IfUnmanaged"} if adopts else {})})
    message = resources.wait_condition("APIKeyRotation", "rotation", "Stalled", "True", reason)
    assert "published" in message
    assert secret(resources).to_dict() == before
    assert condition(resources.get("APIKeyRotation", "rotation"), "Ready")["status"] == "False"
    if reason == "SecretManaged":
        assert "PushSecret" in message


def test_one_of_another_type_is_refused(resources: Resources) -> None:
    resources.secret("published", token="by-hand-value")
    make(resources, secret={"name": "published", "adoptionPolicy": "IfUnmanaged", "type": "example.com/key"})
    resources.wait_condition("APIKeyRotation", "rotation", "Stalled", "True", "SecretTypeDiffers")
    assert values(secret(resources)) == {"token": "by-hand-value"}


def test_an_adopted_one_is_overwritten_and_its_key_told_to_be_nobodys(resources: Resources) -> None:
    resources.secret("published", token="by-hand-value", other="stays")
    make(resources, secret={"name": "published", "adoptionPolicy": "IfUnmanaged"})
    idle(resources)
    held = values(secret(resources))
    assert held["token"].startswith("vw_")
    assert held["other"] == "stays"
    assert "published" in resources.wait_event("rotation", "PreviousKeyUnknown")


def test_a_deleted_one_is_made_again_with_the_same_key(resources: Resources) -> None:
    make(resources)
    idle(resources)
    token = values(secret(resources))["token"]
    resources.core.delete_namespaced_secret("published", resources.namespace)
    resources.wait("APIKeyRotation", "rotation", lambda _: there(resources, "published"))
    assert values(secret(resources))["token"] == token
    assert idle(resources)["status"]["revision"] == 1


def test_an_edited_one_is_repaired(resources: Resources) -> None:
    make(resources)
    idle(resources)
    token = values(secret(resources))["token"]
    resources.core.patch_namespaced_secret(
        "published", resources.namespace, {"stringData": {"token": "something-else"}}
    )
    resources.wait("APIKeyRotation", "rotation", lambda _: values(secret(resources))["token"] == token)
    assert idle(resources)["status"]["revision"] == 1


def test_an_edited_one_is_left_where_the_spec_says_so(resources: Resources) -> None:
    make(resources, secret={"name": "published", "repairPolicy": "Leave"})
    idle(resources)
    resources.core.patch_namespaced_secret(
        "published", resources.namespace, {"stringData": {"token": "something-else"}}
    )
    message = resources.wait_condition("APIKeyRotation", "rotation", "Ready", "False", "SecretEdited")
    assert "token" in message
    assert "something-else" not in message
    assert values(secret(resources))["token"] == "something-else"
    # A new key is published all the same: that is no repair.
    rotate(resources, "after the edit")
    idle(resources, 2)
    assert values(secret(resources))["token"].startswith("vw_")


@contextlib.contextmanager
def elsewhere(resources: Resources) -> Iterator[str]:
    with new_namespace(resources.cluster) as name:
        yield name


@pytest.mark.parametrize("consent", ["{namespace}/rotation", "other/*, {namespace}/*"], ids=["name", "namespace"])
def test_another_namespace_consents_in_the_secret_itself(resources: Resources, consent: str) -> None:
    with elsewhere(resources) as other:
        make(resources, secret={"name": "published", "namespace": other})
        resources.wait_condition("APIKeyRotation", "rotation", "Stalled", "True", "ConsentMissing")
        assert not there(resources, "published", other)
        said = {"vectorwright.dev/consent-publish": consent.format(namespace=resources.namespace)}
        plant(resources, other, {"metadata": {"name": "published", "annotations": said}})
        idle(resources)
        assert values(secret(resources, namespace=other))["token"].startswith("vw_")


@pytest.mark.parametrize("consent", ["", "team-z/rotation", "{namespace}/another", "{namespace}"])
def test_other_words_are_no_consent(resources: Resources, consent: str) -> None:
    with elsewhere(resources) as other:
        said = {"vectorwright.dev/consent-publish": consent.format(namespace=resources.namespace)}
        plant(resources, other, {"metadata": {"name": "published", "annotations": said}})
        make(resources, secret={"name": "published", "namespace": other})
        message = resources.wait_condition("APIKeyRotation", "rotation", "Stalled", "True", "ConsentMissing")
        assert f"vectorwright.dev/consent-publish={resources.namespace}/rotation" in message
        assert values(secret(resources, namespace=other)) == {}


def test_the_admins_secret_of_another_namespace_consents_too(resources: Resources) -> None:
    with elsewhere(resources) as other:
        body = {"metadata": {"name": "admin"}, "stringData": {"token": "an-admin-token"}}
        plant(resources, other, body)
        make(resources, adminCredentials={"name": "admin", "namespace": other})
        message = resources.wait_condition("APIKeyRotation", "rotation", "Stalled", "True", "ConsentMissing")
        assert "an-admin-token" not in message
        said = {"metadata": {"annotations": {"vectorwright.dev/consent-admin": f"{resources.namespace}/*"}}}
        resources.core.patch_namespaced_secret("admin", other, said)
        resources.annotate("APIKeyRotation", "rotation", reconcile_requested_at="1")
        idle(resources)


def test_deleted_with_retain_key_and_secret_stay_and_are_found_again(resources: Resources) -> None:
    make(resources)
    token, made = idle(resources)["status"], values(secret(resources))["token"]
    resources.delete("APIKeyRotation", "rotation")
    resources.wait_gone("APIKeyRotation", "rotation")
    assert values(secret(resources))["token"] == made
    assert not there(resources, STATE)
    make(resources)
    again = idle(resources)["status"]
    assert again["current"] == token["current"]
    assert values(secret(resources))["token"] == made


def test_deleted_with_revoke_the_secret_goes(resources: Resources) -> None:
    make(resources, deletionPolicy="Revoke")
    idle(resources)
    resources.delete("APIKeyRotation", "rotation")
    resources.wait_gone("APIKeyRotation", "rotation")
    assert not there(resources, "published")
    assert not there(resources, STATE)


def test_an_adopted_secret_loses_only_our_fields(resources: Resources) -> None:
    resources.secret("published", other="stays")
    make(resources, secret={"name": "published", "adoptionPolicy": "IfUnmanaged"}, deletionPolicy="Revoke")
    idle(resources)
    resources.delete("APIKeyRotation", "rotation")
    resources.wait_gone("APIKeyRotation", "rotation")
    found = secret(resources)
    assert values(found) == {"other": "stays"}
    assert not any(name.startswith("vectorwright.dev/") for name in found.metadata.annotations or {})


def test_the_private_secret_lost_nothing_is_issued_anew(resources: Resources) -> None:
    make(resources)
    before = idle(resources)["status"]["current"]
    rotate(resources, "once")
    before = idle(resources, 2)["status"]["current"]
    token = values(secret(resources))["token"]
    resources.core.delete_namespaced_secret(STATE, resources.namespace)
    resources.patch("APIKeyRotation", "rotation", {"metadata": {"annotations": {"example.com/touch": "1"}}})
    resources.wait("APIKeyRotation", "rotation", lambda _: there(resources, STATE))
    after = idle(resources, 2)["status"]
    assert after["current"] == before
    assert values(secret(resources))["token"] == token


def test_the_private_secret_of_another_is_not_taken(resources: Resources) -> None:
    resources.secret(STATE, theirs="stays")
    make(resources)
    resources.wait_condition("APIKeyRotation", "rotation", "Stalled", "True", "SecretNotOurs")
    assert values(secret(resources, STATE)) == {"theirs": "stays"}


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"identity": {"weaviate": {"user": "u", "roles": ["r"]}}}, "InvalidSpec", "does not go with a store"),
        ({"strategy": "DualKey"}, "InvalidSpec", "takes Generate"),
        ({"schedule": {"cron": "99 * * * *"}}, "InvalidSchedule", "spec.schedule.cron"),
        ({"schedule": {"cron": "0 3 * * *", "timeZone": "Mars/Base"}}, "InvalidSchedule", "Mars/Base"),
        ({"secret": {"name": "published", "data": {"a": "${nothing}"}}}, "InvalidSpec", "placeholder"),
        ({"secret": {"name": "published", "data": {"token": "x"}}}, "InvalidSpec", "credential itself"),
        ({"adminCredentials": {"name": "published"}}, "InvalidSpec", "same Secret"),
        ({"adminCredentials": {"name": "nobody"}}, "SecretNotFound", "nobody"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else None,
)
def test_a_wrong_spec_is_told_and_nothing_is_made(resources: Resources, changes: Body, reason: str, words: str) -> None:
    make(resources, **changes)
    assert words in resources.wait_condition("APIKeyRotation", "rotation", "Stalled", "True", reason)
    assert not there(resources, "published")


def test_a_resource_that_changes_while_it_is_begun_has_not_failed(resources: Resources) -> None:
    for number in range(6):
        name = f"rotation-{number}"
        make(resources, name, secret={"name": f"published-{number}"})
        for turn in range(10):
            resources.annotate("APIKeyRotation", name, note=str(turn))
    for number in range(6):
        status = idle(resources, name=f"rotation-{number}")["status"]
        assert "lastFailureTime" not in status
    told = [line for line in resources.operator.text().splitlines() if f"{resources.namespace}/rotation-" in line]
    assert told
    assert not [line for line in told if "Conflict" in line]


def test_a_store_that_comes_later_is_waited_for(resources: Resources) -> None:
    make(resources, storeRef={"name": "later"})
    told = resources.wait_condition("APIKeyRotation", "rotation", "Reconciling", "True", "StoreNotFound")
    assert "VectorStore later does not exist" in told
    body = resources.get("APIKeyRotation", "rotation")
    assert {item["type"]: item["status"] for item in body["status"]["conditions"]}.get("Stalled", "False") == "False"
    resources.create("VectorStore", "later", {"chroma": {"url": "http://chroma.example:8000"}})
    idle(resources)
    resources.delete("VectorStore", "later")
    resources.wait_gone("VectorStore", "later")
    rotate(resources, "once-more")
    resources.wait_condition("APIKeyRotation", "rotation", "Stalled", "True", "StoreNotFound")
    body = resources.get("APIKeyRotation", "rotation")
    assert {item["type"]: item["status"] for item in body["status"]["conditions"]}["Ready"] == "True"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rotationInterval": "1d", "schedule": {"cron": "0 3 * * *"}}, "rotationInterval or schedule"),
        ({"overlap": None}, "spec.overlap is required"),
        ({"identity": {}}, "exactly one of"),
        ({"rolloutRestartTargets": [{"kind": "Deployment"}]}, "exactly one of name, selector"),
        ({"identity": {"generated": {"bytes": 4}}}, "greater than or equal to 16"),
    ],
    ids=["twice", "no overlap", "no identity", "no target", "short"],
)
def test_what_the_api_server_refuses_by_itself(resources: Resources, changes: Body, words: str) -> None:
    wanted = {name: value for name, value in spec(**changes).items() if value is not None}
    with pytest.raises(kubernetes.client.ApiException) as caught:
        resources.create("APIKeyRotation", "rotation", wanted)
    assert caught.value.status == 422
    assert words in (caught.value.body or "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"storeRef": {"name": "other"}}, "spec.storeRef is immutable"),
        ({"secret": {"name": "other"}}, "spec.secret.name is immutable"),
        ({"secret": {"namespace": "other"}}, "spec.secret.namespace is immutable"),
        ({"identity": {"generated": None, "weaviate": {"user": "u"}}}, "keeps its kind"),
        ({"strategy": "Generate"}, "spec.strategy is immutable"),
    ],
    ids=["store", "secret", "namespace", "identity", "strategy"],
)
def test_what_cannot_be_changed(resources: Resources, change: Body, words: str) -> None:
    make(resources)
    idle(resources)
    with pytest.raises(kubernetes.client.ApiException) as caught:
        resources.patch("APIKeyRotation", "rotation", {"spec": change})
    assert caught.value.status == 422
    assert words in (caught.value.body or "")
