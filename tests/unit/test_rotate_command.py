"""``vectorwright rotate``: what it asks for, what it follows, what it prints, and with which exit status it ends."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.support.api_double import ApiDouble, Body, Write

from vectorwright.api.v1alpha1.common import API_VERSION
from vectorwright.cli import rotate
from vectorwright.cli.connecting import Cluster
from vectorwright.errors import Retryable, Terminal, VectorwrightError

KIND, NAMESPACE, NAME = "APIKeyRotation", "team-a", "search"
SPEC = {
    "storeRef": {"name": "store"},
    "identity": {"generated": {}},
    "secret": {"name": "key"},
    "overlap": "0s",
}
PUBLISHED = {"step": "Idle", "revision": 3, "current": {"id": "key-3", "revision": 3}}
ASKED, SEEN, CONFIRMED = (
    f"vectorwright.dev/{name}" for name in ("rotate-requested-at", "reconcile-requested-at", "confirm-revoke")
)


class Operator:
    """Tells the status that a test gives for each look at the resource, as the operator would; the last one stays."""

    def __init__(self, api: ApiDouble) -> None:
        self.api = api
        self.tells: list[Callable[[dict[str, str]], Body] | VectorwrightError] = []
        self.annotations: list[dict[str, str]] = []
        api.before_write = self._note

    def _note(self, write: Write) -> VectorwrightError | None:
        self.annotations.append(write.body["metadata"]["annotations"])
        return None

    def look(self) -> None:
        """Called before each reading."""
        if not self.annotations or not self.tells:
            return
        tell = self.tells.pop(0) if len(self.tells) > 1 else self.tells[0]
        if isinstance(tell, VectorwrightError):
            raise tell
        there = self.api.get_now(KIND, NAMESPACE, NAME)["metadata"]["annotations"]
        self.api.set_status(KIND, NAMESPACE, NAME, {"lastHandledReconcileAt": there[SEEN], **tell(there)})


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    api = ApiDouble()
    made = Operator(api)
    read = api.get

    async def get(*arguments: Any) -> Body:
        made.look()
        return await read(*arguments)

    @asynccontextmanager
    async def connected(args: argparse.Namespace) -> AsyncIterator[Cluster]:
        yield Cluster(api.client(), args.namespace)

    monkeypatch.setattr(api, "get", get, raising=True)
    monkeypatch.setattr(rotate, "connected", connected)
    monkeypatch.setattr(rotate, "POLL_SECONDS", 0.001)
    api.apply(
        {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": SPEC}
    )
    api.set_status(KIND, NAMESPACE, NAME, PUBLISHED)
    return made


def run(*flags: str, name: str = NAME) -> int:
    parser = argparse.ArgumentParser()
    rotate.add_parser(parser.add_subparsers())
    args = parser.parse_args(["rotate", name, "-n", NAMESPACE, *flags])
    return rotate.run(args)


def through(annotations: dict[str, str]) -> Body:
    """The rotation that was asked for is over."""
    record = {
        "revision": 4,
        "keyId": "key-4",
        "reason": "Requested",
        "startedAt": "2026-11-21T10:00:00Z",
        "revokedKeyId": "key-3",
        "refusedAt": "2026-11-21T10:00:09Z",
    }
    return {
        "step": "Idle",
        "revision": 4,
        "current": {"id": "key-4", "revision": 4},
        "handledRequest": annotations.get(ASKED),
        "history": [record],
    }


def at(step: str, **status: Any) -> Callable[[dict[str, str]], Body]:
    return lambda annotations: {
        "step": step,
        "revision": 4,
        "current": {"id": "key-4", "revision": 4},
        "previous": {"id": "key-3", "revision": 3},
        "handledRequest": annotations.get(ASKED),
        **status,
    }


def condition(kind: str, reason: str, message: str) -> Body:
    stated = {"type": kind, "status": "True", "reason": reason, "message": message}
    return {**stated, "lastTransitionTime": "2026-11-21T10:00:00Z", "observedGeneration": 1}


def stalled(reason: str, **status: Any) -> Callable[[dict[str, str]], Body]:
    return lambda _: {**PUBLISHED, "conditions": [condition("Stalled", reason, "look at it")], **status}


Captured = pytest.CaptureFixture[str]


def test_without_wait_it_asks_and_ends(operator: Operator, capsys: Captured) -> None:
    assert run() == 0
    assert capsys.readouterr().out == "search: asked for a new key\n"
    (asked,) = operator.annotations
    assert set(asked) == {ASKED, SEEN}
    assert asked[ASKED] == asked[SEEN]
    assert run() == 0
    assert operator.annotations[1][ASKED] != asked[ASKED]  # another request


def test_confirm_without_wait_allows_the_revocation_of_the_key_in_use(operator: Operator, capsys: Captured) -> None:
    assert run("--confirm") == 0
    assert operator.annotations[0][CONFIRMED] == "key-3@3"
    assert capsys.readouterr().out == "search: asked for a new key; the revocation of key key-3 is allowed\n"


def test_wait_tells_each_step_once_and_the_proof(operator: Operator, capsys: Captured) -> None:
    blocked = at("Wait", blockedBy="pod search-1")
    operator.tells = [at("Create"), at("Create"), blocked, blocked, through]
    assert run("--wait") == 0
    told = capsys.readouterr()
    assert told.err == "Create\nWait: pod search-1\n"
    assert told.out == "search: key key-4 is published; key key-3 is refused since 10:00:09 UTC\n"


def test_what_was_there_before_is_not_taken_for_the_answer(operator: Operator, capsys: Captured) -> None:
    """An operator that has not looked yet: Idle, or stalled, from the time before."""
    operator.tells = [
        lambda _: {**PUBLISHED, "lastHandledReconcileAt": "before"},
        lambda there: {**stalled("AccessDenied")(there), "lastHandledReconcileAt": "before"},
        through,
    ]
    assert run("--wait") == 0
    assert capsys.readouterr().err == "waiting for the operator\n"


@pytest.mark.parametrize("handled", [True, False], ids=["in the middle", "before anything is made"])
def test_what_somebody_must_act_on_ends_the_waiting(operator: Operator, capsys: Captured, *, handled: bool) -> None:
    def told(there: dict[str, str]) -> Body:
        return stalled("RolloutFailed", **({"step": "Wait", "handledRequest": there[ASKED]} if handled else {}))(there)

    operator.tells = [told]
    assert run("--wait") == 1
    assert capsys.readouterr().err.endswith("vectorwright rotate: search: RolloutFailed: look at it\n")


def test_the_waiting_ends_in_time(operator: Operator, capsys: Captured) -> None:
    operator.tells = [at("Grace", blockedBy="the overlap")]
    assert run("--wait", "--timeout", "1") == 1
    assert "not through after 1 s; it goes on (Grace: the overlap)" in capsys.readouterr().err


def test_an_api_server_that_is_away_for_a_moment_is_asked_again(operator: Operator, capsys: Captured) -> None:
    operator.tells = [at("Create"), Retryable("no answer", reason="Timeout"), through]
    assert run("--wait") == 0
    assert capsys.readouterr().err == "Create\nno answer\n"


def test_failed_attempts_are_told(operator: Operator, capsys: Captured) -> None:
    issuing = condition("Issuing", "Timeout", "step Create: no answer")
    operator.tells = [at("Create", failedAttempts=2, conditions=[issuing]), through]
    assert run("--wait") == 0
    assert capsys.readouterr().err == "Create: step Create: no answer\n"


def test_what_a_new_one_waits_for_is_told(operator: Operator, capsys: Captured) -> None:
    waiting = condition("Reconciling", "StoreNotFound", "VectorStore store does not exist")
    operator.tells = [at("", conditions=[waiting]), through]
    assert run("--wait") == 0
    assert capsys.readouterr().err == "Pending: VectorStore store does not exist\n"


def test_a_rotation_that_waits_for_a_word_goes_on_and_no_other_one_is_begun(
    operator: Operator, capsys: Captured
) -> None:
    # It was begun by the clock: there never was a request.
    operator.api.set_status(KIND, NAMESPACE, NAME, {**at("Revoke")({}), "handledRequest": None})
    operator.tells = [at("Revoke"), at("VerifyRefused"), through]
    assert run("--confirm", "--wait") == 0
    assert [set(written) for written in operator.annotations] == [{CONFIRMED, SEEN}]
    assert operator.annotations[0][CONFIRMED] == "key-3@3"
    assert "key key-3 is refused" in capsys.readouterr().out


def test_the_next_rotation_may_begin_at_once_after_the_one_that_waited(operator: Operator, capsys: Captured) -> None:
    operator.api.set_status(KIND, NAMESPACE, NAME, at("Revoke")({}))
    operator.tells = [
        at("VerifyRefused"),
        at("Grace", previous={"id": "key-4", "revision": 4}, handledRequest="another"),
    ]
    assert run("--confirm", "--wait") == 0
    assert "is published" in capsys.readouterr().out


def test_confirm_says_the_word_when_it_is_asked_for(operator: Operator) -> None:
    """Another key than the one that was in use at the beginning is to be revoked."""
    operator.tells = [at("Create"), at("Revoke", previous={"id": "key-2", "revision": 2}), through]
    assert run("--confirm", "--wait") == 0
    assert [written.get(CONFIRMED) for written in operator.annotations] == ["key-3@3", "key-2@2"]


def test_without_confirm_no_word_is_said(operator: Operator) -> None:
    operator.tells = [at("Revoke", blockedBy="confirmation"), through]
    assert run("--wait") == 0
    assert [set(written) for written in operator.annotations] == [{ASKED, SEEN}]


def test_a_request_of_somebody_else_meanwhile_is_followed(operator: Operator) -> None:
    def overtaken(_: dict[str, str]) -> Body:
        operator.api.annotate(KIND, NAMESPACE, NAME, rotate_requested_at="theirs")
        return at("Create")({})

    operator.tells = [overtaken, lambda _: through({ASKED: "theirs"})]
    assert run("--wait", "--timeout", "5") == 0


def test_a_paused_one_is_told_at_once(operator: Operator, capsys: Captured) -> None:
    operator.api.annotate(KIND, NAMESPACE, NAME, paused="true")
    assert run("--wait") == 1
    assert "is paused" in capsys.readouterr().err
    assert operator.annotations  # it is remembered


@pytest.mark.parametrize("flags", [(), ("--wait",)])
def test_a_wrong_name_is_told(operator: Operator, capsys: Captured, flags: tuple[str, ...]) -> None:
    assert run(*flags, name="serach") == 1
    said = "vectorwright rotate: APIKeyRotation serach does not exist in namespace team-a\n"
    assert capsys.readouterr().err == said
    assert operator.annotations == []


def test_one_that_is_deleted_meanwhile_is_told(
    operator: Operator, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> None:
        if operator.annotations:
            operator.api.objects.clear()

    monkeypatch.setattr(operator, "look", look)
    assert run("--wait") == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_missing_right_is_told(operator: Operator, capsys: Captured) -> None:
    operator.api.before_write = lambda _: Terminal(
        "user jane cannot patch resource apikeyrotations", reason="Forbidden"
    )
    assert run() == 1
    assert capsys.readouterr().err == "vectorwright rotate: user jane cannot patch resource apikeyrotations\n"


def test_interrupted_it_says_that_the_rotation_goes_on(
    operator: Operator, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        if operator.annotations:
            raise KeyboardInterrupt

    monkeypatch.setattr(operator, "look", interrupt)
    assert run("--wait") == 130
    assert "the rotation goes on" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "1.5"])
def test_a_timeout_is_a_number_of_seconds(seconds: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        run(f"--timeout={seconds}")
    assert ended.value.code == 2
    assert "number of seconds" in capsys.readouterr().err
