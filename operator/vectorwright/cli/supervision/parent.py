"""The parent process: holds the Lease, runs the child while it does, answers probes, passes signals on."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import uuid
from collections.abc import Sequence

from vectorwright.errors import Terminal, VectorwrightError
from vectorwright.kube import clock
from vectorwright.kube.connection import KubeConnection
from vectorwright.kube.lease import LeaderElector, Lost, Timings
from vectorwright.kube.slim import SlimClient
from vectorwright.observability.health import PROMETHEUS, Answer, HealthServer, parent_exposition
from vectorwright.settings import Settings

from .supervisor import GaveUpError, RestartPolicy, Supervisor

_log = logging.getLogger(__name__)

REACHABLE_S = 30.0
"""Without an answer of the API server for this long, this operator is not able to lead."""
_KILL_BEFORE_S = 0.5
"""The child is killed this long before the deadline at which it would end itself."""
_CHECK_EVERY_S = 5.0
_UNREADY_FAILURES = 3


class Parent:
    """See the module. ``command`` starts the child (it gets the same flags)."""

    def __init__(
        self,
        settings: Settings,
        connection: KubeConnection,
        command: Sequence[str],
        *,
        timings: Timings | None = None,
        policy: RestartPolicy | None = None,
    ) -> None:
        self._settings = settings
        self._command = command
        self._policy = policy
        self._api = SlimClient(connection)
        self._elector: LeaderElector | None = None
        if settings.leader_election:
            self._elector = LeaderElector(
                self._api,
                namespace=settings.leader_election_namespace or connection.namespace,
                name=settings.leader_election_name,
                identity=f"{socket.gethostname()[:200]}_{uuid.uuid4()}",
                timings=timings,
            )
        self._stopping = asyncio.Event()
        self._supervisor: Supervisor | None = None
        self._starts_before = 0
        self._last_contact = -math.inf
        self._last_error: VectorwrightError | None = None
        self._signals = 0

    async def run(self) -> int:
        """Until SIGTERM or SIGINT (status 0), or until the child cannot be kept alive (1). Raises Terminal at start."""
        server = HealthServer({"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics})
        await server.start(self._settings.metrics_bind_address)
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._on_signal, signum)
        try:
            return await self._lead_until_stopped()
        finally:
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)
            await server.close()
            await self._api.close()

    def _on_signal(self, signum: int) -> None:
        self._signals += 1
        _log.info("%s: shutting down", signal.Signals(signum).name)
        self._stopping.set()
        if self._signals > 1 and self._supervisor is not None:
            # Whoever asks twice does not want to wait.
            self._supervisor.end(clock.now())

    async def _lead_until_stopped(self) -> int:
        while not self._stopping.is_set():
            if self._elector is not None and not await self._acquire(self._elector):
                break
            try:
                await self._term()
            except GaveUpError as error:
                _log.critical("%s; giving up, so that another operator may lead", error)
                return 1
        return 0

    async def _acquire(self, elector: LeaderElector) -> bool:
        """Whether the lease was got before the order to stop."""
        acquiring = asyncio.create_task(elector.acquire(), name="acquire the lease")
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({acquiring, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if acquiring.done():
            acquiring.result()
            return True
        acquiring.cancel()
        await asyncio.gather(acquiring, return_exceptions=True)
        return False

    async def _term(self) -> None:
        """One term of leadership: returns with no child left, the lease given back where it still was ours."""
        elector = self._elector
        supervisor = Supervisor(self._command, self._deadline, self._policy)
        self._supervisor = supervisor
        holding: asyncio.Task[Lost | None] = asyncio.create_task(
            elector.hold() if elector is not None else self._keep_checking(), name="hold the lease"
        )
        working = asyncio.create_task(supervisor.run(), name="supervise the child")
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({holding, working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not holding.done() and not working.done():
                # The lease is held on while the child finishes.
                supervisor.end(clock.now() + self._settings.shutdown_grace_s)
                await asyncio.wait({holding, working}, return_when=asyncio.FIRST_COMPLETED)
            if holding.done():
                taken = holding.result() is Lost.TAKEN
                supervisor.end(clock.now() if taken else self._deadline() - _KILL_BEFORE_S)
            await working
        finally:
            stopping.cancel()
            if not working.done():
                supervisor.end(clock.now())
                await asyncio.gather(working, return_exceptions=True)
            lost = holding.done()
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            self._starts_before += supervisor.starts
            self._supervisor = None
            if elector is not None and not lost:
                await elector.release()

    def _deadline(self) -> float:
        return math.inf if self._elector is None else self._elector.deadline

    async def _keep_checking(self) -> None:
        """Without a lease there is no other call that would tell whether the API server can be reached."""
        while True:
            try:
                await self._api.check()
            except VectorwrightError as error:
                self._last_error = error
                if isinstance(error, Terminal):
                    self._last_contact = clock.now()
            else:
                self._last_contact, self._last_error = clock.now(), None
            await asyncio.sleep(_CHECK_EVERY_S)

    async def _healthz(self) -> Answer:
        """Alive: this answers, and the child's event loop turns (this process restarts a child that hangs itself)."""
        child = self._supervisor.child if self._supervisor is not None else None
        if child is not None and child.stale():
            return Answer(503, b"the working process is blocked\n")
        return Answer(200, b"ok\n")

    async def _readyz(self) -> Answer:
        """Able to lead. A standby is ready; one that cannot reach the API server, or keep its child alive, is not."""
        contact = self._last_contact if self._elector is None else self._elector.last_contact
        error = self._last_error if self._elector is None else self._elector.last_error
        if clock.now() - contact > REACHABLE_S:
            return Answer(503, _because("the API server did not answer lately", error))
        if isinstance(error, Terminal):
            return Answer(503, _because("the lease cannot be used", error))
        if self._supervisor is not None and self._supervisor.failures >= _UNREADY_FAILURES:
            return Answer(503, b"the working process fails again and again\n")
        return Answer(200, b"ok\n")

    async def _metrics(self) -> Answer:
        supervisor = self._supervisor
        child = supervisor.child if supervisor is not None else None
        own = parent_exposition(
            leading=supervisor is not None and clock.now() < self._deadline(),
            child_starts=self._starts_before + (supervisor.starts if supervisor is not None else 0),
            heartbeat_age=child.heartbeat_age if child is not None else None,
        )
        return Answer(200, own + (await child.metrics() if child is not None else b""), PROMETHEUS)


def _because(what: str, error: VectorwrightError | None) -> bytes:
    return f"{what}{f': {error.message}' if error is not None else ''}\n".encode()
