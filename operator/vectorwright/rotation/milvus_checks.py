"""What must hold before users of Milvus are made or changed. Nothing here changes anything at the server."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from vectorwright.errors import Terminal

from .base import KeyMaterial
from .milvus_api import MilvusUserApi
from .passwords import random_password

OLDEST = (2, 4)
"""The oldest version whose refusals say whether a user is unknown or lacks a right."""
NOBODY = "vectorwright_nobody"


async def check_server(api: MilvusUserApi) -> None:
    """Raises Terminal (``AuthorizationDisabled``, ``AccessDenied``, ``UnsupportedVersion``), Retryable."""
    if await api.accepts(KeyMaterial(username=NOBODY, password=random_password())):
        raise Terminal(
            f"{api.endpoint} lets everybody in with any password, so that none can be proved dead: set "
            "common.security.authorizationEnabled in milvus.yaml (Milvus Lite has no users)",
            reason="AuthorizationDisabled",
        )
    version = await api.version()
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise Terminal(
            f"{api.endpoint} is Milvus {version[:20]}: {OLDEST[0]}.{OLDEST[1]} or newer is needed",
            reason="UnsupportedVersion",
        )


def check_roles(api: MilvusUserApi, wanted: Sequence[str], known: Collection[str]) -> None:
    """Raise Terminal (``RoleNotFound``) for roles that do not exist."""
    if missing := [role for role in wanted if role not in known]:
        raise Terminal(
            f"{api.endpoint} has no role {', '.join(missing)}: make it, or correct spec.identity.milvus.roles",
            reason="RoleNotFound",
        )
