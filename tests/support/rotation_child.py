"""An operator for key rotations alone that kills itself at a chosen moment.

Run as a program it loads everything once and forks one operator a line of its input: the real driver, reconciler,
issuers and client of the API server, for one namespace. Each notes what it changed in a file, one line a change, and
ends by SIGKILL: at the change that its order names, or when somebody sends one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from vectorwright.controllers import apikeyrotation
from vectorwright.controllers.assembly import assemble
from vectorwright.kube import resources
from vectorwright.kube.client import KubeClient, Object, Objects, WriteCall
from vectorwright.kube.connection import load_connection
from vectorwright.observability.logs import configure_logging
from vectorwright.reconcile import rotation_consumers, rotation_issue, rotation_pass, rotation_proof
from vectorwright.rotation import qdrant_server_workload, qdrant_tokens
from vectorwright.rotation.base import Assignment, KeyIssuer
from vectorwright.rotation.registry import KINDS, open_issuer
from vectorwright.settings import Settings

INSTALLATION = "tests"
_UNCOUNTED = (resources.EVENTS, resources.LEASES)


@dataclass(frozen=True)
class Order:
    """One operator. Moments to be killed at are counted from 1."""

    kubeconfig: str
    namespace: str
    directory: str
    """Where ``log`` and ``changes`` are appended to."""
    kill_at: int | None = None
    """Number of the change after which it is killed."""
    kill_at_new: tuple[str, ...] | None = None
    """Killed after the first change that is none of these."""
    kill_after: str | None = None
    """Killed after the first change whose line ends so."""
    delay: float = 0.0
    """It is killed within so many seconds after that change, not at once."""
    stop_before: tuple[str, int] | None = None
    """(issuer's method, number of its call): stopped (SIGSTOP) before it, so that somebody can wait for its calls."""
    constants: dict[str, float] = field(default_factory=dict)
    """Seconds by name, of :data:`CONSTANTS`."""

    @classmethod
    def of(cls, line: str) -> Order:
        """Read back what ``line()`` wrote."""
        plain = json.loads(line)
        for name in ("kill_at_new", "stop_before"):
            plain[name] = tuple(plain[name]) if plain[name] is not None else None
        return cls(**plain)

    def line(self) -> str:
        """As a line of the program's input."""
        return json.dumps(asdict(self))


def _set_remake(span: timedelta) -> None:
    rotation_issue.REMAKE_AFTER = span
    rotation_proof.REFUSED_FOR = span
    rotation_proof.RETRY_SECONDS = span.total_seconds() / 4


CONSTANTS: Mapping[str, Callable[[float], None]] = {
    "settling": lambda seconds: setattr(rotation_consumers, "SETTLING", timedelta(seconds=seconds)),
    "remake": lambda seconds: _set_remake(timedelta(seconds=seconds)),
    "claim": lambda seconds: setattr(rotation_issue, "CLAIM", timedelta(seconds=seconds)),
    "look_again": lambda seconds: setattr(qdrant_server_workload, "LOOK_AGAIN", seconds),
    "leeway": lambda seconds: setattr(qdrant_tokens, "LEEWAY", seconds),
}
"""Waits that a test may make shorter, because what they wait for is quicker here."""


class Changes:
    """Counts and notes changes, and kills this process at one of them."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._file = os.open(Path(order.directory) / "changes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._seen = 0
        self._calls: dict[str, int] = {}

    def done(self, what: str) -> None:
        """A change was made, and the answer is here: nobody knows of it yet."""
        self._seen += 1
        os.write(self._file, f"{os.getpid()} {time.time():.3f} {what}\n".encode())
        order = self._order
        known, ending = order.kill_at_new, order.kill_after
        fatal = self._seen == order.kill_at or (known is not None and what not in known)
        if fatal or (ending is not None and what.endswith(ending)):
            if order.delay:
                threading.Timer(random.uniform(0, order.delay), _kill).start()
            else:
                _kill()

    def about_to(self, method: str) -> None:
        """A method of the issuer is about to be called."""
        self._calls[method] = self._calls.get(method, 0) + 1
        if (method, self._calls[method]) == self._order.stop_before:
            os.kill(os.getpid(), signal.SIGSTOP)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class NotedClient(KubeClient):
    """Notes each write that the API server accepted."""

    def __init__(self, *arguments: Any, changes: Changes) -> None:
        super().__init__(*arguments)
        self._changes = changes

    async def _write(
        self,
        call: WriteCall,
        method: str,
        path: str,
        body: Object | Objects,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        answer = await super()._write(call, method, path, body, query=query, content_type=content_type)
        if call.resource not in _UNCOUNTED:
            what = "/".join(part for part in (call.resource.plural, call.name, call.subresource) if part)
            rehearsed = " in rehearsal" if "dryRun" in (query or {}) else ""
            self._changes.done(f"{call.verb} {what}{_step_told(body)}{rehearsed}")
        return answer


def _step_told(body: Object | Objects) -> str:
    """The step that a write of the state Secret remembers, or a status tells."""
    if not isinstance(body, dict):
        return ""
    step = (body.get("status") or {}).get("step")
    if state := (body.get("data") or {}).get("state.json"):
        step = json.loads(base64.b64decode(state))["step"]
    return f" -> {step}" if step else ""


def _noted(changes: Changes) -> Callable[..., KeyIssuer]:
    """``open_issuer`` whose issuers note what they made and revoked."""

    def wrapped(name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def noted(*arguments: Any) -> Any:
            changes.about_to(name)
            answer = await call(*arguments)
            changes.done(f"issuer.{name}")
            return answer

        return noted

    def opened(kind: str, strategy: Any, assignment: Assignment) -> KeyIssuer:
        issuer = open_issuer(kind, strategy, assignment)
        for name in ("create", "revoke"):
            setattr(issuer, name, wrapped(name, getattr(issuer, name)))
        return issuer

    return opened


async def operate(order: Order) -> None:
    """Work until killed."""
    changes = Changes(order)
    for name, seconds in order.constants.items():
        CONSTANTS[name](seconds)
    rotation_pass.open_issuer = _noted(changes)  # type: ignore[attr-defined]
    client = NotedClient(load_connection(Path(order.kubeconfig)), changes=changes)
    settings = Settings(namespaces=(order.namespace,), leader_election=False)
    context, driver = assemble(settings, client, INSTALLATION, [apikeyrotation.CONTROLLER])
    for store in await client.list(resources.VECTOR_STORES, order.namespace):
        context.cache.put("VectorStore", store)

    async def watch() -> None:
        async with contextlib.aclosing(client.watch(resources.API_KEY_ROTATIONS, order.namespace)) as events:
            async for kind, body in events:
                for item in body["items"] if kind == "LISTED" else [body]:
                    driver.on_event("APIKeyRotation", None if kind == "LISTED" else kind, item)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        group.create_task(driver.queue.run())


def _fork(order: Order) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(Path(order.directory) / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    try:
        configure_logging("json", "debug")
        asyncio.run(operate(order))
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here and not in its parent's loop
        traceback.print_exc()
    finally:
        os._exit(1)


def main() -> None:
    """Fork an operator a line; its process id is the answer."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for the dead ones
    for kind in KINDS.values():
        for module in kind.modules.values():
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(module)
    answers = os.dup(1)
    while line := sys.stdin.readline():
        os.write(answers, f"{_fork(Order.of(line))}\n".encode())


if __name__ == "__main__":
    main()
