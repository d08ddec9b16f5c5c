"""Where the API server is and who we are to it: the pod's service account, or a context of a kubeconfig.

Standard library only: the parent process of the operator loads this, and its memory is budgeted. YAML and the official
``kubernetes`` package (for contexts whose login is a plugin) are imported when a kubeconfig asks for them.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from vectorwright.errors import Terminal
from vectorwright.observability.logs import register_secret

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_REREAD_S = 60.0
"""How long a token file is trusted. The kubelet replaces projected tokens at 80 % of their life (≥ 10 min), so an old
token is good for two more minutes at the least."""


class TokenSource(Protocol):
    """Gives the bearer token of the moment."""

    blocking: bool
    """Whether reading may take seconds (a login plugin): then it must not run on an event loop."""

    def read(self, *, fresh: bool = False) -> str:
        """The token; ``fresh`` bypasses what was remembered, after the server refused it. Raises Terminal."""
        ...


class StaticToken:
    """A token that a kubeconfig spells out."""

    blocking = False

    def __init__(self, token: str) -> None:
        register_secret(token)
        self._token = token

    def read(self, *, fresh: bool = False) -> str:
        """The token."""
        return self._token


class FileToken:
    """A token in a file that somebody replaces from time to time (projected service account tokens)."""

    blocking = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._read_at = float("-inf")

    def read(self, *, fresh: bool = False) -> str:
        """The token, re-read once a minute. A file that is unreadable for a moment leaves the last token in use."""
        now = time.monotonic()
        if fresh or now - self._read_at >= _TOKEN_REREAD_S:
            try:
                token = self._path.read_text().strip()
            except OSError as error:
                if not self._token:
                    raise Terminal(
                        f"cannot read the API token {self._path}: {error.strerror}", reason="InvalidKubeconfig"
                    ) from error
                token = self._token
            if token != self._token:
                register_secret(token)
            self._token, self._read_at = token, now
        return self._token


PLUGIN_KEY = "BearerToken"
"""Under what name the official client (37) keeps a token that it got from a plugin."""


class PluginToken:
    """A token that an exec or auth-provider plugin hands out, renewed by the official client before it expires."""

    blocking = True

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration

    def read(self, *, fresh: bool = False) -> str:
        """The token. Runs the plugin when the last one expired: seconds, so never on an event loop."""
        value: str = self._configuration.get_api_key_with_prefix(PLUGIN_KEY) or ""
        token = value.removeprefix("Bearer ")
        register_secret(token)
        return token


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeConnection:
    """How to reach one API server. ``ca``, ``client_certificate`` and ``client_key`` are PEM texts.

    ``namespace`` is the one a command means when it names none: the pod's own, or the context's.
    """

    server: str
    namespace: str = "default"
    in_cluster: bool = False
    ca: str | None = field(default=None, repr=False)
    insecure: bool = False
    tls_server_name: str | None = None
    client_certificate: str | None = field(default=None, repr=False)
    client_key: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: TokenSource | None = field(default=None, repr=False)

    def authorization(self, *, fresh: bool = False) -> str | None:
        """The Authorization header, or None. Blocks when ``token.blocking``. Raises Terminal."""
        if self.token is not None:
            return f"Bearer {self.token.read(fresh=fresh)}"
        if self.username is not None:
            pair = f"{self.username}:{self.password or ''}".encode()
            return "Basic " + base64.b64encode(pair).decode()
        return None

    def ssl_context(self) -> ssl.SSLContext | None:
        """A TLS context that trusts the cluster's authority alone (the system's where none is given).

        None for a plain-HTTP server. Raises Terminal when a certificate or key cannot be read.
        """
        if not self.server.startswith("https:"):
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.client_certificate and self.client_key:
                with ExitStack() as stack:
                    chain = _as_file(stack, self.client_certificate)
                    key = _as_file(stack, self.client_key)
                    context.load_cert_chain(chain, key)
        except (ssl.SSLError, ValueError) as error:
            raise Terminal(
                f"the certificates for {self.server} cannot be used: {error}", reason="InvalidKubeconfig"
            ) from None
        return context

    def to_kopf_connection_info(self) -> dict[str, Any]:
        """The keyword arguments of ``kopf.ConnectionInfo``, with the token of this moment.

        A ``kopf.AiohttpSession`` around :func:`vectorwright.kube.session.open_session` serves better where it can be
        used: it follows rotated tokens by itself, honours ``tls_server_name``, and writes no key to a file.
        """
        fields: dict[str, Any] = {
            "server": self.server,
            "ca_data": self.ca,
            "insecure": self.insecure or None,
            "username": self.username,
            "password": self.password,
            "token": self.token.read() if self.token is not None else None,
            "certificate_data": self.client_certificate,
            "private_key_data": self.client_key,
            "default_namespace": self.namespace,
        }
        return {key: value for key, value in fields.items() if value is not None}


def _as_file(stack: ExitStack, pem: str) -> str:
    """A path with ``pem`` behind it: in memory on Linux, so that keys reach no disk and none need be writable."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
        stack.callback(os.close, descriptor)
        os.write(descriptor, pem.encode())
        return f"/proc/self/fd/{descriptor}"
    handle = tempfile.NamedTemporaryFile(mode="w", suffix=".pem")  # noqa: SIM115 - the caller's stack closes it
    stack.enter_context(handle)
    handle.write(pem)
    handle.flush()
    return handle.name


def load_connection(
    kubeconfig: Path | None = None,
    context: str | None = None,
    *,
    service_account_dir: Path = SERVICE_ACCOUNT_DIR,
) -> KubeConnection:
    """Find the API server.

    - ``kubeconfig``: that file, and its ``context`` or, without one, its current-context.
    - ``context`` alone: that context of the user's kubeconfig files (``KUBECONFIG``, or ``~/.kube/config``).
    - neither: the service account of the pod this runs in. The current-context of the user's own kubeconfig is never
      taken unasked: an operator that starts against the wrong cluster is worse than one that does not start.

    Raises Terminal (reason ``InvalidKubeconfig`` or ``NoCluster``) with one sentence on what is missing.
    """
    if kubeconfig is not None:
        return _from_kubeconfig([kubeconfig], context)
    if context is not None:
        listed = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
        return _from_kubeconfig(listed or [Path.home() / ".kube" / "config"], context)
    return _in_cluster(service_account_dir)


def _in_cluster(directory: Path) -> KubeConnection:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token = directory / "token"
    if not host or not token.exists():
        raise Terminal(
            "this is not a pod with a service account: name the cluster by --context NAME or --kubeconfig FILE",
            reason="NoCluster",
        )
    try:
        ca = (directory / "ca.crt").read_text()
        namespace = (directory / "namespace").read_text().strip()
    except OSError as error:
        raise Terminal(f"the pod's service account is incomplete: {error}", reason="NoCluster") from None
    source = FileToken(token)
    source.read()
    authority = f"[{host}]" if ":" in host else host
    return KubeConnection(
        server=f"https://{authority}:{port}", namespace=namespace or "default", in_cluster=True, ca=ca, token=source
    )


def _from_kubeconfig(files: list[Path], wanted: str | None) -> KubeConnection:
    # As a function of its own module, so that a pod does not load YAML for it.
    from . import kubeconfig  # noqa: PLC0415

    return kubeconfig.read(files, wanted)
