"""The resources of the API server that Vectorwright reads or writes, and their paths."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One resource of the API server. ``group`` is empty for the core API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What stands in an object's ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object or its subresource.

        ``namespace`` is ignored for cluster-scoped resources; without it a namespaced collection is that of all
        namespaces. Raises ``ValueError`` when an object of a namespaced resource is named without its namespace.
        """
        parts = ["/api" if not self.group else f"/apis/{quote(self.group, safe='')}", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        elif self.namespaced and name:
            raise ValueError(f"{self.kind} {name!r} lives in a namespace, and none was given")
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(quote(subresource, safe=""))
        return "/".join(parts)


def _ours(plural: str, kind: str) -> ResourceType:
    return ResourceType("vectorwright.dev", "v1alpha1", plural, kind)


VECTOR_STORES = _ours("vectorstores", "VectorStore")
EMBEDDING_MODELS = _ours("embeddingmodels", "EmbeddingModel")
VECTOR_INDEXES = _ours("vectorindexes", "VectorIndex")
INGESTION_JOBS = _ours("ingestionjobs", "IngestionJob")
API_KEY_ROTATIONS = _ours("apikeyrotations", "APIKeyRotation")

SECRETS = ResourceType("", "v1", "secrets", "Secret")
CONFIG_MAPS = ResourceType("", "v1", "configmaps", "ConfigMap")
EVENTS = ResourceType("", "v1", "events", "Event")
PODS = ResourceType("", "v1", "pods", "Pod")
NAMESPACES = ResourceType("", "v1", "namespaces", "Namespace", namespaced=False)
DEPLOYMENTS = ResourceType("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS = ResourceType("apps", "v1", "statefulsets", "StatefulSet")
DAEMON_SETS = ResourceType("apps", "v1", "daemonsets", "DaemonSet")
JOBS = ResourceType("batch", "v1", "jobs", "Job")
LEASES = ResourceType("coordination.k8s.io", "v1", "leases", "Lease")
