"""Where a cluster comes from, in which order, and what is said when there is no way to one.

The programs that this machine may lack (Docker, kind, an old Go) are small scripts on a PATH of the test's own.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from deploy.devcluster import Cluster, ClusterError, build, gobuild, launch, start
from deploy.devcluster.components import Programs
from deploy.devcluster.kubeconfig import extract, read_access
from deploy.devcluster.paths import cluster_directory
from deploy.devcluster.processes import Identity, wait_for

ROOT = Path(__file__).resolve().parents[2]

_KIND = """
case "$1 $2" in
"create cluster")
    [ "$REFUSE" ] && { echo "no space left"; exit 1; }
    cat > "$6" <<EOF
apiVersion: v1
kind: Config
current-context: k
clusters: [{name: k, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: k, user: {token: t}}]
contexts: [{name: k, context: {cluster: k, user: k}}]
EOF
    echo "$4" > "$RECORD/created" ;;
"delete cluster") echo "$4" > "$RECORD/deleted" ;;
"load image-archive") echo "$3 $5" > "$RECORD/loaded" ;;
esac
"""


class Tools:
    """A PATH that holds the system's own programs and those that a test adds."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        directory.mkdir()
        for program in ("sh", "cat", "sleep", "env"):
            self.link(program)
        monkeypatch.setenv("PATH", str(directory))

    def link(self, program: str) -> None:
        for place in ("/usr/bin", "/bin"):
            if (source := Path(place) / program).exists():
                (self.directory / program).symlink_to(source)
                return

    def add(self, name: str, script: str) -> None:
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    for name in ("CONTEXT", "NODE", "KUBEBUILDER_ASSETS", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RECORD", str(tmp_path))
    monkeypatch.setattr(gobuild, "GO_PLACES", ())
    return Tools(tmp_path / "tools", monkeypatch)


# CONTEXT=


def _kubeconfig(path: Path, name: str, **cluster: str) -> None:
    document = {
        "current-context": name,
        "clusters": [{"name": "c", "cluster": {"server": f"https://{name}.example", **cluster}}],
        "users": [{"name": f"u-{name}", "user": {"token": f"token-of-{name}"}}],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": f"u-{name}", "namespace": "team"}}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document))


def test_a_context_is_taken_alone_from_the_first_file_that_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "one", tmp_path / "two"
    _kubeconfig(first, "blue", **{"certificate-authority": "ca.crt"})
    _kubeconfig(second, "green")
    (first.parent / "ca.crt").write_text("CA")
    extract("blue", tmp_path / "out", [first, tmp_path / "absent", second])
    written = (tmp_path / "out").read_text()
    assert "green" not in written
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600
    access = read_access(tmp_path / "out")
    assert (access.server, access.token, access.ca) == ("https://blue.example", "token-of-blue", b"CA")


def test_an_unknown_context_is_told_with_those_that_exist(tmp_path: Path) -> None:
    _kubeconfig(tmp_path / "one", "blue")
    with pytest.raises(ClusterError, match=r"CONTEXT=red: no such context in .*/one \(contexts there: blue\)"):
        extract("red", tmp_path / "out", [tmp_path / "one"])


def test_the_ambient_context_is_never_used(tools: Tools, tmp_path: Path) -> None:
    _kubeconfig(tmp_path / "home" / ".kube" / "config", "production")
    with pytest.raises(ClusterError, match="no Go toolchain"):
        start()


def test_a_context_comes_before_everything(tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.add("docker", "exit 0")
    tools.add("kind", _KIND)
    tools.add("kubectl", 'echo "$KUBECONFIG $*"')
    _kubeconfig(tmp_path / "home" / ".kube" / "config", "blue")
    monkeypatch.setenv("CONTEXT", "blue")
    with start() as cluster:
        assert (cluster.source, cluster.server) == ("context", "https://blue.example")
        assert cluster.kubectl_run("get", "ns") == f"{cluster.directory}/kubeconfig get ns\n"
    assert not cluster.directory.exists()
    assert not (tmp_path / "created").exists()


# kind


def test_kind_is_taken_only_when_an_engine_answers(tools: Tools) -> None:
    tools.add("kind", _KIND)
    tools.add("docker", "exit 1")
    with pytest.raises(ClusterError, match="no Go toolchain"):
        start()


def test_kind_makes_a_cluster_and_deletes_it(tools: Tools, tmp_path: Path) -> None:
    tools.add("kind", _KIND)
    tools.add("docker", "exit 0")
    tools.add("kubectl", "true")
    with start() as cluster:
        assert cluster.source == "kind"
        made = (tmp_path / "created").read_text().strip()
        assert made.startswith("vectorwright-")
        assert cluster.kubeconfig.stat().st_mode & 0o777 == 0o600
        assert not (tmp_path / "deleted").exists()
    assert (tmp_path / "deleted").read_text().strip() == made


def test_nodes_of_kind_are_given_an_image_and_others_are_not(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools.add("kind", _KIND)
    tools.add("docker", '[ "$1" = network ] && echo "fc00::1 172.18.0.1"; exit 0')
    tools.add("kubectl", "true")
    with start(node=True) as cluster:
        cluster.load_image(tmp_path / "image.tar")
        made = (tmp_path / "created").read_text().strip()
        assert (tmp_path / "loaded").read_text().split() == [str(tmp_path / "image.tar"), made]
        assert cluster.machine_address == "172.18.0.1"
    _kubeconfig(tmp_path / "home" / ".kube" / "config", "blue")
    with start(context="blue", node=True) as cluster:
        assert cluster.machine_address is None
        with pytest.raises(ClusterError, match="push it to a registry"):
            cluster.load_image(tmp_path / "image.tar")


def test_kind_is_quoted_when_it_fails(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.add("kind", _KIND)
    tools.add("docker", "exit 0")
    tools.add("kubectl", "true")
    monkeypatch.setenv("REFUSE", "1")
    with pytest.raises(ClusterError, match=r"(?s)kind could not create the cluster vectorwright-.*no space left"):
        start()


def test_kind_deletes_its_cluster_when_the_owner_is_killed(tools: Tools, tmp_path: Path) -> None:
    tools.add("kind", _KIND)
    tools.add("docker", "exit 0")
    tools.add("kubectl", "true")
    script = """
import time
from deploy.devcluster import start
print(start().directory, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        directory = Path(owner.stdout.readline().strip())
        owner.send_signal(signal.SIGKILL)
    wait_for((tmp_path / "deleted").exists, what="kind to delete its cluster", timeout=20)
    wait_for(lambda: not directory.exists(), what="the directory to go", timeout=20)


# envtest


def test_envtest_programs_that_are_missing_are_named(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tools.directory))
    with pytest.raises(ClusterError, match="has no etcd, kube-apiserver, kubectl"):
        start()


@pytest.mark.cluster
def test_envtest_programs_run_without_a_controller_manager(
    devcluster: Cluster, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = next((process.argv[0] for process in devcluster.processes if process.argv[1:2] == ("etcd",)), None)
    if real is None:
        pytest.skip("this session's cluster was not built from Go modules")
    for program in Programs.multicall(Path(real)).__slots__:
        name = {"apiserver": "kube-apiserver", "controller_manager": ""}.get(program, program)
        if name:
            tools.add(name, f'exec {real} {name} "$@"')
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tools.directory))
    said: list[str] = []
    with start(progress=said.append) as cluster:
        assert (cluster.source, cluster.has_controller_manager) == ("envtest", False)
        assert "kube-system" in cluster.kubectl_run("get", "namespaces")
    assert any("no kube-controller-manager" in line for line in said)


# Go modules


def test_without_docker_and_go_one_sentence_says_what_to_install(tools: Tools) -> None:
    with pytest.raises(ClusterError) as told:
        start()
    assert str(told.value).startswith(
        "no cluster to run on: no Go toolchain and no Docker with kind was found. Install Go"
    )
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("go1.19.8", r"is Go 1\.19\.8, and the control plane needs Go 1\.\d+"),
        ("go1.22.1", r"is Go 1\.22\.1, the control plane needs Go 1\.\d+.*could not be fetched"),
    ],
)
def test_a_go_that_is_too_old_is_told(tools: Tools, version: str, expected: str) -> None:
    tools.add("go", f'[ "$PWD" = / ] || exit 1\necho {version}')
    with pytest.raises(ClusterError, match=expected):
        start()


_GO = """
case "$1" in
env) echo go1.99.0 ;;
list) echo "go: downloading a v1" >&2; echo one; echo two ;;
build)
    : wait
    while [ "$WAIT" ] && ! [ -e "$RECORD/go-on" ]; do sleep 0.05; done
    echo x >> "$RECORD/builds"
    [ "$BREAK" ] && { echo "main.go:1: syntax error" >&2; exit 1; }
    while [ "$1" != -o ]; do shift; done
    echo built > "$2" ;;
esac
"""


def test_two_builders_make_one_build(tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.add("go", _GO)
    monkeypatch.setenv("WAIT", "1")
    script = """
import sys
from deploy.devcluster import build
print(build.ensure_built(lambda message: print(message, file=sys.stderr)))
"""
    errors = [tmp_path / f"errors-{number}" for number in range(2)]
    starters = []
    for path in errors:
        with path.open("w") as file:
            command = [sys.executable, "-c", script]
            starters.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=file, text=True))
    wait_for(
        lambda: any("waiting for it" in path.read_text() for path in errors), what="the second builder", timeout=60
    )
    (tmp_path / "go-on").touch()
    answers = [
        (starter.communicate(timeout=60)[0], path.read_text()) for starter, path in zip(starters, errors, strict=True)
    ]
    assert {Path(out.strip()).read_text() for out, _ in answers} == {"built\n"}
    assert (tmp_path / "builds").read_text() == "x\n"
    assert sum("waiting for it" in said for _, said in answers) == 1
    assert sum("built the control plane in" in said for _, said in answers) == 1
    assert [path.name for path in Path(answers[0][0].strip()).parent.iterdir()] == ["controlplane"]


def test_a_build_that_fails_is_told_and_tried_again(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.add("go", _GO)
    monkeypatch.setenv("BREAK", "1")
    with pytest.raises(ClusterError, match=r"(?s)go build' failed in .*syntax error"):
        launch.prepare()
    monkeypatch.delenv("BREAK")
    launch.prepare()
    assert build.binary_path().read_text() == "built\n"


def test_the_cache_follows_the_sources(tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.binary_path()
    assert before.is_relative_to(tmp_path / "cache" / "vectorwright")
    changed = tmp_path / "source"
    changed.mkdir()
    for name in ("go.mod", "go.sum", "main.go"):
        (changed / name).write_bytes((build.SOURCE / name).read_bytes())
    monkeypatch.setattr(build, "SOURCE", changed)
    assert build.binary_path() == before
    with (changed / "main.go").open("a") as source:
        source.write("// changed\n")
    assert build.binary_path() != before


def test_a_name_that_could_leave_the_checkout_is_refused() -> None:
    for name in ("../x", "a/b", "Up", "", "x" * 33):
        with pytest.raises(ClusterError, match="use 1 to 32"):
            cluster_directory(name)


def test_a_killed_builder_leaves_no_compiler(tools: Tools, tmp_path: Path) -> None:
    tools.add("go", _GO.replace(": wait", 'echo $$ > "$RECORD/pid"; sleep 600'))
    script = "from deploy.devcluster import build; build.ensure_built(lambda message: None)"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as builder:
        pid = tmp_path / "pid"
        wait_for(lambda: pid.exists() and pid.read_text().strip(), what="the compiler", timeout=20)
        builder.send_signal(signal.SIGKILL)
    compiler = int(pid.read_text())
    wait_for(lambda: Identity.of(compiler) is None, what="the compiler to end", timeout=10)
