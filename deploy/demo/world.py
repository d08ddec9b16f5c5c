"""What runs for the demo: a cluster, a Chroma server, a git daemon and the operator, all in one directory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from deploy.demo import shared_cluster
from deploy.demo.chroma_api import ChromaApi, Collection
from deploy.demo.commands import VECTORWRIGHT, Body, DemoError, Kubectl, Search, condition
from deploy.demo.console import Screen
from deploy.demo.repository import BRANCH, check_git, mirror
from deploy.devcluster import Cluster, ClusterError, start
from deploy.devcluster.paths import CHECKOUT
from deploy.devcluster.processes import Identity, ManagedProcess
from deploy.servers.chroma import ChromaServer, start_chroma_server
from deploy.servers.git import GitRepository, start_git_server
from deploy.trial import TrialOperator

NAMESPACE = "vectorwright-demo"
_LONGEST_BASE = 54
"""Bytes that the path above the demo's directory may have: those of sockets in it end 49 bytes later, and on some
systems they may have no more than 103."""


def _directory() -> Path:
    """A new directory among the temporary files."""
    places = [Path(place).resolve() for place in (tempfile.gettempdir(), "/tmp", "/var/tmp")]
    for place in places:
        if len(os.fsencode(place)) <= _LONGEST_BASE and os.access(place, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix="vw-demo-", dir=place))
    raise DemoError(
        f"no directory for temporary files has a short path (tried {', '.join(map(str, places))}): set TMPDIR"
    )


class World:
    """Everything that the demo starts. ``close()`` ends it all, however far it came."""

    cluster: Cluster
    kubectl: Kubectl
    search: Search
    chroma: ChromaServer
    store: ChromaApi
    repository: GitRepository
    operator: TrialOperator

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.id = secrets.token_hex(3)
        self.directory = _directory()
        self.namespace = NAMESPACE
        self.complete = False
        """Whether everything was started."""
        self._started: list[Callable[[], Iterable[ManagedProcess]]] = []
        self._left = False
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)

    @property
    def shared(self) -> bool:
        """Whether the cluster is one of the user's own, in which only our namespace is ours."""
        return self.cluster.source == "context"

    def start(self) -> None:
        """Start the parts, one step each. Raises what starting them raises."""
        for title, part in self._parts():
            with self.screen.step(title):
                part()
        self.complete = True

    def _parts(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("tools", self._tools),
            ("cluster", self._start_cluster),
            ("Chroma server", self._start_chroma),
            ("git server", self._start_git),
            ("operator", self._start_operator),
        ]

    def _tools(self) -> None:
        git = check_git()
        if not VECTORWRIGHT.exists():
            raise DemoError(f"{VECTORWRIGHT} does not exist: run 'make demo', which installs it")
        self.screen.say(
            f"Vectorwright {importlib.metadata.version('vectorwright')}, Python {platform.python_version()}, "
            f"git {git}, {platform.system()} {platform.machine()}"
        )
        self.screen.say(f"everything of this run is in {self.directory}")

    def _start_cluster(self) -> None:
        self.cluster = start(f"demo-{self.id}", self.directory / "cluster", progress=self.screen.progress)
        self._stack.callback(self.cluster.stop)
        self._started.append(lambda: self.cluster.processes)
        self.kubectl = Kubectl(self.cluster, self.screen)
        self.search = Search(self.cluster.kubeconfig, self.screen)
        if self.shared:
            self.namespace = f"{NAMESPACE}-{self.id}"
            self._stack.callback(self._leave)
        self.kubectl.apply(shared_cluster.namespace(self.namespace))
        self.kubectl("config", "set-context", "--current", f"--namespace={self.namespace}")
        version = json.loads(self.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
        self.screen.say(f"Kubernetes {version} ({self.cluster.source}) at {self.cluster.server}")
        self.screen.say(f"everything goes into the namespace {self.namespace}")

    def _start_chroma(self) -> None:
        self.chroma = start_chroma_server(self.directory / "chroma", remove=self.directory)
        self._stack.callback(self.chroma.stop)
        self._started.append(lambda: [self.chroma.process])
        self.store = self._stack.enter_context(ChromaApi(self.chroma.url))
        self.screen.say(f"Chroma {importlib.metadata.version('chromadb')} at {self.chroma.url}")

    def _start_git(self) -> None:
        base = self.directory / "git"
        base.mkdir()
        server = start_git_server(base, remove=self.directory)
        self._stack.callback(server.process.stop)
        self._started.append(lambda: [server.process])
        self.repository = mirror(CHECKOUT, server, self.directory)
        commits = self.repository.git("rev-list", "--count", BRANCH)
        newest = self.repository.git("log", "-1", "--format=%h of %ad: %s", "--date=short", BRANCH)
        self.screen.say(f"{self.repository.url}, the history of this checkout: {commits} commits")
        self.screen.say(f"the newest is {newest}")

    def _start_operator(self) -> None:
        if self.shared and shared_cluster.has_own_definitions(self.kubectl):
            self.screen.say("the cluster has resource definitions of Vectorwright already: they stay as they are")
        else:
            self.kubectl.show("apply", "-f", str(CHECKOUT / "crds"), shown="kubectl apply -f crds")
            shared_cluster.settle_definitions(self.kubectl, mark=self.shared)
        directory, temporary = self.directory / "operator", self.directory / "t"
        directory.mkdir()
        temporary.mkdir(mode=0o700)
        flags = {
            "--namespace": self.namespace,
            "--leader-election-namespace": self.namespace,
            "--installation-id": f"demo-{self.id}",
        }
        self.operator = TrialOperator(
            self.cluster.kubeconfig,
            *(word for flag in flags.items() for word in flag),
            directory=directory,
            # What a killed operator leaves among the temporary files is deleted with the rest.
            environment={"TMPDIR": str(temporary)},
            remove=self.directory,
        )
        self._stack.callback(self._end_operator)
        self._started.append(self.operator.processes)
        self.operator.start()
        self.screen.say(f"it leads, and serves metrics at {self.operator.url}/metrics; its log is {self.operator.log}")

    def _end_operator(self) -> None:
        if self.shared:
            # The operator is still needed there: it lets the resources go.
            self._leave()
        self.operator.stop()

    def _leave(self) -> None:
        if not self._left:
            shared_cluster.leave(self.kubectl, self.namespace, self.screen.progress)
            self._left = True

    def collection(self, name: str) -> Collection:
        """A collection of the Chroma server. Raises DemoError when there is none of that name."""
        found = self.store.collection(name)
        if found is None:
            raise DemoError(f"Chroma has no collection {name}")
        return found

    def processes(self) -> list[ManagedProcess]:
        """Every process that runs for this demo."""
        return [process for find in self._started for process in find()]

    def identities(self) -> list[tuple[Identity, ...]]:
        """Supervisor and program of each of them."""
        return [process.identities for process in self.processes()]

    def explain(self) -> None:
        """What a person needs to see why the demo could not go on: conditions, warnings, the end of the log."""
        if not self.complete:
            return
        with contextlib.suppress(ClusterError, subprocess.SubprocessError):
            for body in self.kubectl.all("vst,vem,vix,vij"):
                self._explain_object(body)
            self.kubectl.show("get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp")
        self.screen.say(f"the end of {self.operator.log}:\n{self.operator.tail()}")

    def _explain_object(self, body: Body) -> None:
        ready = condition(body, "Ready")
        told = f"Ready={ready['status']}, {ready['reason']}: {ready['message']}" if ready else "not reconciled yet"
        self.screen.say(f"{body['kind']} {body['metadata']['name']}: {told}")

    def close(self) -> bool:
        """End everything and delete the directory. Whether nothing is left; that is said, too."""
        running = [identity for pair in self.identities() for identity in pair]
        self._stack.close()
        alive = [identity.pid for identity in running if identity.alive()]
        return self.screen.check(
            "nothing is left",
            f"{len(running) - len(alive)} of {len(running)} processes ended, "
            f"{self.directory} {'is still there' if self.directory.exists() else 'is deleted'}",
            holds=not alive and not self.directory.exists(),
        )

    def let_go(self) -> None:
        """Everything outlives this process."""
        for process in self.processes():
            process.disown()
        self._stack.pop_all()
