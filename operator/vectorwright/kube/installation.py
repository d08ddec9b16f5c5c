"""The identity of an installation, as it stands in ownership marks."""

from __future__ import annotations

from vectorwright.errors import Retryable, Terminal, VectorwrightError

from . import resources
from .client import KubeClient


async def installation_id(client: KubeClient, given: str | None) -> str:
    """What was given, or the UID of the cluster's kube-system namespace.

    Raises Terminal (``NoInstallationId``) where that may not be read, Retryable.
    """
    if given:
        return given
    try:
        body = await client.get(resources.NAMESPACES, "kube-system")
    except VectorwrightError as error:
        if isinstance(error, Retryable):
            raise
        raise Terminal(
            "the installation's id cannot be taken from the namespace kube-system "
            f"({error.message}): set --installation-id",
            reason="NoInstallationId",
        ) from None
    return str(body["metadata"]["uid"])
