"""How to reach a repository: its address checked and pinned, redirects followed here, credentials kept out of sight.

git resolves names and follows redirects by itself, so it is given no chance to: for http and https the redirects are
followed here, each hop checked, and curl is told the address to use; ssh and git get the address itself. Credentials
reach git through a helper that reads the mounted files: they are in no argument, address or environment variable.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import httpx

from vectorwright.api.v1alpha1.ingestion_source import GitSource
from vectorwright.errors import NotFound, Retryable, Terminal
from vectorwright.ingest.network import DEFAULT_PORTS, AddressPolicy, shown_url
from vectorwright.ingest.run_directory import at_one_moment
from vectorwright.observability.logs import register_secret

from .answers import status_error, transport_error
from .mounted import TOKEN_USER, Credentials, ca_path, credentials_directory, read_credentials, tls_settings
from .pinned import MAX_REDIRECTS, origin, pinned_client, redirect_target

SPEC = "spec.source.git"

_REFS = "/info/refs"
_SERVICE = "service=git-upload-pack"
_ADVERTISEMENT = "application/x-git-upload-pack-advertisement"
_PRIVATE_KEY = "-----BEGIN "


@dataclass(frozen=True, slots=True)
class Remote:
    """What git is given to reach the repository."""

    url: str
    config: tuple[tuple[str, str], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def parse_url(url: str) -> SplitResult:
    """The parts of a repository's address. Raises Terminal ``InvalidSpec``; the message never holds a password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise Terminal(f"{SPEC}.url is not an address") from None
    if parts.scheme not in DEFAULT_PORTS or not host or host.startswith("-") or not url.isprintable() or "\\" in url:
        raise Terminal(f"{SPEC}.url is not an address: it begins with https://, http://, ssh:// or git:// and a host")
    if parts.password is not None or (parts.username is not None and parts.scheme != "ssh"):
        raise Terminal(
            f"{SPEC}.url holds credentials for {host}: everyone who can read the job can read them. Put them into a "
            f"Secret and name it in {SPEC}.credentials"
        )
    if (parts.username or "").startswith("-") or parts.query or parts.fragment:
        raise Terminal(f"{SPEC}.url is not the address of a repository: leave out what stands behind ? or #")
    return parts


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class RemoteFinder:
    """Finds the way to one repository. Raises Terminal where the spec or its Secret cannot be used."""

    def __init__(self, source: GitSource, directory: Path, work: Path, policy: AddressPolicy) -> None:
        self._parts = parse_url(source.url)
        self._directory = directory
        self._work = work
        self._policy = policy
        self._tls = tls_settings(directory, source.tls)
        self._reference = source.credentials
        self._credentials = self._read_credentials()
        self._attempts = 0
        self.shown = shown_url(source.url)
        """The repository's address, without user information."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown."""
        return self._credentials.secrets if self._credentials else ()

    def _read_credentials(self) -> Credentials | None:
        """Those of the Secret as it is now. Raises Terminal (``SecretKeyMissing``)."""
        found = at_one_moment(self._directory, lambda place: read_credentials(place, self._reference))
        for secret in (found.token, found.password) if found else ():
            register_secret(secret or "")
        return found

    async def find(self) -> Remote:
        """Resolve and check the address, follow redirects, with what the Secret holds now.

        Raises Terminal ``AddressRefused``, ``HostNotFound``, ``RepositoryNotFound``, ``AccessDenied`` or
        ``TLSVerificationFailed``; Retryable when the server or the network is down.
        """
        self._attempts += 1
        with suppress(Terminal):  # its files are being removed, or lost their keys: what there was may still do
            self._credentials = self._read_credentials()
        if self._parts.scheme in {"http", "https"}:
            return await self._over_http()
        host = self._parts.hostname or ""
        port = self._parts.port or DEFAULT_PORTS[self._parts.scheme]
        addresses = await self._policy.resolve(host, port)
        # These take one address: the next attempt tries the next one.
        address = _bracketed(addresses[(self._attempts - 1) % len(addresses)])
        if self._parts.scheme == "git":
            url = self._parts._replace(netloc=f"{address}:{port}").geturl()
            config = (("protocol.git.allow", "always"),)
            return Remote(url, config, {"GIT_OVERRIDE_VIRTUAL_HOST": f"{_bracketed(host)}:{port}"})
        user = f"{self._parts.username}@" if self._parts.username else ""
        url = self._parts._replace(netloc=f"{user}{address}:{port}").geturl()
        return Remote(url, (("protocol.ssh.allow", "always"),), {"GIT_SSH_COMMAND": self._ssh(host)})

    def _ssh(self, host: str) -> str:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            "ForwardAgent": "no",
            "HostKeyAlias": host,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "PermitLocalCommand": "no",
            "ProxyCommand": "none",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self._work / "known_hosts"),
        }
        command = ["ssh", "-F", os.devnull]
        if self._credentials is not None:
            key = self._credentials.token or self._credentials.password or ""
            if not key.startswith(_PRIVATE_KEY):
                raise Terminal(
                    f"{SPEC}.url is an ssh address, and the Secret of {SPEC}.credentials holds no private key: put one "
                    "in PEM form under its token key, or use an https address"
                )
            path = self._work / "identity"
            path.touch(mode=0o600)
            # ssh wants the line end that people cut off.
            path.write_text(f"{key}\n", encoding="utf-8")
            command += ["-i", str(path)]
        for name, value in options.items():
            command += ["-o", f"{name}={value}"]
        return shlex.join(command)

    async def _over_http(self) -> Remote:
        listed = httpx.URL(self._parts.geturl())
        client = pinned_client(self._policy, self._tls)
        try:
            final = await self._follow(client, listed)
        except httpx.HTTPError as error:
            raise transport_error(error, self.shown, SPEC) from None
        finally:
            await client.aclose()
        host = final.raw_host.decode("ascii")
        port = final.port or DEFAULT_PORTS[final.scheme]
        addresses = await self._policy.resolve(host, port)
        name = self._tls.server_name or host
        config = [
            (f"protocol.{final.scheme}.allow", "always"),
            ("http.sslVerify", "false" if self._tls.insecure_skip_verify else "true"),
        ]
        if name != addresses[0]:
            listed_addresses = ",".join(_bracketed(address) for address in addresses)
            config.append(("http.curloptResolve", f"{name}:{port}:{listed_addresses}"))
        authorities = ca_path(self._directory)
        if authorities is not None:
            nothing = self._work / "no-authorities"
            nothing.mkdir(exist_ok=True)
            config += [("http.sslCAInfo", str(authorities)), ("http.sslCAPath", str(nothing))]
        if self._credentials is not None and origin(final) == origin(listed):
            config.append(("credential.helper", self._helper()))
        path = final.raw_path.decode("ascii")
        return Remote(f"{final.scheme}://{_bracketed(name)}:{port}{path}", tuple(config))

    async def _follow(self, client: httpx.AsyncClient, listed: httpx.URL) -> httpx.URL:
        """Ask for the repository's references as git does, and return the address that answers."""
        base = listed
        for _ in range(MAX_REDIRECTS + 1):
            trusted = self._credentials if origin(base) == origin(listed) else None
            authorization = trusted.basic_header if trusted else None
            asked = httpx.URL(f"{str(base).rstrip('/')}{_REFS}?{_SERVICE}")
            headers = {"Git-Protocol": "version=2"}
            if authorization is not None:
                headers["Authorization"] = authorization
            response = await client.send(client.build_request("GET", asked, headers=headers), stream=True)
            try:
                try:
                    target = redirect_target(response, asked)
                except ValueError:
                    raise self._no_repository_there() from None
                if target is None:
                    self._check(response, credentials=authorization is not None)
                    return base
                base = self._base(target)
            finally:
                await response.aclose()
        raise Terminal(f"{self.shown} redirects more than {MAX_REDIRECTS} times", reason="TooManyRedirects")

    def _no_repository_there(self) -> Terminal:
        return Terminal(
            f"{self.shown} redirects to something that is not a repository, such as a page to log in: check the "
            "address, and whether it needs credentials",
            reason="RepositoryNotFound",
        )

    def _base(self, target: httpx.URL) -> httpx.URL:
        """The repository's address in that of its references."""
        end = f"{_REFS}?{_SERVICE}".encode()
        if not target.raw_path.endswith(end):
            raise self._no_repository_there()
        return target.copy_with(raw_path=target.raw_path.removesuffix(end) or b"/")

    def _check(self, response: httpx.Response, *, credentials: bool) -> None:
        if response.status_code == 401 and not credentials:
            raise Terminal(
                f"{self.shown} asks for credentials: the repository is private, or does not exist. Check the address, "
                f"or name a Secret in {SPEC}.credentials",
                reason="AccessDenied",
            )
        if response.status_code != 200:
            error = status_error(response, self.shown, SPEC, credentials=credentials)
            if error.reason == "DocumentNotFound":
                raise Terminal(
                    f"there is no repository at {self.shown} (HTTP {response.status_code}): check the address, or "
                    f"whether it is private and needs {SPEC}.credentials",
                    reason="RepositoryNotFound",
                )
            raise error
        if response.headers.get("content-type", "").partition(";")[0].strip() != _ADVERTISEMENT:
            raise Terminal(
                f"{self.shown} answers, but not as a git server does: check the address, which often ends in .git",
                reason="RepositoryNotFound",
            )

    def _helper(self) -> str:
        """A credential helper in shell, for git to run: it copies the mounted files to git's pipe."""
        directory = credentials_directory(self._directory)

        def line(name: str, file: str) -> str:
            return f"printf '{name}='; tr -d '\\r\\n' < {shlex.quote(str(directory / file))}; echo"

        credentials = self._credentials or Credentials()
        user = line("username", "username") if credentials.username else f"echo username={TOKEN_USER}"
        secret = line("password", "password" if credentials.password is not None else "token")
        return f'!f() {{ test "$1" = get || exit 0; {user}; {secret}; }}; f'


_CAUSES: tuple[tuple[tuple[str, ...], type[Terminal | Retryable], str, str], ...] = (
    (
        (
            "authentication failed",
            "could not read username",
            "could not read password",
            "permission denied",
            "http 403",
        ),
        Terminal,
        "AccessDenied",
        "refused access: check the Secret of spec.source.git.credentials",
    ),
    (
        ("error: 401", "error: 403", "host key verification failed"),
        Terminal,
        "AccessDenied",
        "refused access: check the Secret of spec.source.git.credentials",
    ),
    (
        ("certificate", "ssl: ", "gnutls_handshake"),
        Terminal,
        "TLSVerificationFailed",
        "has a certificate that is not trusted: see spec.source.git.tls",
    ),
    (
        ("not found", "does not exist", "access denied or repository not exported", "does not appear to be a git"),
        Terminal,
        "RepositoryNotFound",
        "is no repository, or not one that may be read: check the address, or whether it needs credentials",
    ),
    (
        ("unable to update url base from redirection",),
        Retryable,
        "SourceChanged",
        "moved while it was being read",
    ),
    (
        ("no space left", "disk quota"),
        Retryable,
        "DiskFull",
        "does not fit on the worker's disk: give the worker more ephemeral storage",
    ),
)


def failure(stderr: str, shown: str, code: int) -> Terminal | Retryable | NotFound:
    """What a git that could not fetch means. NotFound: the reference or object that was asked for is not there.

    ``stderr`` is only matched: it may quote the server, so none of it is told.
    """
    lowered = "\n".join(line for line in stderr.lower().splitlines() if not line.startswith("remote:"))
    missing = ("couldn't find remote ref", "not our ref", "unadvertised object", "no such remote ref")
    if any(phrase in lowered for phrase in missing):
        return NotFound(f"{shown} does not have what was asked for", reason="RefNotFound")
    for phrases, kind, reason, text in _CAUSES:
        if any(phrase in lowered for phrase in phrases):
            return kind(f"{shown} {text}", reason=reason)
    return Retryable(f"{shown} cannot be reached, or broke off (git ended with status {code})", reason="Unreachable")
