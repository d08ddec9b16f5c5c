"""Runs git: never through a shell, with none of the machine's settings, each call bounded in time and in bytes.

A repository is hostile input, and so is its server. Hooks, helpers, proxies, submodules, protocols other than the one
asked for, and prompts are off; no file of the machine's or the user's git is read.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from vectorwright.errors import Retryable, Terminal

LEAST_VERSION = (2, 38)
"""``cat-file --batch-command -z`` came with it; ``http.curloptResolve`` with 2.37."""

_STDERR_KEPT = 16_384
"""Bytes of git's messages that are kept: servers may send any amount."""

MOST_OUTPUT = 64 << 20
"""Bytes of output that are kept in memory."""

_SETTINGS = {
    "core.askPass": "",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",
    "fetch.writeCommitGraph": "false",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "http.proxy": "",
    "log.showRoot": "true",
    "log.showSignature": "false",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "protocol.version": "2",
    "submodule.recurse": "false",
    "transfer.bundleURI": "false",
}
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")


class GitFailed(Exception):  # noqa: N818 - translated before anyone outside of the source sees it
    """git ended with an error. ``stderr`` may quote the server: it is looked at, and never shown."""

    def __init__(self, code: int, stderr: str) -> None:
        super().__init__(code)
        self.code = code
        self.stderr = stderr


class OutOfBounds(Exception):  # noqa: N818 - as above
    """git was stopped, because it wrote more bytes than it was allowed."""


@dataclass(slots=True)
class Running:
    """A git process whose output is read as it comes."""

    process: asyncio.subprocess.Process
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    _stderr: bytearray = field(default_factory=bytearray)

    async def keep_stderr(self) -> None:
        """Read git's messages to their end and keep the last of them."""
        stream = self.process.stderr
        while stream is not None and (data := await stream.read(4096)):
            self._stderr += data
            del self._stderr[:-_STDERR_KEPT]

    @property
    def messages(self) -> str:
        """The last of git's messages."""
        return self._stderr.decode("utf-8", "replace")

    def kill(self) -> None:
        """End the process and everything it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Git:
    """Git with its home in ``work``, a directory of this run's own."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | {
            "HOME": str(work),
            "LANG": "C",
            "LC_ALL": "C",
            "GIT_ASKPASS": "",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(work),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_TERMINAL_PROMPT": "0",
        }

    @asynccontextmanager
    async def start(
        self,
        *arguments: str,
        config: Iterable[tuple[str, str]] = (),
        environment: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Running]:
        """A running git. It and all its children are gone when the block is left, however it is left.

        Raises Terminal ``GitMissing`` when there is no git.
        """
        settings = [part for name, value in (*_SETTINGS.items(), *config) for part in ("-c", f"{name}={value}")]
        try:
            process = await asyncio.create_subprocess_exec(
                "git",
                *settings,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**self._environment, **(environment or {})},
                cwd=self._work,
                start_new_session=True,
                limit=1 << 20,
            )
        except FileNotFoundError:
            raise Terminal(
                "git is not installed where the worker runs: use the image of Vectorwright", reason="GitMissing"
            ) from None
        if process.stdin is None or process.stdout is None:
            raise AssertionError("pipes were asked for")
        running = Running(process, process.stdin, process.stdout)
        messages = asyncio.create_task(running.keep_stderr())
        try:
            yield running
        finally:
            running.kill()
            await asyncio.shield(_reap(running, messages))

    async def run(
        self,
        *arguments: str,
        seconds: float,
        stdin: bytes = b"",
        config: Iterable[tuple[str, str]] = (),
        environment: Mapping[str, str] | None = None,
        within: Callable[[], bool] | None = None,
    ) -> bytes:
        """The output of a git that came to its end.

        ``within`` is asked a few times a second whether git may go on. Raises :class:`GitFailed` for an exit status
        other than 0, :class:`OutOfBounds` when ``within`` said no or it writes more than :data:`MOST_OUTPUT`, Retryable
        ``Timeout`` after ``seconds``.
        """
        async with self.start(*arguments, config=config, environment=environment) as running:
            guard = asyncio.create_task(_watch(running, within)) if within else None
            try:
                async with asyncio.timeout(seconds):
                    output = await _exchange(running, stdin)
                    code = await running.process.wait()
            except TimeoutError:
                raise Retryable(f"git {arguments[0]} took more than {seconds:.0f} s", reason="Timeout") from None
            finally:
                stopped = guard is not None and guard.done() and not guard.cancelled()
                if guard is not None:
                    guard.cancel()
                    await asyncio.gather(guard, return_exceptions=True)
        if stopped:
            raise OutOfBounds
        if code != 0:
            raise GitFailed(code, running.messages)
        return output


async def _watch(running: Running, within: Callable[[], bool]) -> None:
    """Ends, having killed git, when it may not go on."""
    while await asyncio.to_thread(within):  # noqa: ASYNC110 - files grow without telling
        await asyncio.sleep(0.2)
    running.kill()


async def _exchange(running: Running, stdin: bytes) -> bytes:
    async def write() -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            running.stdin.write(stdin)
            await running.stdin.drain()
        running.stdin.close()

    async def read() -> bytes:
        output = bytearray()
        while data := await running.stdout.read(1 << 16):
            output += data
            if len(output) > MOST_OUTPUT:
                running.kill()
                raise OutOfBounds
        return bytes(output)

    _, output = await asyncio.gather(write(), read())
    return output


async def _reap(running: Running, messages: asyncio.Task[None]) -> None:
    """Wait for a killed process, reading what is left so that its pipes are closed."""
    running.stdin.close()
    with suppress(BrokenPipeError, ConnectionResetError):
        await running.stdin.wait_closed()
    while await running.stdout.read(1 << 16):
        pass
    await messages
    await running.process.wait()


async def check_version(git: Git) -> None:
    """Raises Terminal ``GitTooOld`` below :data:`LEAST_VERSION`."""
    output = (await git.run("version", seconds=30)).decode("ascii", "replace")
    numbers = tuple(int(part) for part in output.split()[2].split(".")[:2] if part.isdigit())
    if numbers < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise Terminal(f"git {'.'.join(map(str, numbers))} is installed; {least} is needed", reason="GitTooOld")


def disk_use(directories: Sequence[Path]) -> int:
    """Bytes of all files directly in the directories."""
    total = 0
    for directory in directories:
        with suppress(FileNotFoundError):
            for item in os.scandir(directory):
                with suppress(FileNotFoundError):
                    total += item.stat().st_size
    return total
