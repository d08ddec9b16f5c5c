"""What each program of a node is told, as files: pure functions from addresses and places to text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from deploy.devcluster.node.addresses import Addresses

PAUSE_IMAGE = "vectorwright.dev/pause:1"
"""Its name must not lead to a registry that exists: it is imported, and pinned."""
NODE_NAME = "node"
CLUSTER_DOMAIN = "cluster.local"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
"""Inside the node, where ``/run`` is its own."""
DNS_USER = "coredns"
MAX_PODS = 60
"""The range of the pods has 253 addresses; one that is given back is used again last."""


def containerd(*, cni: Path, snapshotter: str) -> str:
    """``containerd.toml``. Docker's and kind's machines lack nothing of what is switched off here; some sandboxes do.

    - ``restrict_oom_score_adj``: without CAP_SYS_RESOURCE no process may be made less likely to be killed, and every
      sandbox would die of trying
    - ``disable_apparmor``: its profiles would have to be loaded into this machine's kernel
    """
    runtime = "plugins.'io.containerd.cri.v1.runtime'"
    return f"""\
version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
imports = []
disabled_plugins = ['io.containerd.nri.v1.nri', 'io.containerd.internal.v1.tracing']

[grpc]
  address = '{CONTAINERD_SOCKET}'

[plugins.'io.containerd.cri.v1.images']
  snapshotter = '{snapshotter}'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{PAUSE_IMAGE}'

[{runtime}]
  restrict_oom_score_adj = true
  disable_apparmor = true
  [{runtime}.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [{runtime}.containerd.runtimes.runc.options]
      SystemdCgroup = false
  [{runtime}.cni]
    bin_dirs = ['/usr/lib/cni']
    conf_dir = '{cni}'
"""


def cni(addresses: Addresses) -> str:
    """The network of the pods: a bridge that leads to the node, and ports of the node that lead to pods."""
    network = {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": str(addresses.pods)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    return json.dumps(network, indent=1) + "\n"


def kubelet(addresses: Addresses, *, client_ca: Path, resolver: Path, control_group: str) -> str:
    """``kubelet.yaml``."""
    return _yaml(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": str(addresses.node),
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(client_ca)},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "clusterDNS": [str(addresses.node)],
            "clusterDomain": CLUSTER_DOMAIN,
            "resolvConf": str(resolver),
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": True,
            # Not the machine's root group: by this one all pods of the cluster are found when it ends.
            "cgroupRoot": f"/{control_group}",
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "maxPods": MAX_PODS,
            # What counts as a full disk on a machine for production stops nothing here.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "shutdownGracePeriod": "0s",
            "syncFrequency": "10s",
        }
    )


def kube_proxy(addresses: Addresses, *, kubeconfig: Path) -> str:
    """``kube-proxy.yaml``: rules of iptables, which work also where the kernel has no nftables for IPv6."""
    return _yaml(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "clusterCIDR": str(addresses.pods),
            "hostnameOverride": NODE_NAME,
            "bindAddress": "0.0.0.0",
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            # The limits of connection tracking belong to the whole machine: they are left alone.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
    )


def corefile(addresses: Addresses, *, kubeconfig: Path) -> str:
    """CoreDNS answers for the cluster; whatever else is asked does not exist here."""
    reverse = f"{addresses.pods} {addresses.services}"
    return f"""\
.:53 {{
    bind {addresses.node}
    errors
    ready 127.0.0.1:8181
    kubernetes {CLUSTER_DOMAIN} {reverse} {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""


def dns_rights() -> str:
    """What CoreDNS may read: Kubernetes has no role of its own for it."""
    name = "devcluster:coredns"
    group = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    items: list[dict[str, Any]] = [
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": DNS_USER}],
        },
    ]
    return _yaml({"apiVersion": "v1", "kind": "List", "items": items})


def _yaml(document: dict[str, Any]) -> str:
    return str(yaml.safe_dump(document, sort_keys=False))
