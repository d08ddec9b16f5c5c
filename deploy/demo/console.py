"""What the person who runs the demo sees: steps with their time, commands with their output, claims with proof."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import time
from collections.abc import Iterator

_MARGIN = "    "
_WIDTH = 120


class Screen:
    """Prints steps, and remembers how long each took and which claims did not hold."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._times: list[tuple[str, float]] = []
        self._step_begun = self._begun
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self.broken: list[str] = []
        """Claims that did not hold."""
        self.checked = 0
        """Claims that were put to the test."""

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step: its title, what it prints, its seconds, also where it fails."""
        self._print(self._paint("1", f"==> {title}"))
        begun = self._step_begun = time.monotonic()
        try:
            yield
        finally:
            self._times.append((title, time.monotonic() - begun))
            self._print(f"{_MARGIN}{time.monotonic() - begun:.1f} s\n")

    def say(self, text: str) -> None:
        """Lines of a step."""
        self._print(textwrap.indent(text.rstrip(), _MARGIN))

    def wrapped(self, text: str) -> None:
        """A sentence from elsewhere, such as a message of the API server."""
        self.say("\n".join(textwrap.wrap(text, _WIDTH, initial_indent="“", subsequent_indent=" ")) + "”")

    def progress(self, text: str) -> None:
        """A line of something that goes on, with the seconds since its step began."""
        self.say(f"[{time.monotonic() - self._step_begun:5.1f}s] {text}")

    def command(self, *words: str) -> None:
        """A command that is run next, as a person would type it."""
        self.say(self._paint("36", "$ " + " ".join(words)))

    def check(self, claim: str, evidence: str, *, holds: bool) -> bool:
        """Say whether a claim holds, and by which figures."""
        self.checked += 1
        mark = self._paint("32", "✓") if holds else self._paint("31", "✗")
        self.say(f"{mark} {claim}: {evidence}")
        if not holds:
            self.broken.append(f"{claim}: {evidence}")
        return holds

    def error(self, text: str) -> None:
        """What went wrong."""
        self._print(self._paint("31", text))

    def table(self) -> None:
        """Seconds a step, and of all."""
        width = max(len(title) for title, _ in self._times)
        for title, seconds in self._times:
            self.say(f"{title:{width}}  {seconds:6.1f} s")
        self.say(f"{'in all':{width}}  {time.monotonic() - self._begun:6.1f} s")

    def plain(self, text: str = "") -> None:
        """A line without margin."""
        self._print(text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text

    @staticmethod
    def _print(text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            # Nobody reads any more: end as if interrupted, and let the end itself print into the void.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise KeyboardInterrupt from None
