"""A store server beside this process, for trials: started when it is first needed, ended with its parent.

One process owns the whole of a directory: every folder in it that a VectorStore names is a store of its own, and so is
the one store in memory. What is in memory is gone when the process ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import httpx

from vectorwright.errors import Retryable, Terminal

from .server.hosting import FOLDER_PATTERN, MAX_SOCKET_PATH

_START = 30.0
"""Seconds until it must answer: loading the Lance library takes one, on a machine whose cores are all busy ten."""
_LOCK_WAIT = 15
"""Seconds that it waits for the server of an operator that was killed: that one ends when it sees its stdin end."""
_GRACE = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STEADY = 60.0
"""Seconds after which a server that ran is one that works: the next pause is short again."""
_log = logging.getLogger(__name__)


class LocalStoreServers:
    """The store server of one directory, as a child of this process. It is restarted when it dies, with a pause.

    ``root`` is made where there is none. All methods belong to one event loop.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._place: Path | None = None
        self._process: Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._answers = asyncio.Event()
        self._stopping = False
        self._complaint = ""

    async def socket(self, folder: str | None = None) -> Path:
        """The socket to reach it by; starts it at the first call and waits until it answers.

        ``folder`` is the one that the store is in, relative to the root: checked here, and told to the server by each
        request (``connection.settings["path"]``). Raises Terminal (``InvalidFolder``) and Retryable
        (``LocalStoreNotReady``).
        """
        if folder is not None and not FOLDER_PATTERN.fullmatch(folder):
            raise Terminal(
                f"folder {folder[:200]!r} is not one that a store may have: names of letters, digits, '.', '_' and '-' "
                "that do not begin with a dot, joined by '/'",
                reason="InvalidFolder",
            )
        await self.start()
        if self._place is None:
            raise Retryable("the store server beside the operator is stopping", reason="LocalStoreNotReady")
        return self._place / "s"

    async def start(self, within: float = _START) -> None:
        """Start it, if it does not run, and wait until it answers, at most ``within`` seconds.

        Raises Retryable (``LocalStoreNotReady``).
        """
        async with self._starting:
            if self._stopping:
                raise Retryable("the store server beside the operator is stopping", reason="LocalStoreNotReady")
            if self._supervisor is None:
                self._place = await asyncio.to_thread(_private_place)
                self._supervisor = asyncio.create_task(self._supervise(self._place / "s"), name="local store server")
        try:
            async with asyncio.timeout(within):
                await self._answers.wait()
        except TimeoutError:
            raise Retryable(
                f"the store server beside the operator does not answer yet{self._complaint}",
                reason="LocalStoreNotReady",
                after=2.0,
            ) from None

    async def stop(self) -> None:
        """Stop it in good order. Safe to call twice, and where it never started."""
        self._stopping = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        if self._process is not None:
            await _end(self._process)
            self._process = None
        if self._place is not None:
            await asyncio.to_thread(shutil.rmtree, self._place, ignore_errors=True)
            self._place = None

    async def _supervise(self, path: Path) -> None:
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            self._process = await self._spawn(path)
            watch = asyncio.create_task(self._wait_until_it_answers(path, self._process))
            try:
                status = await self._process.wait()
            finally:
                watch.cancel()
                self._answers.clear()
            pause = _FIRST_PAUSE if time.monotonic() - began > _STEADY else min(2 * pause, _LONGEST_PAUSE)
            self._complaint = f": it ended with status {status}, its log says why"
            _log.warning("the local store server ended with status %d; it is started again in %g s", status, pause)
            await asyncio.sleep(pause)

    async def _spawn(self, path: Path) -> Process:
        command: list[str | Path] = [sys.executable, "-m", "vectorwright", "store-server", "--unix", path]
        command += ["--lance", self._root, "--lance-folders", "--faiss", self._root, "--faiss-folders", "--memory"]
        command += ["--exit-on-stdin-eof", "--lock-wait", str(_LOCK_WAIT)]
        # Its pipe is the sign of our life: the system closes it whichever way this process ends.
        return await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=asyncio.subprocess.DEVNULL, start_new_session=True, env=_environment()
        )

    async def _wait_until_it_answers(self, path: Path, process: Process) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(base_url="http://store-server", transport=transport, timeout=5) as client:
            while process.returncode is None:
                try:
                    if (await client.get("/healthz")).status_code == 200:
                        self._answers.set()
                        return
                except httpx.TransportError:
                    pass  # it does not listen yet
                await asyncio.sleep(0.05)


def _environment() -> dict[str, str]:
    """Ours, with this package importable."""
    root = str(Path(__file__).resolve().parents[2])
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": root if not before else f"{root}{os.pathsep}{before}"}


def _private_place() -> Path:
    """A folder for the socket that only we may enter, with a path that is short enough."""
    place = Path(tempfile.mkdtemp(prefix="vw-"))
    if len(os.fsencode(place / "s")) <= MAX_SOCKET_PATH:
        return place
    place.rmdir()
    raise Terminal(
        f"the folder for temporary files ({place.parent}) has too long a path for a socket: set TMPDIR to another",
        reason="SocketPathTooLong",
    )


async def _end(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    for give_up in (process.terminate, process.kill):
        if process.returncode is not None:
            return
        try:
            async with asyncio.timeout(_GRACE):
                await process.wait()
        except TimeoutError:
            give_up()
    await process.wait()
