"""Leader election on a ``coordination.k8s.io`` Lease.

Safe under clock skew: the times written into the Lease are for people. Whether somebody else's lease has run out is
judged by how long *this* process has seen the Lease unchanged on its own clock, and how long our own lease lasts is
counted from the moment *before* the renewal was sent. Every write carries the resourceVersion that it is based on, so
that of two contenders one fails.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Protocol

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal, VectorwrightError

from . import clock
from .resources import LEASES, ResourceType

_log = logging.getLogger(__name__)

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Timings:
    """All in seconds. ``margin`` is kept between the end of our work and the end of our lease."""

    lease: float = 10.0
    renew_deadline: float = 6.0
    retry: float = 2.0
    margin: float = 1.0

    def __post_init__(self) -> None:
        if not self.retry < self.renew_deadline < self.lease - self.margin:
            raise ValueError("a lease must outlast its renew deadline by more than the margin, and that the retries")


class Lost(Enum):
    """How a lease was lost."""

    EXPIRED = "it could not be renewed in time"
    TAKEN = "somebody else holds it"


class LeaseApi(Protocol):
    """What is needed of a client: :class:`~vectorwright.kube.slim.SlimClient` and ``KubeClient`` have it."""

    async def get(self, resource: ResourceType, name: str, namespace: str | None = None) -> Object: ...

    async def create(self, resource: ResourceType, body: Object, namespace: str | None = None) -> Object: ...

    async def replace(self, resource: ResourceType, name: str, namespace: str | None, body: Object) -> Object: ...


class LeaderElector:
    """One contender for one Lease. ``identity`` must be unique to this process."""

    def __init__(
        self,
        api: LeaseApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        timings: Timings | None = None,
        now: Callable[[], float] = clock.now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self.identity = identity
        self.timings = timings or Timings()
        self._now = now
        self._sleep = sleep
        self._lease: Object | None = None
        """The Lease as it was last seen."""
        self._unchanged_since = now()
        self._renewed_at = float("-inf")
        self._leading = False
        self.last_contact = float("-inf")
        """When the API server last answered, on our clock."""
        self.last_error: VectorwrightError | None = None
        """Why the last try failed, where it was not simply that somebody else leads."""

    @property
    def leading(self) -> bool:
        """Whether the lease is ours and not run out."""
        return self._leading and self._now() < self.deadline

    @property
    def deadline(self) -> float:
        """When work must have ended, on :func:`clock.now`, unless the lease is renewed: its end less the margin."""
        return self._renewed_at + self.timings.lease - self.timings.margin

    @property
    def holder(self) -> str:
        """Who held the Lease when it was last seen; empty for nobody."""
        return str(_spec(self._lease).get("holderIdentity") or "")

    async def acquire(self) -> None:
        """Return when the lease is ours. Tries for ever: what stands in the way is logged and kept in last_error."""
        shown = ""
        while not await self._try():
            told = self.last_error.message if self.last_error is not None else f"{self.holder or 'another one'} leads"
            if told != shown:
                level = logging.INFO if self.last_error is None else logging.WARNING
                _log.log(level, "waiting for the lease %s/%s: %s", self._namespace, self._name, told)
                shown = told
            await self._pause()
        self._leading = True
        _log.info("this operator leads (lease %s/%s, identity %s)", self._namespace, self._name, self.identity)

    async def hold(self) -> Lost:
        """Renew until the lease is lost, and say how. EXPIRED: it lasts until ``deadline``; TAKEN: no more."""
        while True:
            await self._pause()
            if await self._try():
                continue
            lost = self._lost()
            if lost is not None:
                self._leading = False
                why = f" ({self.last_error.message})" if self.last_error is not None else ""
                _log.error("the lease %s/%s is lost: %s%s", self._namespace, self._name, lost.value, why)
                return lost

    async def release(self) -> None:
        """Give the lease back, so that the next contender need not wait for its end. Call when all work has ended."""
        self._leading = False
        self._renewed_at = float("-inf")
        if self._lease is None or self.holder != self.identity:
            return
        try:
            try:
                await self._give_back()
            except Conflict:
                # A renewal whose answer never came may have been stored all the same.
                self._see(await self._api.get(LEASES, self._name, self._namespace))
                if self.holder != self.identity:
                    return
                await self._give_back()
        except VectorwrightError as error:
            _log.warning("the lease was not given back and ends by itself: %s", error.message)
        else:
            _log.info("the lease %s/%s is given back", self._namespace, self._name)

    async def _give_back(self) -> None:
        nobody = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _timestamp()}
        await self._replace(_spec(self._lease) | nobody)

    def _lost(self) -> Lost | None:
        if self.last_error is None and self.holder != self.identity:
            return Lost.TAKEN
        if self._now() - self._renewed_at >= self.timings.renew_deadline:
            return Lost.EXPIRED
        return None

    async def _pause(self) -> None:
        """Between two tries. A little jitter keeps contenders from meeting; never past the renew deadline."""
        pause = self.timings.retry * random.uniform(1.0, 1.1)  # noqa: S311 - jitter, not cryptography
        if self._leading:
            pause = min(pause, max(0.05, self._renewed_at + self.timings.renew_deadline - self._now()))
        await self._sleep(pause)

    async def _try(self) -> bool:
        """One try to get or renew the lease. False: not now; ``last_error`` says why, None when another one leads."""
        begun = self._now()
        limit = self.timings.renew_deadline - (begun - self._renewed_at) if self._leading else 2 * self.timings.retry
        try:
            async with asyncio.timeout(max(0.05, limit)):
                won = await self._get_or_renew()
        except TimeoutError:
            self.last_error = Retryable("no answer in time", reason="Timeout")
            return False
        except (Conflict, NotFound):
            # Somebody wrote or deleted it between our read and our write. What it is now, the next try will see.
            self._answered()
            self._lease = None if self._leading else self._lease
            return await self._look_again(begun)
        except Terminal as error:
            self._answered()
            self.last_error = error
            return False
        except Retryable as error:
            self.last_error = error
            return False
        self._answered()
        if won:
            self._renewed_at = begun
        return won

    async def _look_again(self, begun: float) -> bool:
        """After a lost race as leader: is the lease ours still? A rival costs us the lead, a stray edit does not."""
        if not self._leading:
            return False
        try:
            async with asyncio.timeout(max(0.05, self.timings.renew_deadline - (begun - self._renewed_at))):
                won = await self._get_or_renew()
        except (VectorwrightError, TimeoutError) as error:
            self.last_error = error if isinstance(error, VectorwrightError) else Retryable("no answer in time")
            return False
        if won:
            self._renewed_at = begun
        return won

    def _answered(self) -> None:
        self.last_contact = self._now()
        self.last_error = None

    async def _get_or_renew(self) -> bool:
        if self._leading and self._lease is not None and self.holder == self.identity:
            # The usual case needs no read: the version we wrote last is the version it has.
            await self._replace(_spec(self._lease) | {"renewTime": _timestamp()})
            return True
        try:
            found = await self._api.get(LEASES, self._name, self._namespace)
        except NotFound:
            self._see(await self._api.create(LEASES, self._new_lease(), self._namespace))
            return True
        self._see(found)
        spec = _spec(found)
        holder = self.holder
        if holder and holder != self.identity and self._now() < self._unchanged_since + _duration(spec, self.timings):
            return False
        changes: Object = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self.timings.lease),
            "renewTime": _timestamp(),
        }
        if holder != self.identity:
            changes |= {
                "acquireTime": changes["renewTime"],
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1,
            }
        await self._replace(spec | changes)
        return True

    async def _replace(self, spec: Object) -> None:
        assert self._lease is not None  # noqa: S101 - only called after it was seen
        metadata = self._lease.get("metadata") or {}
        body = {
            "metadata": {key: value for key, value in metadata.items() if key != "managedFields"},
            "spec": spec,
        }
        self._see(await self._api.replace(LEASES, self._name, self._namespace, body))

    def _see(self, lease: Object) -> None:
        if self._lease is None or _version(lease) != _version(self._lease):
            self._unchanged_since = self._now()
        self._lease = lease

    def _new_lease(self) -> Object:
        stamp = _timestamp()
        return {
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": math.ceil(self.timings.lease),
                "acquireTime": stamp,
                "renewTime": stamp,
                "leaseTransitions": 0,
            },
        }


def _spec(lease: Object | None) -> Object:
    return dict((lease or {}).get("spec") or {})


def _version(lease: Object) -> object:
    return (lease.get("metadata") or {}).get("resourceVersion")


def _duration(spec: Object, timings: Timings) -> float:
    """How long the holder said its lease lasts; it may run another version with other timings."""
    duration = spec.get("leaseDurationSeconds")
    return float(duration) if isinstance(duration, int | float) and duration > 0 else timings.lease


def _timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
