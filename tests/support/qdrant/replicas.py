"""Replicas of one Qdrant behind one address, as a StatefulSet behind a Service has them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from itertools import count

from tests.support.async_front import AsyncFront, Streams, passed_on
from tests.support.qdrant.double import Environment, QdrantDouble
from tests.support.qdrant.engine import QdrantEngine


class RoundRobinFront(AsyncFront):
    """Passes connections to one of ``targets()`` after the other; ``targets`` tells the ports that are ready.

    A connection that none takes is closed.
    """

    def __init__(self, targets: Callable[[], list[int]]) -> None:
        self._targets = targets
        self._turns = count()
        super().__init__()

    async def serve(self, client: Streams) -> None:
        ready = self._targets()
        first = next(self._turns)
        for at in range(len(ready)):
            with contextlib.suppress(ConnectionRefusedError):
                server = await asyncio.open_connection(self.host, ready[(first + at) % len(ready)])
                return await passed_on(client, server)
        return None


class QdrantReplicas:
    """``number`` doubles with one data set, behind one round-robin address for each of the two APIs.

    Keys are read at the start of each replica, from ``environment`` where it is given: so replicas have different keys
    while they are restarted one after the other. ``replicas`` are there to be looked at, and restarted, one by one.
    """

    def __init__(
        self,
        number: int = 2,
        *,
        api_key: str | None = None,
        alt_api_key: str | None = None,
        environment: Environment | None = None,
    ) -> None:
        self.engine = QdrantEngine()
        self.replicas = [
            QdrantDouble(api_key=api_key, alt_api_key=alt_api_key, environment=environment, engine=self.engine)
            for _ in range(number)
        ]
        self._leaving: QdrantDouble | None = None
        self._rest = RoundRobinFront(lambda: [one.port for one in self._ready()])
        self._grpc = RoundRobinFront(lambda: [one.grpc_port for one in self._ready()])
        self.host = "127.0.0.1"
        self.port, self.grpc_port = self._rest.port, self._grpc.port
        self.url = f"http://{self.host}:{self.port}"

    def _ready(self) -> list[QdrantDouble]:
        return [one for one in self.replicas if one.runs and one is not self._leaving]

    @property
    def starts(self) -> list[int]:
        """How often each replica was started."""
        return [one.starts for one in self.replicas]

    def rolling_restart(self, *, down: float = 0.05, grace: float = 2.0, **keys: str | None) -> None:
        """Restart the replicas one after the other, the last one first, as a StatefulSet does.

        New connections go elsewhere before one stops, and requests that are being answered have ``grace`` seconds.
        """
        for one in reversed(self.replicas):
            self._leaving = one
            one.restart(down=down, grace=grace, **keys)
            self._leaving = None

    def stop(self) -> None:
        """Stop all replicas; the address stays, and closes what connects."""
        for one in self.replicas:
            one.stop()

    def start(self) -> None:
        """Start all replicas again."""
        for one in self.replicas:
            one.start()

    def wait_for_starts(self, number: int, seconds: float = 10.0) -> None:
        """Wait until every replica was started so often. Raises TimeoutError."""
        until = time.monotonic() + seconds
        while min(self.starts) < number:
            if time.monotonic() > until:
                raise TimeoutError(f"replicas were started {self.starts} times, not {number}")
            time.sleep(0.02)

    def close(self) -> None:
        self._rest.close()
        self._grpc.close()
        for one in self.replicas:
            one.close()
