"""The admin plane of the double of Pinecone, driven by the official SDK.

- a service account makes a key whose secret is told once, lists, changes and deletes keys
- a new key works beside the old one; a deleted one is refused at once; roles decide what a key may do
- wrong credentials, projects and roles are refused as the service does
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from pinecone import Admin, ApiError, ForbiddenError, NotFoundError, Pinecone, RetryConfig, UnauthorizedError
from tests.support.pinecone import PineconeDouble
from tests.support.pinecone.admin import CLIENT_ID, CLIENT_SECRET

pytestmark = pytest.mark.server
KEY = "pcsk_of_the_tests"
PROJECT = "p1a2b3c"


@pytest.fixture
def double() -> Iterator[PineconeDouble]:
    with PineconeDouble({KEY: PROJECT, "pcsk_other": "p9z9z9z"}) as double:
        yield double


def sign_in(double: PineconeDouble, secret: str = CLIENT_SECRET) -> Admin:
    return Admin(client_id=CLIENT_ID, client_secret=secret, host=double.url, oauth_url=f"{double.url}/oauth/token")


@pytest.fixture
def admin(double: PineconeDouble) -> Iterator[Admin]:
    with sign_in(double) as admin:
        yield admin


def names(double: PineconeDouble, key: str) -> list[str]:
    with Pinecone(api_key=key, host=double.url, retry_config=RetryConfig(max_retries=0)) as client:
        return [index.name for index in client.indexes.list()]


def test_a_key_is_replaced_without_a_gap(admin: Admin, double: PineconeDouble) -> None:
    (old,) = admin.api_keys.list(project_id=PROJECT)
    made = admin.api_keys.create(project_id=PROJECT, name="next")
    assert (names(double, KEY), names(double, made.value)) == ([], [])
    assert {key.name for key in admin.api_keys.list(project_id=PROJECT)} == {"default", "next"}
    assert made.value not in str(admin.api_keys.describe(api_key_id=made.key.id).to_dict())
    admin.api_keys.delete(api_key_id=old.id)
    assert names(double, made.value) == []
    with pytest.raises(UnauthorizedError):
        names(double, KEY)
    with pytest.raises(NotFoundError):
        admin.api_keys.describe(api_key_id=old.id)


def test_a_new_key_may_be_unknown_for_a_while(admin: Admin, double: PineconeDouble) -> None:
    double.admin.usable_after = 0.3
    made = admin.api_keys.create(project_id=PROJECT, name="next")
    with pytest.raises(UnauthorizedError):
        names(double, made.value)
    time.sleep(0.35)
    assert names(double, made.value) == []


def test_roles_decide_what_a_key_may_do(admin: Admin, double: PineconeDouble) -> None:
    made = admin.api_keys.create(project_id=PROJECT, name="viewer", roles=["ControlPlaneViewer"])
    with Pinecone(api_key=made.value, host=double.url, retry_config=RetryConfig(max_retries=0)) as client:
        assert list(client.indexes.list()) == []
        with pytest.raises(ForbiddenError):
            client.indexes.create(name="docs", dimension=3)
        admin.api_keys.update(api_key_id=made.key.id, roles=["ControlPlaneEditor"])
        client.indexes.create(name="docs", dimension=3)
        with client.index(name="docs") as index, pytest.raises(ForbiddenError):
            index.describe_index_stats()


def test_projects_are_told_apart(admin: Admin) -> None:
    assert [project.id for project in admin.projects.list()] == [PROJECT, "p9z9z9z"]
    assert admin.projects.describe(project_id=PROJECT).organization_id
    with pytest.raises(NotFoundError):
        admin.api_keys.list(project_id="nobody")


def test_a_wrong_service_account_is_refused(double: PineconeDouble) -> None:
    with pytest.raises(ApiError) as refused:
        sign_in(double, "not the secret")
    assert refused.value.status_code == 401
