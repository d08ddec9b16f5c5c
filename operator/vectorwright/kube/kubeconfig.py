"""Read one context of a list of kubeconfig files. As kubectl does, the first file that names an entry wins."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Any

import yaml

from vectorwright.errors import Terminal

from .connection import PLUGIN_KEY, FileToken, KubeConnection, PluginToken, StaticToken, TokenSource


def _invalid(message: str) -> Terminal:
    return Terminal(message, reason="InvalidKubeconfig")


def read(files: list[Path], wanted: str | None) -> KubeConnection:
    """The connection of context ``wanted``, or of the first current-context. Raises Terminal."""
    documents = [(path, _load(path)) for path in files if path.exists()]
    names = ", ".join(map(str, files))
    if not documents:
        raise _invalid(f"no kubeconfig at {names}")
    chosen = wanted or next((d["current-context"] for _, d in documents if d.get("current-context")), None)
    if not chosen:
        raise _invalid(f"{names} has no current-context; name one with --context")
    context, _ = _entry(documents, "contexts", "context", chosen)
    if context is None:
        known = ", ".join(sorted(e["name"] for _, d in documents for e in d.get("contexts") or [])) or "none"
        raise _invalid(f"no context {chosen!r} in {names} (contexts there: {known})")
    cluster, base = _entry(documents, "clusters", "cluster", context.get("cluster"))
    if cluster is None or not cluster.get("server"):
        raise _invalid(f"context {chosen!r} of {names}: its cluster {context.get('cluster')!r} has no server")
    if cluster.get("proxy-url"):
        raise _invalid(f"context {chosen!r} of {names}: proxy-url is not supported; reach the API server directly")
    user, user_base = _entry(documents, "users", "user", context.get("user"))
    if context.get("user") and user is None:
        raise _invalid(f"context {chosen!r} of {names}: no user {context['user']!r}")
    user = user or {}
    return KubeConnection(
        server=str(cluster["server"]).rstrip("/"),
        namespace=context.get("namespace") or "default",
        ca=_pem(cluster, "certificate-authority", base),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        tls_server_name=cluster.get("tls-server-name"),
        client_certificate=_pem(user, "client-certificate", user_base),
        client_key=_pem(user, "client-key", user_base),
        username=user.get("username"),
        password=user.get("password"),
        token=_token(user, user_base, documents, chosen),
    )


def _token(
    user: dict[str, Any], base: Path, documents: list[tuple[Path, dict[str, Any]]], context: str
) -> TokenSource | None:
    # The order of client-go: tokenFile, which is re-read, wins over a token beside it.
    if user.get("tokenFile"):
        source = FileToken(base / user["tokenFile"])
        source.read()
        return source
    if user.get("token"):
        return StaticToken(str(user["token"]))
    if user.get("exec") or user.get("auth-provider"):
        return _plugin_token(documents, context)
    return None


def _plugin_token(documents: list[tuple[Path, dict[str, Any]]], context: str) -> PluginToken:
    # 40 MiB of memory, wanted only where a login is a plugin.
    from kubernetes.client import Configuration  # noqa: PLC0415
    from kubernetes.config import ConfigException, load_kube_config  # noqa: PLC0415

    configuration = Configuration()
    load: Any = load_kube_config
    joined = os.pathsep.join(str(path) for path, _ in documents)
    try:
        load(config_file=joined, context=context, client_configuration=configuration, persist_config=False)
    except (ConfigException, OSError) as error:
        raise _invalid(f"the login plugin of context {context!r} failed: {type(error).__name__}") from None
    if not configuration.get_api_key_with_prefix(PLUGIN_KEY):
        raise _invalid(f"the login plugin of context {context!r} gave no token (client certificates are not supported)")
    return PluginToken(configuration)


def _load(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise _invalid(f"cannot read the kubeconfig {path}: {error.strerror}") from None
    except yaml.YAMLError:
        # The parser's message quotes the text around the fault, which may be a credential.
        raise _invalid(f"the kubeconfig {path} is not YAML") from None
    if not isinstance(document, dict):
        raise _invalid(f"the kubeconfig {path} is not a mapping")
    return document


def _entry(
    documents: list[tuple[Path, dict[str, Any]]], section: str, key: str, name: object
) -> tuple[dict[str, Any] | None, Path]:
    """The named entry and the directory that its relative paths start from."""
    for path, document in documents:
        for entry in document.get(section) or []:
            if entry.get("name") == name:
                return entry.get(key) or {}, path.parent
    return None, Path()


def _pem(entry: dict[str, Any], key: str, base: Path) -> str | None:
    """The PEM text of ``<key>-data``, or of the file ``<key>``."""
    try:
        if data := entry.get(f"{key}-data"):
            return base64.b64decode(str(data), validate=True).decode("ascii")
        if file := entry.get(key):
            return (base / str(file)).read_text()
    except (binascii.Error, UnicodeDecodeError):
        raise _invalid(f"{key}-data of the kubeconfig is not base64 of a PEM text") from None
    except OSError as error:
        raise _invalid(f"cannot read {key} {base / str(entry[key])}: {error.strerror}") from None
    return None
