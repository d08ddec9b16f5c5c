"""What the child process does: tie itself to its parent, then run the controllers until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

from vectorwright.errors import VectorwrightError
from vectorwright.kube.connection import KubeConnection
from vectorwright.kube.tenure import process_tenure
from vectorwright.observability import metrics
from vectorwright.settings import Settings

from .tether import Tether

_log = logging.getLogger(__name__)


Run = Callable[[Settings, KubeConnection, Callable[[], None], asyncio.Event], Awaitable[None]]
"""``run(settings, connection, heartbeat, stop)``: works until ``stop`` is set. It calls ``heartbeat`` once a second or
so from the event loop, and heeds the tenure of the process before each write. Raises VectorwrightError."""


def work(settings: Settings, connection: KubeConnection, run: Run) -> int:
    """Until the parent says stop (status 0), or something fails (1). Standard input is the parent's socket.

    Raises NoParentError when there is no parent.
    """
    tether = Tether.from_stdin(process_tenure(), metrics.exposition)
    return asyncio.run(_work(settings, connection, run, tether))


async def _work(settings: Settings, connection: KubeConnection, run: Run, tether: Tether) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tether.attach(stop)
    try:
        await run(settings, connection, tether.beat, stop)
    except VectorwrightError as error:
        _log.critical("the operator cannot work: %s", error.message)
        return 1
    if not stop.is_set():
        _log.critical("the controllers ended although nobody told them to")
        return 1
    return 0
