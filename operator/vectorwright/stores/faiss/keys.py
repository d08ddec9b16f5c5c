"""Keys that indexes are encrypted with at rest: AES-256-GCM, a key of its own for every file, derived from one secret.

A file is encrypted under a key derived (HKDF-SHA256) from the secret and 16 random bytes of its own, so that a counter
is nonce enough: no two files share a key, and no number is used twice in one file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vectorwright.errors import Terminal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
SALT_BYTES = 16
KEY_ID_BYTES = 8
TAG_BYTES = 16
_MAX_FILE = 64 * 1024


class DamagedDataError(ValueError):
    """Bytes that are not what was written under this key."""


class FileCipher:
    """Encrypts and decrypts the pieces of one file. A number is used for one piece only."""

    def __init__(self, secret: bytes, salt: bytes) -> None:
        self._cipher = _aead(_derived(secret, salt, b"vectorwright file"))

    def seal(self, number: int, data: bytes, context: bytes) -> bytes:
        """The piece encrypted, 16 bytes longer. ``context`` is told again to open it."""
        return self._cipher.encrypt(_nonce(number), data, context)

    def open(self, number: int, data: bytes, context: bytes) -> bytes:
        """The piece as it was. Raises DamagedDataError."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - with the library that raises it

        try:
            return self._cipher.decrypt(_nonce(number), data, context)
        except InvalidTag:
            raise DamagedDataError("not what was encrypted with this key") from None


def _aead(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - only who encrypts loads it

    return AESGCM(key)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _derived(secret: bytes, salt: bytes, purpose: bytes, length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA256 (RFC 5869) for up to 32 bytes."""
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, purpose + b"\x01", hashlib.sha256).digest()[:length]


class KeyRing:
    """The key that is written with, and those that are still read with. Its repr shows nothing."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        """``keys``: the first is written with. None: nothing is encrypted."""
        self._keys = {_derived(key, b"vectorwright", b"key id", KEY_ID_BYTES): key for key in keys}
        self.current: bytes | None = next(iter(self._keys), None)
        """The id of the key that is written with."""

    def new_file(self) -> tuple[bytes, FileCipher] | None:
        """Salt and cipher for a file that is to be written; None where nothing is encrypted."""
        if self.current is None:
            return None
        salt = secrets.token_bytes(SALT_BYTES)
        return salt, FileCipher(self._keys[self.current], salt)

    def cipher(self, key_id: bytes, salt: bytes, what: str) -> FileCipher:
        """The cipher of a file. Raises Terminal (``WrongEncryptionKey``) where its key is not here."""
        key = self._keys.get(key_id)
        if key is None:
            have = ", ".join(one.hex() for one in self._keys) or "none"
            raise Terminal(
                f"{what} is encrypted with the key {key_id.hex()}; the keys given are: {have}. Start the store server "
                "with the --encryption-key-file that it was written with; nothing was changed",
                reason="WrongEncryptionKey",
            )
        return FileCipher(key, salt)


def read_keys(path: Path | None) -> KeyRing:
    """The keys of a file: 32 bytes as they are, or one key a line as 64 hexadecimal digits or base64, newest first.

    Raises Terminal (``InvalidEncryptionKey``); the message tells nothing of what is in the file.
    """
    if path is None:
        return KeyRing()
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE)
    except OSError as error:
        raise Terminal(
            f"the encryption key file {path} cannot be read: {error.strerror}", reason="InvalidEncryptionKey"
        ) from None
    if len(content) == KEY_BYTES and not content.isascii():
        # 32 random bytes are never all ASCII (one in four billion); 32 letters are a shorter key in a longer form.
        return KeyRing([content])
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if not lines:
        raise Terminal(f"the encryption key file {path} is empty", reason="InvalidEncryptionKey")
    return KeyRing([_decoded(line, number, path) for number, line in enumerate(lines, 1)])


def _decoded(line: bytes, number: int, path: Path) -> bytes:
    for decode in (binascii.unhexlify, lambda text: base64.b64decode(text, validate=True)):
        try:
            key = decode(line)
        except ValueError:
            continue
        if len(key) == KEY_BYTES:
            return key
    raise Terminal(
        f"line {number} of the encryption key file {path} is no key: it must be 32 bytes, as 64 hexadecimal digits or "
        "as base64 (such as `openssl rand -base64 32` prints)",
        reason="InvalidEncryptionKey",
    )
