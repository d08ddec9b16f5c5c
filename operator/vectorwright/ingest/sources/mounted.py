"""What the run's directory holds for its source: credentials and certificate authorities."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

from vectorwright.api.v1alpha1.common import Credentials as CredentialsReference
from vectorwright.api.v1alpha1.common import Tls
from vectorwright.errors import Terminal
from vectorwright.stores.registry import TlsSettings

TOKEN_USER = "x-access-token"  # noqa: S105 - a user name
"""User name beside a token over git's basic authentication: GitHub asks for this one, others take any."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials of a source. Fields that the Secret does not hold are None."""

    token: str | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def basic(self) -> tuple[str, str] | None:
        """User name and password for basic authentication, a token standing in for the password."""
        if self.password is not None:
            return self.username or TOKEN_USER, self.password
        if self.token is not None:
            return self.username or TOKEN_USER, self.token
        return None

    @property
    def basic_header(self) -> str | None:
        """The ``Authorization`` header of :attr:`basic`."""
        if self.basic is None:
            return None
        return f"Basic {base64.b64encode(':'.join(self.basic).encode()).decode('ascii')}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        return tuple(value for value in (self.token, self.password, self.username) if value)


def credentials_directory(directory: Path) -> Path:
    """Where the files of the source's credentials are."""
    return directory / "credentials" / "source"


def read_credentials(directory: Path, reference: CredentialsReference | None) -> Credentials | None:
    """The source's credentials, or None where the spec names none.

    Line ends around a value are dropped: secrets made from files carry them. Raises Terminal ``SecretKeyMissing`` when
    the spec names a Secret that brought neither a token nor a password.
    """
    if reference is None:
        return None
    values: dict[str, str] = {}
    for name in ("token", "username", "password"):
        path = credentials_directory(directory) / name
        if path.is_file():
            values[name] = path.read_text(encoding="utf-8", errors="replace").strip("\r\n")
    found = Credentials(**values)
    if not found.token and not found.password:
        raise Terminal(
            f"Secret {reference.name} holds no credentials for the source: it needs the key "
            f"{reference.token_key or 'token'}, or {reference.username_key or 'username'} and "
            f"{reference.password_key or 'password'}",
            reason="SecretKeyMissing",
        )
    return found


def ca_path(directory: Path) -> Path | None:
    """The file with the certificate authorities to trust for the source, if there is one."""
    path = directory / "tls" / "source" / "ca.crt"
    return path if path.is_file() else None


def tls_settings(directory: Path, tls: Tls | None) -> TlsSettings:
    """How the source's servers are verified."""
    path = ca_path(directory)
    return TlsSettings(
        ca=path.read_text(encoding="utf-8", errors="replace") if path else None,
        server_name=tls.server_name if tls else None,
        insecure_skip_verify=bool(tls and tls.insecure_skip_verify),
    )
