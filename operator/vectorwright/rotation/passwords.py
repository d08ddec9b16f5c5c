"""Random values for keys that we make ourselves."""

from __future__ import annotations

import secrets
import string

PASSWORD_LENGTH = 40
"""Characters. 62 letters and digits: 238 bits."""
_LETTERS = string.ascii_letters + string.digits


def random_password(length: int = PASSWORD_LENGTH) -> str:
    """Letters and digits, with at least one lower-case letter, one capital and one digit, and no need for quoting.

    Stores that ask for three of four classes of characters (Milvus) take it. ``length`` is at least 3.
    """
    while True:
        password = "".join(secrets.choice(_LETTERS) for _ in range(length))
        if all(any(test(letter) for letter in password) for test in (str.islower, str.isupper, str.isdigit)):
            return password


def random_token(size: int = 32, prefix: str = "") -> str:
    """``size`` random bytes as base64url, after ``prefix``."""
    return prefix + secrets.token_urlsafe(size)
