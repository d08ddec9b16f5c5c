"""Read and write kubeconfig files."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from deploy.devcluster.errors import ClusterError

_FILE_FIELDS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


@dataclass(frozen=True, slots=True)
class Access:
    """How one context reaches its API server. ``token`` is empty when the context does not use one."""

    server: str
    token: str
    ca: bytes | None


def write(path: Path, *, server: str, token: str, ca: bytes, name: str) -> None:
    """Write a self-contained kubeconfig that its owner alone can read, in one step."""
    document = _document(
        name,
        {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()},
        {"token": token},
    )
    write_private(path, yaml.safe_dump(document, sort_keys=False))


def write_for(source: Path, target: Path, *, token: str) -> None:
    """Write to ``target`` what ``source`` has, for the user that ``token`` stands for."""
    document = _load(source)
    for entry in document["users"]:
        entry["user"] = {"token": token}
    write_private(target, yaml.safe_dump(document, sort_keys=False))


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 that appears complete or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(text)
    partial.replace(path)


def _document(name: str, cluster: dict[str, Any], user: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
        "current-context": name,
    }


def ambient_files() -> list[Path]:
    """The kubeconfig files of the user: KUBECONFIG's list, or ~/.kube/config."""
    listed = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return listed or [Path.home() / ".kube" / "config"]


def extract(context: str, target: Path, files: list[Path] | None = None) -> None:
    """Write a kubeconfig that knows only ``context`` of the user's files.

    Raises ClusterError when no file has that context, with the contexts that there are.
    """
    files = ambient_files() if files is None else files
    found: dict[str, dict[str, dict[str, Any]]] = {"clusters": {}, "users": {}, "contexts": {}}
    for path in files:
        if not path.exists():
            continue
        document = _load(path)
        for section, key in (("clusters", "cluster"), ("users", "user"), ("contexts", "context")):
            for entry in document.get(section) or []:
                # As kubectl does: the first file that names an entry wins.
                found[section].setdefault(entry["name"], _absolute(entry.get(key) or {}, path.parent))
    chosen = found["contexts"].get(context)
    if chosen is None:
        known = ", ".join(sorted(found["contexts"])) or "none"
        raise ClusterError(
            f"CONTEXT={context}: no such context in {', '.join(map(str, files))} (contexts there: {known})"
        )
    cluster, user = found["clusters"].get(chosen.get("cluster", "")), found["users"].get(chosen.get("user", ""), {})
    if cluster is None:
        raise ClusterError(f"CONTEXT={context}: its cluster {chosen.get('cluster')!r} is not in the kubeconfig")
    document = _document(context, cluster, user, chosen.get("namespace") or "default")
    write_private(target, yaml.safe_dump(document, sort_keys=False))


def read_access(path: Path) -> Access:
    """Server, token and CA of the current context of a kubeconfig file."""
    document = _load(path)
    name = document.get("current-context")
    context = _entry(document, "contexts", "context", name, path)
    cluster = _entry(document, "clusters", "cluster", context.get("cluster"), path)
    user = _entry(document, "users", "user", context["user"], path) if context.get("user") else {}
    ca: bytes | None = None
    if data := cluster.get("certificate-authority-data"):
        ca = base64.b64decode(data)
    elif file := cluster.get("certificate-authority"):
        ca = (path.parent / file).read_bytes()
    token = user.get("token") or ""
    if not token and (token_file := user.get("tokenFile")):
        token = (path.parent / token_file).read_text().strip()
    return Access(str(cluster.get("server", "")), token, ca)


def _load(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ClusterError(f"cannot read the kubeconfig {path}: {error}") from error
    return document if isinstance(document, dict) else {}


def _entry(document: dict[str, Any], section: str, key: str, name: object, path: Path) -> dict[str, Any]:
    for entry in document.get(section) or []:
        if entry.get("name") == name:
            value: dict[str, Any] = entry.get(key) or {}
            return value
    raise ClusterError(f"{path}: no {key} named {name!r}")


def _absolute(entry: dict[str, Any], base: Path) -> dict[str, Any]:
    """File names in a kubeconfig are relative to it; make them survive the move."""
    return {key: str(base / value) if key in _FILE_FIELDS and value else value for key, value in entry.items()}
