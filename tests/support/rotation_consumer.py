"""Somebody who uses the published key of a scene of :mod:`tests.support.rotation_kills`, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.rotation_kills import GROUP, OVERLAP, SECRET, Scene, material_of

from vectorwright.rotation.base import KeyMaterial


@dataclass
class Refusal:
    """A consumer's call that the store refused."""

    revision: str | None
    """Of the key that it used."""
    age: float
    """Seconds from the reading of the Secret to the end of the call."""


class Consumer:
    """Reads the Secret and uses what it holds, again and again, from a thread of its own."""

    def __init__(self, scene: Scene, pause: float = 0.02) -> None:
        self._scene = scene
        self._pause = pause
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"consumer in {scene.namespace}")
        self.calls = 0
        self.late = 0
        """Refused calls with a key that was read longer ago than the overlap lasts."""
        self.refused: list[Refusal] = []

    def _run(self) -> None:
        try:
            asyncio.run(self._use_all_the_while())
        except BaseException as error:  # noqa: BLE001 - raised again by the test's thread
            self._failure = error

    async def _use_all_the_while(self) -> None:
        while not self._stop.is_set():
            read = time.monotonic()
            data = self._scene.secret(SECRET)
            if data:
                await self._use(data, read)
            await asyncio.sleep(self._pause)

    async def _use(self, data: dict[str, bytes], read: float) -> None:
        material = material_of(data)
        self._scene.values |= {value for value in (material.token, material.password) if value}
        previous = [KeyMaterial(token=data["previous"].decode())] if data.get("previous") else []
        await self._scene.case.published(material, *previous)
        self.calls += 1
        if not await self._scene.case.use(material):
            age = time.monotonic() - read
            if age > OVERLAP:
                self.late += 1
            else:
                self.refused.append(Refusal(self._revision(), age))

    def _revision(self) -> str | None:
        found = self._scene.core.read_namespaced_secret(SECRET, self._scene.namespace).metadata.annotations or {}
        revision: str | None = found.get(f"{GROUP}/key-revision")
        return revision

    def check(self, *, gaps: bool = False) -> None:
        """Fail when a call was refused; with ``gaps`` that is so by design, and only counted."""
        if self._failure is not None:
            raise self._failure
        if not gaps:
            assert not self.refused, (self.refused, self._scene.told())

    @contextlib.contextmanager
    def at_work(self) -> Iterator[Consumer]:
        """Use the key until the context ends."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()
