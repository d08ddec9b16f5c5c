"""The bearer tokens that a store server lets in, from a file that may change."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from pathlib import Path

from vectorwright.errors import Terminal

_LOOK_AGAIN = 2.0
_MIN_LENGTH = 16
_log = logging.getLogger(__name__)


class Tokens:
    """One token a line: two of them overlap while a key is rotated. The file is read again when it changed."""

    def __init__(self, path: Path) -> None:
        """Raises Terminal (``InvalidTokenFile``) where there is no token in it."""
        self._path = path
        self._looked = time.monotonic()
        self._version = self._stat()
        self._digests = self._read()

    def accepts(self, given: str) -> bool:
        """Whether this is one of the tokens: takes as long whichever it is, and however much of it is right."""
        if time.monotonic() - self._looked > _LOOK_AGAIN:
            self._look()
        digest = _digest(given)
        accepted = False
        for known in self._digests:
            accepted |= hmac.compare_digest(digest, known)
        return accepted

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            version = self._stat()
            if version != self._version:
                self._digests = self._read()
                self._version = version
                _log.info("the token file changed: its %d tokens are let in from now on", len(self._digests))
        except Terminal as error:
            _log.warning("%s; the tokens from before are still let in", error.message)

    def _stat(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise Terminal(
                f"token file {self._path} cannot be read: {os.strerror(error.errno or 0)}", reason="InvalidTokenFile"
            ) from None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def _read(self) -> list[bytes]:
        try:
            lines = self._path.read_text("utf-8").split("\n")
        except (OSError, UnicodeDecodeError):
            raise Terminal(f"token file {self._path} cannot be read as UTF-8 text", reason="InvalidTokenFile") from None
        tokens = [line.strip() for line in lines if line.strip()]
        if not tokens or min(map(len, tokens)) < _MIN_LENGTH:
            raise Terminal(
                f"token file {self._path} must hold one token a line, each of {_MIN_LENGTH} characters or more",
                reason="InvalidTokenFile",
            )
        return [_digest(token) for token in tokens]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
