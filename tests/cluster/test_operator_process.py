"""The operator's two processes, killed, frozen, cut off and blocked, against a real API server.

What is checked: at most one child works at any moment, whatever happens to whom; a child and what it started die with
its parent; a clean shutdown hands over at once; hung and failing children are dealt with; probes and metrics tell the
truth; the parent is small; wrong settings are refused in a sentence.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deploy.devcluster import Cluster
from tests.support.operator_processes import TIMINGS, OperatorProcess, alive, no_overlap, spells, wait_until

pytestmark = pytest.mark.cluster

PARENT_MEMORY_MIB = 35

Start = Callable[..., OperatorProcess]


@pytest.fixture
def start(devcluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Start]:
    started: list[OperatorProcess] = []

    def begin(behaviour: str = "work", grace: float = 2.0) -> OperatorProcess:
        started.append(OperatorProcess.stand_in(devcluster.kubeconfig, namespace, tmp_path, behaviour, grace))
        return started[-1]

    yield begin
    for operator in started:
        operator.stop()


def leader_and_standby(start: Start, behaviour: str = "work") -> tuple[OperatorProcess, int, OperatorProcess]:
    """An operator whose child works, that child, and another operator that waits for the lease."""
    first = start(behaviour)
    child = first.working_child()
    second = start()
    second.wait_for("waiting for the lease")
    return first, child, second


def test_a_clean_shutdown_finishes_the_work_and_hands_over_at_once(start: Start) -> None:
    first, old, second = leader_and_standby(start)
    assert second.get("/readyz") == (200, "ok\n")
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(10) == 0
    stopped = time.monotonic()
    new = second.child()
    assert time.monotonic() - stopped < TIMINGS.lease
    assert f'"finished": {old}' in first.text()
    assert "is given back" in first.text()
    assert not alive(old)
    wait_until(lambda: new in spells(second.marks), 30, "the second child works")
    assert no_overlap(first.marks)


def test_a_killed_parent_takes_its_child_and_its_childrens_children_along(start: Start) -> None:
    first, old, second = leader_and_standby(start, "grandchild")
    grandchild = int(first.wait_for(r'"grandchild": (\d+)').group(1))
    first.process.kill()
    took = wait_until(lambda: not alive(old), 30, "the child dies with its parent")
    assert took < TIMINGS.lease - TIMINGS.margin, "only when the lease was over"
    wait_until(lambda: not alive(grandchild), 10, "and so does what it started")
    second.working_child()
    assert no_overlap(first.marks)


def test_a_frozen_parents_child_is_dead_before_another_leads(start: Start) -> None:
    first, old, second = leader_and_standby(start)
    first.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: not alive(old), TIMINGS.lease, "the child ends with the lease")
    new = second.working_child()
    first.process.send_signal(signal.SIGCONT)
    first.wait_for("the lease .* is lost")
    wait_until(lambda: "waiting for the lease" in first.text(), 30, "the first stands by")
    time.sleep(1)
    assert alive(new)
    assert spells(first.marks).keys() == {old, new}
    assert no_overlap(first.marks)


def test_a_frozen_child_dies_before_it_does_anything_when_it_is_thawed_too_late(start: Start) -> None:
    first, old, second = leader_and_standby(start)
    # As a whole container is frozen: parent and child.
    first.process.send_signal(signal.SIGSTOP)
    os.kill(old, signal.SIGSTOP)
    second.working_child()
    os.kill(old, signal.SIGCONT)
    wait_until(lambda: not alive(old), 10, "the thawed child is killed")
    first.process.send_signal(signal.SIGCONT)
    assert no_overlap(first.marks)


def test_a_child_whose_interpreter_hangs_does_not_outlive_the_lease(start: Start) -> None:
    first = start("hang-once")
    old = first.child()
    first.wait_for("hanging")
    first.process.kill()
    assert first.process.wait(5) == -signal.SIGKILL
    assert wait_until(lambda: not alive(old), TIMINGS.lease, "the child is killed by its timer") <= TIMINGS.lease


def test_without_the_api_server_the_child_is_ended_inside_the_lease(devcluster: Cluster, start: Start) -> None:
    first = start()
    old = first.working_child()
    devcluster.kill_apiserver()
    try:
        wait_until(lambda: not alive(old), TIMINGS.lease, "the child is ended")
        first.wait_for("the lease .* is lost")
        assert first.process.poll() is None
        assert first.get("/healthz") == (200, "ok\n")
    finally:
        devcluster.start_apiserver()
    first.working_child(60, after=old)
    assert no_overlap(first.marks)


def test_a_rival_in_the_lease_ends_the_child_at_once(devcluster: Cluster, start: Start, namespace: str) -> None:
    first = start("stubborn")
    old = first.working_child()
    rival = json.dumps({"spec": {"holderIdentity": "rival", "leaseDurationSeconds": 2}})
    devcluster.kubectl_run("patch", "lease", "vectorwright-operator", "-n", namespace, "--type=merge", "-p", rival)
    took = wait_until(lambda: not alive(old), 30, "the child is killed")
    assert took < TIMINGS.lease - TIMINGS.margin, "only when the lease was over"
    first.child(after=old)


def test_a_child_that_dies_is_started_again(start: Start) -> None:
    first = start()
    old = first.working_child()
    os.kill(old, signal.SIGKILL)
    first.working_child(after=old)
    first.wait_for(f"the working process {old} was killed by SIGKILL; it is started again in 0.1 s")


def test_a_blocked_event_loop_is_noticed_and_ended(start: Start) -> None:
    first = start("block-once")
    old = first.child()
    wait_until(lambda: first.get("/healthz")[0] == 503, 30, "liveness fails")
    new = first.child(after=old)
    first.wait_for(f"the working process {old} was blocked for")
    assert not alive(old)
    wait_until(lambda: first.get("/healthz")[0] == 200, 30, "liveness recovers")
    wait_until(lambda: new in spells(first.marks), 30, "the second child works")


def test_a_child_that_cannot_be_kept_alive_ends_the_operator_and_frees_the_lease(start: Start) -> None:
    first = start("crash")
    assert first.process.wait(30) == 1
    assert "exited with status 3; that was failure 4 in a row; giving up" in first.text()
    second = start()
    second.child()
    assert "waiting for the lease" not in second.text()


def test_a_child_that_does_not_finish_is_killed_after_the_grace(start: Start) -> None:
    first = start("stubborn")
    old = first.working_child()
    begun = time.monotonic()
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(10) == 0
    assert time.monotonic() - begun >= 2.0
    assert not alive(old)
    assert "did not end in time and is killed" in first.text()
    assert "is given back" in first.text()


def test_asked_twice_it_does_not_wait(start: Start) -> None:
    first = start("stubborn", grace=60.0)
    old = first.working_child()
    first.process.send_signal(signal.SIGINT)
    first.wait_for("SIGINT: shutting down")
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(20) == 0
    assert not alive(old)


def test_without_a_lease_one_operator_works_just_so(start: Start) -> None:
    first = start("no-lease")
    pid = first.working_child()
    assert "lease" not in first.text()
    assert first.get("/readyz") == (200, "ok\n")
    assert "vectorwright_leader 1\n" in first.get("/metrics")[1]
    first.process.kill()
    wait_until(lambda: not alive(pid), 30, "the child dies with its parent")


def test_metrics_join_both_processes_and_a_standby_tells_its_own(start: Start) -> None:
    first, _, second = leader_and_standby(start)
    status, text = first.get("/metrics")
    assert status == 200
    assert "vectorwright_leader 1\n" in text
    assert 'vectorwright_store_up{name="one",namespace="ns"} 1.0\n' in text
    assert re.search(r"^vectorwright_child_starts_total 1$", text, re.MULTILINE)
    names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(names) == len(set(names))
    status, text = second.get("/metrics")
    assert status == 200
    assert "vectorwright_leader 0\n" in text
    assert 'vectorwright_build_info{version="' in text
    assert "vectorwright_store_up" not in text
    assert first.get("/elsewhere")[0] == 404


def test_an_operator_that_may_not_use_the_lease_is_not_ready(
    devcluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    devcluster.kubectl_run("create", "serviceaccount", "weak", "-n", namespace)
    token = devcluster.kubectl_run("create", "token", "weak", "-n", namespace).strip()
    kubeconfig = tmp_path / "weak"
    original = json.loads(devcluster.kubectl_run("config", "view", "--raw", "-o", "json"))
    original["users"] = [{"name": user["name"], "user": {"token": token}} for user in original["users"]]
    kubeconfig.write_text(json.dumps(original))
    operator = OperatorProcess.stand_in(kubeconfig, namespace, tmp_path)
    try:
        wait_until(lambda: 'cannot get resource "leases"' in operator.get("/readyz")[1], 30, "readiness says why")
        assert operator.get("/readyz")[0] == 503
        assert operator.get("/healthz") == (200, "ok\n")
    finally:
        operator.stop()


@pytest.mark.usefixtures("crds")
def test_the_command_leads_answers_and_its_parent_is_small(devcluster: Cluster, namespace: str, tmp_path: Path) -> None:
    flags = {
        "kubeconfig": str(devcluster.kubeconfig),
        "namespace": namespace,
        "leader-election-namespace": namespace,
        "metrics-bind-address": "127.0.0.1:0",
        "log-format": "json",
    }
    command = [sys.executable, "-m", "vectorwright", "operator", *(f"--{key}={value}" for key, value in flags.items())]
    operator = OperatorProcess.start(command, tmp_path)
    try:
        operator.child()
        wait_until(lambda: "vectorwright_heartbeat_age_seconds" in operator.get("/metrics")[1], 30, "a heartbeat")
        assert operator.get("/readyz") == (200, "ok\n")
        assert operator.get("/healthz") == (200, "ok\n")
        assert "process_resident_memory_bytes" in operator.get("/metrics")[1]
        memory = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{operator.pid}/status").read_text())
        assert int(memory[0]) / 1024 <= PARENT_MEMORY_MIB
        for line in operator.text().splitlines():
            assert json.loads(line).keys() >= {"ts", "level", "logger", "msg"}
        operator.process.send_signal(signal.SIGTERM)
        assert operator.process.wait(20) == 0
    finally:
        operator.stop()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--log-format=xml"], "--log-format: 'xml' is none of json, text"),
        (["--metrics-bind-address=8080"], "--metrics-bind-address: '8080' is not an address such as :8080"),
        (["--namespace=Team_A"], "--namespace: 'Team_A' is not the name of a namespace"),
        ([], "this is not a pod with a service account"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_status_2(flags: list[str], words: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("VECTORWRIGHT", "KUBE"))}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-m", "vectorwright", "operator", *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
