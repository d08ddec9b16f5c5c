"""Good manners in a cluster that is not ours: one namespace, and resource definitions only where there were none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from deploy.demo.commands import Kubectl
from deploy.devcluster import KubectlError

LABEL = "vectorwright.dev/demo"
"""On what a demo brought along. Several may run in one cluster: the last to leave takes the definitions with it."""

_LET_GO_SECONDS = 60


def namespace(name: str) -> dict[str, Any]:
    """The demo's own namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {LABEL: "true"}}}


def _definitions(kubectl: Kubectl) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(kubectl("get", "crds", "-o", "json"))["items"]
    return [item for item in found if item["spec"]["group"] == "vectorwright.dev"]


def _ours(definition: dict[str, Any]) -> bool:
    return LABEL in definition["metadata"].get("labels", {})


def has_own_definitions(kubectl: Kubectl) -> bool:
    """Whether somebody else installed Vectorwright's resource definitions in the cluster."""
    return any(not _ours(item) for item in _definitions(kubectl))


def settle_definitions(kubectl: Kubectl, *, mark: bool) -> None:
    """Wait until the definitions that were just applied are served; ``mark`` them as the demo's."""
    names = [f"crd/{item['metadata']['name']}" for item in _definitions(kubectl)]
    if mark:
        kubectl("label", "--overwrite", *names, f"{LABEL}=true")
    kubectl.wait(names, "condition=Established", 60)


def leave(kubectl: Kubectl, name: str, progress: Callable[[str], None]) -> None:
    """Delete the namespace and, after the last demo, its definitions. Safe to call again."""
    kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
    if not _gone(kubectl, name, _LET_GO_SECONDS):
        progress("the operator did not let every resource go: removing their finalizers")
        patch = '{"metadata": {"finalizers": null}}'
        for kind in _definitions(kubectl):
            for item in _objects(kubectl, kind, "-n", name):
                kubectl("patch", _plural(kind), item["metadata"]["name"], "-n", name, "--type=merge", "-p", patch)
        if not _gone(kubectl, name, _LET_GO_SECONDS):
            progress(f"the namespace {name} is still there: see 'kubectl get namespace {name} -o yaml'")
            return
    progress(f"the namespace {name} is gone")
    if json.loads(kubectl("get", "namespaces", "-l", LABEL, "-o", "json"))["items"]:
        return
    ours = [item for item in _definitions(kubectl) if _ours(item)]
    if any(_objects(kubectl, item, "--all-namespaces") for item in ours):
        progress("the resource definitions stay: there are resources of them in other namespaces")
    elif ours:
        kubectl("delete", "crds", "-l", LABEL, "--wait=false")
        progress("the resource definitions that the demo brought are gone")


def _plural(definition: dict[str, Any]) -> str:
    return f"{definition['spec']['names']['plural']}.{definition['spec']['group']}"


def _objects(kubectl: Kubectl, definition: dict[str, Any], *where: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(kubectl("get", _plural(definition), *where, "-o", "json"))["items"]
    return found


def _gone(kubectl: Kubectl, name: str, seconds: int) -> bool:
    try:
        kubectl("wait", "--for=delete", f"namespace/{name}", f"--timeout={seconds}s", timeout=seconds + 30)
    except KubectlError:
        return False
    return True
