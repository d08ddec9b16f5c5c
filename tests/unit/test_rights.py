"""The role of the operator grants what its code calls: no less, and no more.

What is checked: every call of a Kubernetes client in the package, and what kopf does for us, against the rules of
``deploy/kustomize``; a call whose resource this test cannot tell is an error, so that none is overlooked. What key
rotation needs besides is in a Role of its own, opted into namespace by namespace, and in no other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from vectorwright.kube import resources
from vectorwright.kube.resources import ResourceType
from vectorwright.kube.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "operator" / "vectorwright"
BASE = ROOT / "deploy" / "kustomize" / "base"
KEY_ROTATION = ROOT / "deploy" / "kustomize" / "components" / "key-rotation"

Right = tuple[str, str, str]
"""Group, resource (with its subresource), verb."""

OURS = (
    resources.VECTOR_STORES,
    resources.EMBEDDING_MODELS,
    resources.VECTOR_INDEXES,
    resources.INGESTION_JOBS,
    resources.API_KEY_ROTATIONS,
)
VERBS = {
    "get": ("get",),
    "list": ("list",),
    "list_versioned": ("list",),
    "create": ("create",),
    "patch": ("patch",),
    "replace": ("update",),
    "delete": ("delete",),
    "watch": ("list", "watch"),
}
"""Method of a client → verbs that the API server asks for."""

NOT_THE_OPERATOR = set((PACKAGE / "cli").glob("*.py")) - {PACKAGE / "cli" / "operate.py"}
"""Commands run with the rights of whoever calls them; the operator's own call nothing there."""
CLIENTS = {"client", "self._client", "context.client", "self._context.client", "self._api", "api"}
INSIDE_THE_CLIENTS = {PACKAGE / "kube" / name for name in ("client.py", "slim.py", "watching.py")}
OTHER_CLIENTS = {PACKAGE / "stores", PACKAGE / "ingest"}
"""What is called a client there speaks HTTP to stores and sources."""
STORE_APIS = {(PACKAGE / "rotation", "self._api"), (PACKAGE / "rotation", "api")}
"""What is called so there speaks HTTP to stores; a client of Kubernetes has another name there."""


def _kinds_with_finalizers() -> list[ResourceType]:
    return [
        kind for kind in OURS if "add_finalizer(" in (PACKAGE / "reconcile" / f"{kind.kind.lower()}.py").read_text()
    ]


def _meant(expression: ast.expr) -> list[ResourceType]:
    """The resources that the first argument of a call stands for."""
    text = ast.unparse(expression)
    if text in {"controller.resource", "resource"}:
        return list(OURS)
    if text == "RESOURCES[key.kind]":
        return _kinds_with_finalizers()
    if text.startswith("WORKLOADS["):
        return list(WORKLOADS.values())
    if text == "self._resource":
        return [resources.SECRETS, resources.CONFIG_MAPS]
    found = getattr(resources, text.rpartition(".")[2], None)
    assert isinstance(found, ResourceType), f"which resource is {text}? Say so in this test, and grant it"
    return [found]


def _calls() -> Iterator[Right]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path in NOT_THE_OPERATOR | INSIDE_THE_CLIENTS or not OTHER_CLIENTS.isdisjoint(path.parents):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            caller = ast.unparse(node.func.value)
            if node.func.attr not in VERBS or not (caller in CLIENTS or caller.endswith(".client")):
                continue
            if (path.parent, caller) in STORE_APIS:
                continue
            part = {keyword.arg: keyword.value for keyword in node.keywords}.get("subresource")
            suffix = "" if part is None else f"/{ast.literal_eval(part)}"
            for resource in _meant(node.args[0]):
                for verb in VERBS[node.func.attr]:
                    yield resource.group, f"{resource.plural}{suffix}", verb


def _needed() -> set[Right]:
    kopf = {(kind.group, kind.plural, verb) for kind in (*OURS, resources.JOBS) for verb in ("list", "watch")}
    # A Job of ours has blockOwnerDeletion set.
    owners = {(resources.INGESTION_JOBS.group, "ingestionjobs/finalizers", "update")}
    return set(_calls()) | kopf | owners


def _rights(rules: list[dict[str, Any]]) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _granted(*files: Path) -> set[Right]:
    roles = [item for file in files for item in yaml.safe_load_all(file.read_text()) if "rules" in item]
    return {right for role in roles for right in _rights(role["rules"])}


BASE_ROLES = (BASE / "cluster-role.yaml", BASE / "lease-role.yaml")
OPT_IN_ROLE = KEY_ROTATION / "role.yaml"
OPT_IN = {("apps", kind.plural, verb) for kind in WORKLOADS.values() for verb in ("get", "list", "patch")} | {
    ("", "secrets", verb) for verb in ("get", "create", "update", "patch", "delete")
}
"""What only the Role of key rotation grants: restarting workloads, and writing Secrets."""


def test_the_calls_are_found() -> None:
    found = set(_calls())
    assert ("vectorwright.dev", "vectorindexes/status", "patch") in found
    assert ("coordination.k8s.io", "leases", "update") in found
    assert ("", "secrets", "watch") in found


def test_every_call_is_granted() -> None:
    assert sorted(_needed() - _granted(*BASE_ROLES, OPT_IN_ROLE)) == []


def test_nothing_else_is_granted() -> None:
    assert sorted(_granted(*BASE_ROLES) - _needed()) == []


def test_restarts_and_the_writing_of_secrets_are_granted_by_the_role_of_key_rotation_alone() -> None:
    assert _granted(*BASE_ROLES) & OPT_IN == set()
    # Pods: where the operator's own Role covers another namespace only.
    assert _granted(OPT_IN_ROLE) == OPT_IN | {("", "pods", "list")}


def test_every_right_to_restart_is_used() -> None:
    assert sorted(right for right in OPT_IN - _needed() if right[0] == "apps") == []
