"""Whether a resource may use a Secret of another namespace: the Secret itself says so."""

from __future__ import annotations

from vectorwright.errors import NotFound, Terminal
from vectorwright.kube import resources
from vectorwright.kube.client import KubeClient, Object
from vectorwright.kube.workloads import RIGHTS_COMPONENT

from .cache import Key


def consents(secret: Object, key: Key, annotation: str) -> bool:
    """Whether that annotation of a Secret names the resource, or everything in its namespace."""
    named = (secret["metadata"].get("annotations") or {}).get(annotation, "")
    return bool({f"{key.namespace}/{key.name}", f"{key.namespace}/*"} & {part.strip() for part in named.split(",")})


def require_consent(secret: Object | None, namespace: str, name: str, key: Key, annotation: str) -> None:
    """Raise Terminal (``ConsentMissing``) unless a Secret of another namespace is there and names the resource.

    ``annotation`` says in what: to be published into is one thing, to hand over an admin's credentials another.
    What is missing and what is withheld read the same: nobody learns here what another namespace holds.
    """
    if namespace != key.namespace and (secret is None or not consents(secret, key, annotation)):
        raise Terminal(
            f"Secret {namespace}/{name} is in another namespace and does not consent: somebody there has to make it, "
            f"annotated with {annotation}={key.namespace}/{key.name}",
            reason="ConsentMissing",
        )


async def find_secret(client: KubeClient, namespace: str, name: str) -> Object | None:
    """A whole Secret as it is now; None when there is none. Raises Terminal (``SecretForbidden``), Retryable."""
    try:
        return await client.get(resources.SECRETS, name, namespace)
    except NotFound:
        return None
    except Terminal as error:
        raise secret_forbidden(error, namespace, name) from None


def secret_forbidden(error: Terminal, namespace: str, name: str) -> Terminal:
    """A refusal of the API server, told as the right that is wanting; any other error as it is."""
    # An admission webhook answers 403, too: only the authorizer's sentence says what a user "cannot" do.
    if error.reason != "Forbidden" or " cannot " not in error.message:
        return error
    return Terminal(
        f"the operator may not read and write Secret {namespace}/{name}: apply the Role of {RIGHTS_COMPONENT} in "
        f"namespace {namespace} (get, create, patch, update and delete on secrets)",
        reason="SecretForbidden",
    )
