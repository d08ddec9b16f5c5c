"""A real Kubernetes API server for demo, tests and benchmarks, on whatever the machine offers."""

from deploy.devcluster.cluster import Cluster
from deploy.devcluster.errors import ClusterError, KubectlError
from deploy.devcluster.launch import attach, prepare, start

__all__ = ["Cluster", "ClusterError", "KubectlError", "attach", "prepare", "start"]
