"""Clients of a rotated PostgreSQL role in real pods, who know their key from the environment: only a restart brings the
next one. They tell this machine what they met, so that nothing is lost with a pod."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.loopback_http import LoopbackHttp, Request, Response
from tests.support.real_pods import Doors
from tests.support.rotations import Rotation
from tests.support.vectorwright import condition

READY_FILE = "/dev/shm/ready"
_CLIENT = """
    import json, os, signal, time, urllib.request
    import psycopg
    told = {"pod": os.environ["HOSTNAME"], "user": os.environ["username"], "queries": 0, "logins": 0, "errors": []}
    ending = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))

    def tell(**more):
        urllib.request.urlopen("COLLECTOR", json.dumps(told | more).encode(), timeout=10).close()

    def login():
        told["logins"] += 1
        place = dict(PLACE, user=os.environ["username"], password=os.environ["password"], connect_timeout=10)
        return psycopg.connect(**place, autocommit=True)

    def ask(connection):
        told["queries"] += 1
        connection.execute("SELECT 1")

    def work():
        # One session for the life of the pod, and a new one for every other query.
        with login() as kept:
            while not ending:
                ask(kept)
                with login() as fresh:
                    ask(fresh)
                open("READY", "w").close()
                tell()
                time.sleep(0.1)

    while not ending:
        try:
            work()
        except psycopg.Error as error:
            told["errors"].append(f"{type(error).__name__} {error}")
            tell()
            time.sleep(0.5)
    tell(ended=True)
"""


@dataclass
class Clients:
    """What the pods told last, by their names."""

    program: str
    told: dict[str, dict[str, Any]] = field(default_factory=dict)

    def figures(self) -> str:
        """For people."""
        queries, logins = (sum(one[what] for one in self.told.values()) for what in ("queries", "logins"))
        return f"{len(self.told)} pods, {logins} logins, {queries} queries, {len(self.errors())} refused"

    def errors(self) -> list[str]:
        """What any query or login of any pod met."""
        return [f"{pod}: {error}" for pod, one in self.told.items() for error in one["errors"]]

    def ended(self) -> set[str]:
        """Pods that ended in good order: what they told is all there is."""
        return {pod for pod, one in self.told.items() if one.get("ended")}


@contextmanager
def collecting(doors: Doors, place: dict[str, Any]) -> Iterator[Clients]:
    """Listen to clients whose ``program`` logs in at ``place``: host, port, dbname and so on."""
    told: dict[str, dict[str, Any]] = {}

    def listen(request: Request) -> Response:
        one = json.loads(request.body)
        told[one["pod"]] = one
        return Response()

    with LoopbackHttp(listen, keep_requests=False) as server:
        program = _CLIENT.replace("COLLECTOR", f"http://{doors.to(server.port)}/")
        yield Clients(program.replace("PLACE", repr(place)).replace("READY", READY_FILE), told)


@contextmanager
def never_without_a_key(rotation: Rotation) -> Iterator[list[str]]:
    """Look all the while, five times a second, whether a rotation is Ready. Gives the steps that were seen."""
    stop, steps, unready = threading.Event(), list[str](), list[Any]()

    def watch() -> None:
        while not stop.wait(0.2):
            body = rotation.get()
            ready = condition(body, "Ready")
            if ready["status"] != "True":
                unready.append(ready)
            step = f"{body['status']['step']} {body['status']['revision']}"
            if step not in steps:
                steps.append(step)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield steps
        finally:
            stop.set()
        watching.result()
    assert unready == []
