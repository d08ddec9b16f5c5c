"""The operator as real pods, installed by deploy/kustomize.

What is checked: two pods run under their own ServiceAccount, restricted, and one leads; its token opens what the roles
give and nothing else; a standby takes over from a leader that is deleted or killed. That the operator is never refused
anything is checked after every test that it serves (see ``served``).
"""

from __future__ import annotations

import json

import pytest
from tests.support.installed import InstalledOperator
from tests.support.real_pods import wait_until
from tests.support.vectorwright import Resources

pytestmark = [pytest.mark.pods, pytest.mark.cluster, pytest.mark.timeout(300)]

_ASK = """
    import json, ssl, urllib.request
    place = "/var/run/secrets/kubernetes.io/serviceaccount/"
    token = open(place + "token").read()
    context = ssl.create_default_context(cafile=place + "ca.crt")
    url = "https://kubernetes.default.svc/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
    for group, resource, verb in QUESTIONS:
        attributes = {"group": group, "resource": resource, "verb": verb, "namespace": "default"}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        body = json.dumps({**review, "spec": {"resourceAttributes": attributes}}).encode()
        answer = urllib.request.urlopen(urllib.request.Request(url, body, headers), context=context)
        print(json.dumps([group, resource, verb, json.load(answer)["status"]["allowed"]]))
"""
OURS = "vectorwright.dev"
ALLOWED = [
    (OURS, "vectorindexes", "watch"),
    (OURS, "vectorindexes", "patch"),
    (OURS, "ingestionjobs/status", "patch"),
    ("batch", "jobs", "create"),
    ("batch", "jobs", "delete"),
    ("", "events", "create"),
    ("", "secrets", "watch"),
]
FORBIDDEN = [
    (OURS, "vectorindexes", "create"),
    (OURS, "vectorindexes", "delete"),
    (OURS, "vectorstores", "update"),
    ("", "pods", "create"),
    ("", "pods", "delete"),
    ("", "pods/exec", "create"),
    ("", "serviceaccounts/token", "create"),
    ("", "nodes", "list"),
    ("", "configmaps", "update"),
    ("batch", "cronjobs", "create"),
    ("apps", "daemonsets", "create"),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "create"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "update"),
]


def test_it_runs_restricted_under_its_own_account_and_one_leads(installed: InstalledOperator) -> None:
    running = installed.running()
    assert len(running) == 2
    for pod in running:
        spec = pod["spec"]
        assert spec["serviceAccountName"] == "vectorwright-operator"
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["status"]["containerStatuses"][0]["ready"] is True
    assert "uid=65532" in installed.pods.kubectl("exec", running[0]["metadata"]["name"], "--", "id")
    leader = installed.leader()
    assert leader is not None
    assert leader["metadata"]["name"] in {pod["metadata"]["name"] for pod in running}


def test_its_token_opens_what_the_roles_give_and_nothing_else(installed: InstalledOperator) -> None:
    pod = installed.running()[0]["metadata"]["name"]
    program = _ASK.replace("QUESTIONS", repr(ALLOWED + FORBIDDEN))
    answers = [json.loads(line) for line in installed.pods.run_in(pod, program).splitlines()]
    assert [(group, resource, verb) for group, resource, verb, allowed in answers if allowed] == ALLOWED
    assert len(answers) == len(ALLOWED) + len(FORBIDDEN)


@pytest.mark.parametrize("how", ["deleted", "killed"])
def test_a_standby_takes_over(served: Resources, installed: InstalledOperator, how: str) -> None:
    before, leader = installed.holder(), installed.wait_led()
    if how == "deleted":
        installed.pods.delete_at_once(leader["metadata"]["name"])
    else:
        installed.pods.kill(leader)
    successor = installed.wait_led(after=before)
    assert installed.holder() != before
    served.create("VectorStore", "after", {"memory": {"local": True}})
    served.wait("VectorStore", "after", lambda body: (body.get("status") or {}).get("conditions"), 60)
    assert successor["metadata"]["name"] in {pod["metadata"]["name"] for pod in installed.running()}
    wait_until(
        lambda: sum(pod["status"]["containerStatuses"][0]["ready"] for pod in installed.running()) == 2,
        "two pods are ready again",
        90,
    )
