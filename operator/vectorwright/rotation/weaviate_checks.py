"""What must hold before keys of Weaviate's users are made. Nothing here changes anything at the server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from vectorwright.errors import Terminal

from .base import KeyMaterial
from .passwords import random_password
from .weaviate_api import Caller, WeaviateUser, WeaviateUserApi, right_missing, role_not_found

OLDEST = (1, 30)
"""The version from which users are made over the API and have one key each (Weaviate's release notes)."""
_FIXED_ROLES = {"root", "read-only"}
"""Roles that nobody can assign (usecases/auth/authorization/types.go of Weaviate 1.35)."""


async def check_server(api: WeaviateUserApi, name: str) -> tuple[Caller, WeaviateUser | None]:
    """The admin, and the user of a name, where there is one.

    Raises Terminal (``AccessDenied``, ``UnsupportedVersion``, ``AuthorizationDisabled``, ``DynamicUsersDisabled``,
    ``AdminRightMissing``), Retryable.
    """
    caller = await api.caller()
    version = await api.version()
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise Terminal(
            f"{api.endpoint} is Weaviate {version[:20]}: {OLDEST[0]}.{OLDEST[1]} or newer is needed to make users",
            reason="UnsupportedVersion",
        )
    if await api.answers_strangers(name):
        raise Terminal(
            f"{api.endpoint} lets everybody in without a key, so that none can be proved dead: start Weaviate with "
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED=false",
            reason="AuthorizationDisabled",
        )
    if await api.owner(KeyMaterial(token=random_password())) is not None:
        raise Terminal(
            f"{api.endpoint} accepts every key, so that none can be proved dead: check what stands before Weaviate",
            reason="AuthorizationDisabled",
        )
    return caller, await api.find(name)


def check_rights(api: WeaviateUserApi, caller: Caller, rights: Sequence[str], names: Sequence[str]) -> None:
    """Raise Terminal (``AdminRightMissing``) for the first right that the admin does not have on all of the names.

    A caller without any permissions who could ask for a user is on a server without RBAC: it may do everything.
    """
    if not caller.permissions:
        return
    for right in rights:
        for name in names:
            if not any(_permits(one, right, name) for one in caller.permissions):
                raise right_missing(api.endpoint, right, name)


def _permits(permission: dict[str, Any], right: str, name: str) -> bool:
    """As Weaviate reads it: an asterisk stands for anything, the rest is a regular expression."""
    if permission.get("action") != right:
        return False
    users = permission.get("users")
    pattern = str((users.get("users") if isinstance(users, dict) else None) or "*")
    try:
        return re.fullmatch(pattern.replace("*", ".*"), name) is not None
    except re.error:  # of another dialect: the server decides
        return True


async def check_roles(api: WeaviateUserApi, caller: Caller, roles: Sequence[str], nobody: str) -> None:
    """Whether users can have the roles. ``nobody`` is a name of ours that no user has.

    Raises Terminal (``RoleNotFound``, ``RolesUnsupported``, ``InvalidSpec``, ``AdminRightMissing``), Retryable.
    """
    if not caller.permissions and caller.permissions is not None:
        if roles:
            raise Terminal(
                f"{api.endpoint} has no roles: start Weaviate with AUTHORIZATION_RBAC_ENABLED=true, or leave out "
                "spec.identity.weaviate.roles",
                reason="RolesUnsupported",
            )
        return
    if not roles:
        raise Terminal(
            "spec.identity.weaviate.roles is missing: users without a role may do nothing", reason="InvalidSpec"
        )
    if fixed := sorted(_FIXED_ROLES & set(roles)):
        raise Terminal(
            f"spec.identity.weaviate.roles names {fixed[0]}, which Weaviate gives by its configuration alone: name "
            "other roles",
            reason="InvalidSpec",
        )
    known = [(role, await api.knows_role(role)) for role in roles]
    if missing := [role for role, there in known if there is False]:
        raise role_not_found(api.endpoint, missing)
    if any(there is None for _, there in known):
        await api.try_to_assign(nobody, roles)
