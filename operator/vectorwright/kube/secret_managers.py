"""Who else writes a Secret: what another controller manages is not to be changed, it would be undone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .client import Object

MANAGED_BY = "app.kubernetes.io/managed-by"
_MANAGERS: Mapping[str, str] = {
    "reconcile.external-secrets.io/": "External Secrets",
    "external-secrets.io/": "External Secrets",
    "secrets.hashicorp.com/": "Vault Secrets Operator",
    "sealedsecrets.bitnami.com/": "Sealed Secrets",
    "cert-manager.io/": "cert-manager",
    "argocd.argoproj.io/": "Argo CD",
    "kustomize.toolkit.fluxcd.io/": "Flux",
    "helm.toolkit.fluxcd.io/": "Flux",
    "meta.helm.sh/": "Helm",
}
"""Prefixes of labels and annotations by which other controllers tell what is theirs."""


def manager_of(secret: Object, ours: Collection[str] = ()) -> str | None:
    """Who else writes a Secret, as its owner references, labels and annotations tell; None when nobody does.

    ``ours`` are labels and annotations that tell nothing, because we put them there.
    """
    metadata = secret["metadata"]
    for owner in metadata.get("ownerReferences") or ():
        return f"{owner.get('kind')} {owner.get('name')}"
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    for name in sorted({*labels, *annotations} - set(ours)):
        for prefix, manager in _MANAGERS.items():
            if name.startswith(prefix):
                return manager
    other = labels.get(MANAGED_BY)
    return other if other not in (None, "vectorwright") else None
