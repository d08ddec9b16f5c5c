"""What a node is told before anything runs: addresses, configuration, packages, the sources of an image.

- two clusters have no address in common, and none that the machine uses already
- each program's configuration names this cluster's addresses, places and control group, and what the kernel may lack
- where no node can be, one sentence says what to do
- the image depends on what goes into it, and on nothing else
- how the machine reaches packages is found in its own settings
- an image of one program is what container engines read
- a control group goes with all that is below it
"""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
from hashlib import sha256
from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from deploy.devcluster import ClusterError, image, start
from deploy.devcluster.gobuild import GoProgram
from deploy.devcluster.node import cgroups, configuration, programs, requirements
from deploy.devcluster.node.addresses import BLOCKS, Addresses, free_blocks
from deploy.devcluster.node.loading import write_image
from deploy.devcluster.package_sources import apt_settings, pip_settings, release, source_lines

FIRST = Addresses(BLOCKS[0])


def test_no_two_clusters_share_an_address() -> None:
    used = [Addresses(block) for block in BLOCKS]
    parts = [network for one in used for network in (one.wire, one.pods, one.services)]
    assert not any(one.overlaps(other) for one, other in combinations(parts, 2))
    assert len({one.interface for one in used}) == len(used)
    assert all(len(one.interface) < 16 for one in used), "the kernel takes 15 characters"
    assert all(one.machine in one.wire and one.node in one.wire and one.machine != one.node for one in used)
    assert all(one.pods.num_addresses > configuration.MAX_PODS for one in used)


def test_blocks_that_a_route_leads_to_are_left_alone() -> None:
    routes = ["default", "192.0.2.0/24", "10.213.1.0/24", "10.213.8.1", "0.0.0.0/0"]
    free = free_blocks(routes)
    assert [BLOCKS.index(one.block) for one in free[:3]] == [1, 3, 4]
    assert free_blocks(["10.0.0.0/8"]) == []


def test_containerd_is_told_what_the_machine_may_lack() -> None:
    text = configuration.containerd(cni=Path("/c/cni"), snapshotter="native")
    for line in (
        "restrict_oom_score_adj = true",
        "disable_apparmor = true",
        "SystemdCgroup = false",
        "snapshotter = 'native'",
        f"sandbox = '{configuration.PAUSE_IMAGE}'",
        "conf_dir = '/c/cni'",
        "imports = []",
    ):
        assert line in text


def test_pods_get_addresses_of_this_cluster() -> None:
    bridge, ports = json.loads(configuration.cni(FIRST))["plugins"]
    assert (bridge["type"], ports["type"]) == ("bridge", "portmap")
    assert bridge["isGateway"]
    assert bridge["ipMasq"]
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.213.1.0/24"}]]


def test_the_kubelet_lets_in_the_api_server_alone() -> None:
    told = yaml.safe_load(
        configuration.kubelet(
            FIRST, client_ca=Path("/n/ca"), resolver=Path("/n/resolv"), control_group="vectorwright-1"
        )
    )
    assert told["address"] == "10.213.0.2"
    assert told["clusterDNS"] == ["10.213.0.2"]
    assert told["authentication"] == {
        "anonymous": {"enabled": False},
        "webhook": {"enabled": True},
        "x509": {"clientCAFile": "/n/ca"},
    }
    assert told["authorization"] == {"mode": "Webhook"}
    assert told["cgroupRoot"] == "/vectorwright-1"
    assert (told["failCgroupV1"], told["cgroupDriver"], told["enforceNodeAllocatable"]) == (False, "cgroupfs", [])
    assert told["failSwapOn"] is False


def test_kube_proxy_leaves_the_machines_connection_tracking_alone() -> None:
    told = yaml.safe_load(configuration.kube_proxy(FIRST, kubeconfig=Path("/n/k")))
    assert told["mode"] == "iptables"
    assert told["clusterCIDR"] == "10.213.1.0/24"
    assert told["conntrack"]["maxPerCore"] == told["conntrack"]["min"] == 0


def test_dns_answers_for_the_cluster_where_pods_ask_it() -> None:
    text = configuration.corefile(FIRST, kubeconfig=Path("/n/k"))
    assert "bind 10.213.0.2\n" in text
    assert "kubernetes cluster.local 10.213.1.0/24 10.213.2.0/24 {" in text
    items = yaml.safe_load(configuration.dns_rights())["items"]
    assert {verb for rule in items[0]["rules"] for verb in rule["verbs"]} == {"list", "watch"}
    assert items[1]["subjects"][0]["name"] == configuration.DNS_USER


@pytest.mark.parametrize(
    ("system", "user", "lacking"), [("Linux", 1000, "this is user 1000"), ("Darwin", 0, "this is Darwin")]
)
def test_where_no_node_can_be_one_sentence_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, user: int, lacking: str
) -> None:
    for name in ("CONTEXT", "KUBEBUILDER_ASSETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr("deploy.devcluster.kind.usable", lambda: False)
    place = tmp_path / "cluster"
    with pytest.raises(ClusterError) as told:
        start(directory=place, node=True)
    assert lacking in str(told.value)
    assert "root on Linux" in str(told.value)
    assert "kind with Docker" in str(told.value)
    assert "CONTEXT=" in str(told.value)
    assert "\n" not in str(told.value)
    assert not place.exists()


def test_packages_that_are_there_are_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").touch()
    tools = {"sh": "dash", str(tmp_path / "there"): "one", str(tmp_path / "absent"): "two", "no-such-tool": "three"}
    assert requirements.missing_packages(tools) == ["three", "two"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"needs three, two .* no apt-get"):
        requirements.ensure_packages(tools, lambda _: None)
    requirements.ensure_packages({"sh": "dash"}, lambda _: None)


PROGRAMS = [programs.kubernetes_node_program(), programs.coredns_program(), programs.pause_program()]


def name_of(program: GoProgram) -> str:
    return program.name


@pytest.mark.parametrize("program", PROGRAMS, ids=name_of)
def test_a_program_of_ours_is_made_of_what_decides_its_key(program: GoProgram) -> None:
    assert sorted(path.name for path in program.source.iterdir()) == sorted(program.sources)


def test_containerd_and_its_helpers_come_from_one_release() -> None:
    module = "github.com/containerd/containerd/v2"
    found = programs.containerd_programs()
    assert [program.name for program in found] == ["containerd", "containerd-shim-runc-v2", "ctr"]
    for program in found:
        pins = (program.source / "go.mod").read_text()
        assert f"\t{program.package}\n" in pins
        assert program.required(rf"{module} (v2\.[0-9.]+)", "containerd").startswith("v2.")


def test_the_node_is_of_the_control_planes_release() -> None:
    pinned = PROGRAMS[0].required(r"k8s\.io/kubernetes (v[0-9.]+)", "Kubernetes")
    assert f"k8s.io/kubernetes {pinned}" in (programs.SOURCES.parents[1] / "controlplane" / "go.mod").read_text()
    assert f"gitVersion={pinned}" in PROGRAMS[0].link_flags


def checkout(tmp_path: Path) -> Path:
    place = tmp_path / "checkout"
    (place / "operator" / "__pycache__").mkdir(parents=True)
    (place / ".dockerignore").write_text("*\n!operator\n!LICENSE\n**/__pycache__\n")
    for name in ("Dockerfile", "LICENSE", "NOTES.md", "operator/a.py", "operator/__pycache__/a.pyc"):
        (place / name).write_text(name)
    return place


def test_the_image_depends_on_what_goes_into_it(tmp_path: Path) -> None:
    place = checkout(tmp_path)
    names = [str(path.relative_to(place)) for path in image.context_files(place)]
    assert names == [".dockerignore", "Dockerfile", "LICENSE", "operator/a.py"]
    before = image.digest(place)
    (place / "NOTES.md").write_text("other")
    (place / "operator" / "__pycache__" / "a.pyc").write_text("other")
    assert image.digest(place) == before
    (place / "operator" / "a.py").write_text("other")
    assert image.digest(place) != before


def test_this_checkouts_image_has_what_its_dockerfile_copies() -> None:
    names = {path.name for path in image.context_files()}
    assert {"Dockerfile", "pyproject.toml", "uv.lock", "README.md", "LICENSE", "__main__.py"} <= names


def test_sources_of_packages_are_those_of_the_machines_release() -> None:
    targets = [
        "http://mirror.example/debian-security bookworm-security main",
        "http://mirror.example/debian bookworm main",
        "http://mirror.example/debian bookworm contrib",
        "https://other.example/tool nodistro main",
        "https://flat.example/tool ./ ",
    ]
    assert source_lines(targets, "bookworm") == (
        "deb http://mirror.example/debian bookworm main contrib",
        "deb http://mirror.example/debian-security bookworm-security main",
    )
    assert release('NAME="Debian"\nVERSION_CODENAME=bookworm\n') == "bookworm"
    with pytest.raises(ClusterError, match="start Docker"):
        release("NAME=Other\n")


def test_settings_of_downloads_are_passed_on_and_no_others() -> None:
    dump = ['APT::Architecture "amd64";', 'Acquire::http "";', 'Acquire::http::Proxy "http://proxy.example:3128";']
    assert apt_settings(dump) == 'Acquire::http::Proxy "http://proxy.example:3128";\n'
    files = [
        "[global]\nindex-url = https://one.example/simple\ncert = /here\n",
        "[global]\ntimeout = 5\n[list]\na = b\n",
    ]
    environment = {"PIP_TIMEOUT": "180", "PIP_FIND_LINKS": "/opt", "HOME": "/x"}
    assert pip_settings(files, environment) == "[global]\nindex-url = https://one.example/simple\ntimeout = 180\n\n"
    assert pip_settings([], {}) == ""


def test_an_image_of_one_program_is_what_container_engines_read(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"\x7fELF" + bytes(14) + bytes((62, 0)) + b"code")
    write_image(tmp_path / "image.tar", "example.org/pause:1", program)
    with tarfile.open(tmp_path / "image.tar") as archive:

        def read(name: str) -> bytes:
            found = archive.extractfile(name)
            assert found is not None
            return found.read()

        (manifest,) = json.loads(read("manifest.json"))
        config = json.loads(read(manifest["Config"]))
        layer = read(manifest["Layers"][0])
    assert manifest["RepoTags"] == ["example.org/pause:1"]
    assert (config["architecture"], config["config"]["Entrypoint"]) == ("amd64", ["/pause"])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        entry = files.getmember("pause")
        assert (entry.mode, entry.size) == (0o755, program.stat().st_size)


def test_a_control_group_is_in_every_hierarchy_and_goes_with_all_below(tmp_path: Path) -> None:
    for name in ("cpu", "memory", "unrelated"):
        (tmp_path / name).mkdir()
    for name in ("cpu", "memory"):
        (tmp_path / name / "cgroup.procs").touch()
    cgroups.create("ours", tmp_path)
    (tmp_path / "cpu" / "ours" / "kubepods" / "pod1").mkdir(parents=True)
    assert (tmp_path / "memory" / "ours").is_dir()
    assert not (tmp_path / "unrelated" / "ours").exists()
    cgroups.remove_group("ours", tmp_path)
    assert not list(tmp_path.glob("*/ours"))


def test_a_control_group_of_version_2_has_its_controllers(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    cgroups.create("ours", tmp_path)
    assert (tmp_path / "ours").is_dir()
    assert (tmp_path / "cgroup.subtree_control").read_text().startswith("+")
    cgroups.remove_group("ours", tmp_path)
    assert not (tmp_path / "ours").exists()


def test_the_control_group_follows_from_the_directory() -> None:
    names = {cgroups.name_of(Path(path)) for path in ("/a", "/b", "/a")}
    assert len(names) == 2
    assert all(name.startswith("vectorwright-") for name in names)
    assert IPv4Network("10.213.0.0/16").num_addresses == sum(block.num_addresses for block in BLOCKS)
