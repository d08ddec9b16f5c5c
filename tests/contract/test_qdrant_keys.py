"""Keys of the double of Qdrant, as a server from 1.17 on has them.

- a key and its alternative are both taken, sign tokens, are read at the start only, and count as none where empty
- tokens: leeway, collections, values that must exist, what is refused with which status
- replicas that are restarted one after the other: one data set, never nobody there, old and new keys side by side
- what is counted and fails on purpose, and what a restart leaves
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException
from tests.support.qdrant import QdrantDouble, QdrantReplicas, StartQdrant, StartQdrantReplicas, jwt

pytestmark = pytest.mark.server
OLD, NEW, NEXT = "the-old-key", "the-new-key", "the-key-after-that"
Server = QdrantDouble | QdrantReplicas


def status(server: Server, key: str | None, method: str = "GET", path: str = "/collections", **more: Any) -> int:
    """The status of a request over a connection of its own."""
    headers = {} if key is None else {"api-key": key}
    return httpx.request(method, f"{server.url}{path}", headers=headers, trust_env=False, **more).status_code


def filled(server: Server, key: str) -> None:
    """A collection of one point with the user ``ann``."""
    made = {"vectors": {"size": 2, "distance": "Dot"}}
    assert status(server, key, "PUT", "/collections/docs", json=made) == 200
    points = {"points": [{"id": 1, "vector": [1, 2], "payload": {"user": "ann", "n": 7, "on": True}}]}
    assert status(server, key, "PUT", "/collections/docs/points", json=points) == 200


def test_a_key_is_replaced_by_way_of_the_alternative(start_qdrant: StartQdrant) -> None:
    double = start_qdrant(api_key=OLD)
    filled(double, OLD)
    double.restart(alt_api_key=NEW)
    assert [status(double, key) for key in (OLD, NEW, NEXT)] == [200, 200, 401]
    double.restart(api_key=NEW, alt_api_key="")
    assert [status(double, key) for key in (OLD, NEW, "")] == [401, 200, 401]
    assert status(double, NEW, path="/collections/docs") == 200


def test_keys_are_read_at_the_start_only(start_qdrant: StartQdrant) -> None:
    environment = {"QDRANT__SERVICE__API_KEY": OLD, "QDRANT__SERVICE__JWT_RBAC": "true"}
    double = start_qdrant(environment=lambda: environment)
    environment["QDRANT__SERVICE__ALT_API_KEY"] = NEW
    assert [status(double, key) for key in (OLD, NEW, jwt(NEW))] == [200, 401, 403]
    double.restart()
    assert [status(double, key) for key in (OLD, NEW, jwt(NEW))] == [200, 200, 200]
    environment["QDRANT__SERVICE__JWT_RBAC"] = "false"
    double.restart()
    assert status(double, jwt(NEW)) == 401
    environment.clear()
    double.restart()
    assert status(double, None) == 200


def test_only_empty_keys_are_no_keys(start_qdrant: StartQdrant) -> None:
    assert status(start_qdrant(api_key="", alt_api_key="", read_only_key=""), None) == 200
    double = start_qdrant(api_key="", read_only_key="reads")
    assert [status(double, key) for key in (None, "", "reads")] == [401, 401, 200]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, 200),
        ({"subject": "docs", "exp": 4_102_444_800}, 200),
        ({"exp": "soon"}, 401),
        ({"access": "rw"}, 401),
        ({"access": [{"collection": "docs", "access": "m"}]}, 401),
        ({"access": [{"collection": "docs", "access": "r", "payload": {"user": "ann"}}]}, 401),
        ({"access": [{"collection": "docs", "access": "r"}] * 2}, 401),
        ({"value_exists": {"collection": "docs", "matches": [{"key": "user", "value": "ann"}]}}, 200),
        (
            {
                "value_exists": {
                    "collection": "docs",
                    "matches": [{"key": "n", "value": 7}, {"key": "on", "value": True}],
                }
            },
            200,
        ),
        ({"value_exists": {"collection": "docs", "matches": [{"key": "user", "value": "bob"}]}}, 401),
        ({"value_exists": {"collection": "nope", "matches": [{"key": "user", "value": "ann"}]}}, 403),
    ],
)
@pytest.mark.parametrize("name", ["api_key", "alt_api_key"])
def test_what_a_token_must_say(start_qdrant: StartQdrant, name: str, claims: dict[str, Any], expected: int) -> None:
    double = start_qdrant(**{name: OLD})
    filled(double, OLD)
    assert status(double, jwt(OLD, **claims)) == expected


def test_of_two_keys_the_one_that_did_not_sign_a_token_refuses_it_where_the_other_does_not_take_it(
    start_qdrant: StartQdrant,
) -> None:
    double = start_qdrant(api_key=OLD, alt_api_key=NEW)
    assert [status(double, jwt(secret, access="m")) for secret in (OLD, NEW, NEXT)] == [200, 200, 403]
    assert [status(double, jwt(secret, access="rw")) for secret in (OLD, NEW)] == [403, 403]


def test_a_token_is_taken_for_thirty_seconds_after_it_expired(start_qdrant: StartQdrant) -> None:
    double = start_qdrant(api_key=OLD)
    now = int(time.time())
    assert status(double, jwt(OLD, exp=now - 25)) == 200
    assert status(double, jwt(OLD, exp=now - 32)) == 403


def test_a_token_dies_with_the_key_that_signed_it(start_qdrant: StartQdrant) -> None:
    double = start_qdrant(api_key=OLD, alt_api_key=NEW)
    token = jwt(OLD, access="r")
    assert status(double, token) == 200
    double.restart(api_key=NEW, alt_api_key=None)
    assert status(double, token) == 403


def test_a_token_of_a_collection_changes_points_and_not_the_collection(start_qdrant: StartQdrant) -> None:
    double = start_qdrant(api_key=OLD)
    filled(double, OLD)
    token = jwt(OLD, access=[{"collection": "docs", "access": "rw"}])
    assert status(double, token, "POST", "/collections/docs/points/delete", json={"points": [1]}) == 200
    change = {"optimizers_config": {"indexing_threshold": 5}}
    assert status(double, token, "PATCH", "/collections/docs", json=change) == 403
    assert status(double, token, "DELETE", "/collections/docs") == 403
    assert status(double, token, "GET", "/collections/other") == 403


def test_a_value_that_is_deleted_ends_its_tokens(start_qdrant: StartQdrant) -> None:
    double = start_qdrant(api_key=OLD)
    filled(double, OLD)
    token = jwt(OLD, value_exists={"collection": "docs", "matches": [{"key": "user", "value": "ann"}]})
    assert status(double, token) == 200
    assert status(double, OLD, "POST", "/collections/docs/points/delete", json={"points": [1]}) == 200
    assert status(double, token) == 401


def test_replicas_have_different_keys_while_they_are_restarted(start_qdrant_replicas: StartQdrantReplicas) -> None:
    replicas = start_qdrant_replicas(2, api_key=OLD)
    filled(replicas, OLD)
    replicas.replicas[1].restart(alt_api_key=NEW)
    assert sorted(status(replicas, NEW) for _ in range(6)) == [200] * 3 + [401] * 3
    assert {status(replicas, OLD, path="/collections/docs") for _ in range(6)} == {200}


@pytest.mark.parametrize("prefer_grpc", [False, True], ids=["rest", "grpc"])
@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_a_rolling_restart_is_never_refused_and_hardly_noticed(
    start_qdrant_replicas: StartQdrantReplicas, prefer_grpc: bool
) -> None:
    replicas = start_qdrant_replicas(2, api_key=OLD)
    filled(replicas, OLD)
    over, answers, failures = threading.Event(), 0, []
    client = QdrantClient(
        host=replicas.host,
        port=replicas.port,
        grpc_port=replicas.grpc_port,
        prefer_grpc=prefer_grpc,
        https=False,
        api_key=OLD,
        check_compatibility=False,
        trust_env=False,
    )

    def ask() -> None:
        nonlocal answers
        while not over.is_set():
            try:
                client.upsert("docs", [models.PointStruct(id=2, vector=[3.0, 4.0])])
                answers += 1
            except (ApiException, grpc.RpcError) as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until(lambda: answers > 50)
    for key in (NEW, NEXT):
        replicas.rolling_restart(alt_api_key=key)
    over.set()
    asking.join()
    client.close()
    assert replicas.starts == [3, 3]
    assert not [error for error in failures if getattr(error, "status_code", None) in {401, 403}]
    assert len(failures) <= 4  # a connection may end while a request is on its way
    assert status(replicas, NEXT) == 200


def test_what_is_counted_and_fails_on_purpose(start_qdrant: StartQdrant) -> None:
    double = start_qdrant(api_key=OLD)
    double.operations.fail("Collections/List", 2)
    assert [status(double, OLD) for _ in range(3)] == [503, 503, 200]
    double.operations.fail("Collections/Delete", done=True)
    filled(double, OLD)
    assert status(double, OLD, "DELETE", "/collections/docs") == 503
    assert status(double, OLD, path="/collections/docs") == 404
    assert double.operations.count("Collections/List") == 3


def test_a_server_that_is_stopped_refuses_connections_and_comes_back(start_qdrant: StartQdrant) -> None:
    double = start_qdrant(api_key=OLD)
    filled(double, OLD)
    double.stop()
    with pytest.raises(httpx.ConnectError):
        status(double, OLD)
    double.start()
    assert status(double, OLD, path="/collections/docs") == 200


def test_an_answer_that_is_on_its_way_is_waited_for(start_qdrant: StartQdrant) -> None:
    double = start_qdrant(api_key=OLD)
    double.operations.fail("Collections/List", status=None, delay=0.5)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(status(double, OLD)))
    asking.start()
    wait_until(lambda: double.operations.count("Collections/List") == 1)
    double.stop(grace=5)
    asking.join()
    assert answers == [200]


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)
