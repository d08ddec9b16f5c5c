"""The commands that the demo runs, shown as a person would type them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from deploy.demo.console import Screen
from deploy.devcluster import Cluster, KubectlError
from deploy.devcluster.processes import ManagedProcess

Body = dict[str, Any]

VECTORWRIGHT = Path(sys.executable).with_name("vectorwright")


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why."""


class Kubectl:
    """kubectl on the demo's cluster and in its namespace, which the kubeconfig names."""

    def __init__(self, cluster: Cluster, screen: Screen) -> None:
        self._cluster = cluster
        self._screen = screen

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Run it and return what it printed. Raises KubectlError."""
        return self._cluster.kubectl_run(*arguments, input=stdin, timeout=timeout)

    def show(self, *arguments: str, shown: str | None = None) -> str:
        """Show the command (``shown`` in its place), run it, show its output."""
        self._screen.command(shown or " ".join(["kubectl", *arguments]))
        output = self(*arguments)
        self._screen.say(output)
        return output

    def apply(self, *bodies: Body) -> None:
        """Apply objects that are made here."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
        self("apply", "-f", "-", stdin=json.dumps(items))

    def get(self, kind: str, name: str) -> Body:
        """One object."""
        body: Body = json.loads(self("get", kind, name, "-o", "json"))
        return body

    def all(self, kinds: str) -> list[Body]:
        """All objects of some kinds (``vix,vij``) in the namespace."""
        items: list[Body] = json.loads(self("get", kinds, "-o", "json"))["items"]
        return items

    def wait(self, objects: str | Iterable[str], until: str, seconds: float) -> None:
        """Wait for objects (``vij/docs``) as ``kubectl wait`` does. Raises DemoError after ``seconds``."""
        names = [objects] if isinstance(objects, str) else list(objects)
        try:
            self("wait", f"--for={until}", *names, f"--timeout={seconds:.0f}s", timeout=seconds + 30)
        except KubectlError as error:
            raise DemoError(f"waited {seconds:.0f} s for {until} of {', '.join(names)}: {error}") from error

    def events(self, kind: str, name: str, reason: str) -> list[str]:
        """Messages of the events of one object with one reason, the newest last."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name},reason={reason}"
        found = json.loads(
            self("get", "events", "--field-selector", selector, "--sort-by=.lastTimestamp", "-o", "json")
        )
        return [str(item["message"]) for item in found["items"]]


def condition(body: Body, kind: str) -> Body:
    """One condition of an object; empty when it has none of that type."""
    for item in body.get("status", {}).get("conditions", []):
        if item["type"] == kind:
            found: Body = item
            return found
    return {}


class JobLines:
    """``kubectl get vij --watch`` in the background: each line on the screen as it comes, without repetition."""

    def __init__(self, cluster: Cluster, screen: Screen, log: Path, *names: str) -> None:
        self._screen = screen
        self._log = log
        self._over = threading.Event()
        log.unlink(missing_ok=True)
        words = ["get", "vij", *names, "--watch"]
        screen.command("kubectl", *words)
        self._process = ManagedProcess.start([cluster.kubectl, *words], log=log, grace=2)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        shown: set[str] = set()
        with self._log.open(errors="replace") as lines:
            while True:
                over = self._over.is_set()
                for line in lines.readlines():
                    # The last column is the age, which changes by itself.
                    told = " ".join(line.split()[:-1])
                    if told and told not in shown:
                        shown.add(told)
                        self._screen.progress(line.rstrip())
                if over:
                    return
                self._over.wait(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A last change may be on its way to the screen.
        self._over.wait(0.3)
        self._process.stop()
        self._over.set()
        self._thread.join(5)


class Search:
    """``vectorwright search`` on the demo's cluster."""

    def __init__(self, kubeconfig: Path, screen: Screen) -> None:
        self._kubeconfig = kubeconfig
        self._screen = screen

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [VECTORWRIGHT, "search", *arguments],
            env={**os.environ, "KUBECONFIG": str(self._kubeconfig)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise DemoError(f"vectorwright search {' '.join(arguments)}: {done.stderr.strip()}")
        if done.stderr:
            self._screen.say(done.stderr)
        return done.stdout

    def show(self, index: str, question: str, top: int) -> str:
        """Show the command and what it answers."""
        self._screen.command("vectorwright", "search", index, f'"{question}"', "--top-k", str(top))
        answer = self._run(index, question, "--top-k", str(top))
        self._screen.say(answer)
        return answer
