"""Secrets and ConfigMaps that resources refer to: the latest data from memory, one watch an object.

Objects are watched by name (``fieldSelector=metadata.name``) and never listed across a namespace or the cluster, so
that the right to read one Secret is all that is needed for it. Values are never logged.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from typing import Any

from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.observability.logs import register_secret

from .client import KubeClient, Object
from .resources import SECRETS, ResourceType

_log = logging.getLogger(__name__)

FIRST_LIST_S = 15.0
"""How long the first ``get`` of an object waits for the API server."""

Data = dict[str, bytes]
OnChange = Callable[[str, str], None]


class _Watch:
    """One object that is being followed."""

    def __init__(self) -> None:
        self.data: Data | None = None
        self.resource_version = ""
        self.listed = asyncio.Event()
        self.error: VectorwrightError | None = None
        self.task: asyncio.Task[None] | None = None


class WatchedObjects:
    """The Secrets (or the ConfigMaps) that somebody asked for. Use on one event loop; ``close()`` at the end.

    ``on_change(namespace, name)`` is called on the loop when the data of an object that was asked for changed, appeared
    or vanished; it must not block.
    """

    def __init__(self, client: KubeClient, resource: ResourceType, on_change: OnChange) -> None:
        self._client = client
        self._resource = resource
        self._on_change = on_change
        self._watches: dict[tuple[str, str], _Watch] = {}

    def __len__(self) -> int:
        """How many objects are being watched."""
        return len(self._watches)

    async def get(self, namespace: str, name: str) -> Data | None:
        """The object's latest data, or None when there is no such object. Starts its watch the first time.

        The answer is a copy. Raises Terminal (reason ``SecretForbidden``, ``ConfigMapForbidden``) when the operator may
        not read it, and Retryable while the API server cannot be reached for the first time.
        """
        key = (namespace, name)
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = _Watch()
            watch.task = asyncio.get_running_loop().create_task(
                self._follow(key, watch), name=f"watch {self._resource.plural} {namespace}/{name}"
            )
        if not watch.listed.is_set():
            try:
                async with asyncio.timeout(FIRST_LIST_S):
                    await watch.listed.wait()
            except TimeoutError:
                raise self._unavailable(key) from None
        if watch.error is not None:
            # The next call asks again: a missing right may have been granted.
            raise copy.copy(watch.error)
        return None if watch.data is None else dict(watch.data)

    def resource_version(self, namespace: str, name: str) -> str | None:
        """The resourceVersion behind the data that ``get`` returns now; None when absent or not watched."""
        watch = self._watches.get((namespace, name))
        return watch.resource_version or None if watch is not None else None

    def release_unused(self, in_use: AbstractSet[tuple[str, str]]) -> None:
        """Stop the watches of objects that are not in ``in_use``: pairs of namespace and name."""
        for key in [key for key in self._watches if key not in in_use]:
            watch = self._watches.pop(key)
            if watch.task is not None:
                watch.task.cancel()

    async def close(self) -> None:
        """Stop every watch."""
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        self._watches.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, key: tuple[str, str], watch: _Watch) -> None:
        namespace, name = key
        try:
            async with aclosing(self._client.watch(self._resource, namespace, name=name)) as events:
                async for kind, item in events:
                    if kind == "LISTED":
                        found: list[Object] = item["items"]
                        self._take(key, watch, found[0] if found else None)
                    elif (item.get("metadata") or {}).get("name") == name:
                        self._take(key, watch, None if kind == "DELETED" else item)
        except VectorwrightError as error:
            # Only what waiting cannot cure ends a watch. Whoever waits hears why, and the next ``get`` starts anew.
            watch.error = self._explain(error, namespace, name)
            if self._watches.get(key) is watch:
                del self._watches[key]
            if watch.listed.is_set():
                self._on_change(namespace, name)
        finally:
            if not watch.listed.is_set():
                # Released while somebody still waited for the first answer.
                watch.error = watch.error or self._unavailable(key)
                watch.listed.set()

    def _take(self, key: tuple[str, str], watch: _Watch, item: Object | None) -> None:
        data = None if item is None else data_of(item, self._resource)
        watch.resource_version = "" if item is None else str((item.get("metadata") or {}).get("resourceVersion") or "")
        if not watch.listed.is_set():
            watch.data = data
            watch.listed.set()
        elif data != watch.data:
            watch.data = data
            _log.info("%s %s/%s changed", self._resource.kind, *key)
            self._on_change(*key)

    def _unavailable(self, key: tuple[str, str]) -> Retryable:
        kind = self._resource.kind
        return Retryable(f"{kind} {'/'.join(key)} could not be read yet", reason=f"{kind}Unavailable")

    def _explain(self, error: VectorwrightError, namespace: str, name: str) -> VectorwrightError:
        kind = self._resource.kind
        if isinstance(error, Terminal) and error.reason == "Forbidden":
            return Terminal(
                f"the operator may not read {kind} {namespace}/{name}: grant its ServiceAccount get, list and watch on "
                f"{self._resource.plural} in namespace {namespace} (resourceNames may name this one alone)",
                reason=f"{kind}Forbidden",
            )
        return error


def data_of(item: Object, resource: ResourceType) -> Data:
    """The decoded values. What is not base64 cannot come from an API server and is left out."""
    encoded: dict[str, Any] = (item.get("data") if resource == SECRETS else item.get("binaryData")) or {}
    data: Data = {}
    for key, value in encoded.items():
        try:
            data[key] = base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            continue
    if resource == SECRETS:
        for secret in data.values():
            register_secret(secret)
    else:
        data |= {key: str(value).encode() for key, value in (item.get("data") or {}).items()}
    return data
