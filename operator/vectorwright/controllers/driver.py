"""Drives one object through its reconciler: from the cached body to a model, from an outcome to its status.

kopf delivers events; what is to be done follows from the state of the object alone, never from the event. An event
that changes nothing we act on, such as the echo of our own status write, wakes nobody.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vectorwright.api.v1alpha1.common import ANNOTATION_RECONCILE, Resource
from vectorwright.errors import Conflict, NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.kube.resources import ResourceType
from vectorwright.kube.status import ConditionState, condition, merge_conditions, merge_patch
from vectorwright.observability import metrics
from vectorwright.observability.logs import log_context
from vectorwright.reconcile.cache import Body, Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.outcome import Outcome, failed, waiting_conditions

from .workqueue import WorkQueue

log = logging.getLogger(__name__)

Reconcile = Callable[[Context, Any], Awaitable[Outcome]]
Dependents = Callable[[Context, Key], Iterable[Key]]


@dataclass(frozen=True, slots=True)
class Controller:
    """How one kind is driven."""

    resource: ResourceType
    model: type[Resource]
    reconcile: Reconcile
    dependents: Dependents
    """Objects that look at this one's status: woken when it changes."""
    gone: Callable[[Context, Key], Awaitable[None]] | None = None
    """Called once the object no longer exists."""


def _acted_on(body: Body) -> tuple[object, ...]:
    """The parts of an object that a reconciler acts on."""
    metadata = body["metadata"]
    return (
        metadata.get("uid"),
        metadata.get("generation"),
        metadata.get("annotations"),
        metadata.get("finalizers"),
        metadata.get("deletionTimestamp"),
        body.get("status"),
    )


class Driver:
    """Takes events in and works the queue's keys."""

    def __init__(self, context: Context, controllers: Iterable[Controller]) -> None:
        self._context = context
        self._controllers = {controller.resource.kind: controller for controller in controllers}
        self._meanwhile: dict[Key, list[str]] = {}
        """Versions that the watch delivered of the objects that are being worked on."""
        self._told: dict[Key, tuple[str, str]] = {}
        self.queue = WorkQueue(self.work, context.settings.max_concurrent_reconciles)

    def on_event(self, kind: str, event: str | None, body: Mapping[str, Any]) -> None:
        """Take a watch event in. ``event`` is None for objects of the first listing."""
        metadata = body["metadata"]
        key = Key(kind, metadata.get("namespace", ""), metadata["name"])
        if event == "DELETED":
            self._context.cache.drop(key, metadata.get("uid", ""))
            self.queue.add(key)
            return
        before = self._context.cache.get(*key)
        if not self._context.cache.put(kind, body) or (before is not None and _acted_on(before) == _acted_on(body)):
            return
        if key in self._meanwhile:
            # It may be the echo of a write whose answer is still on its way: that is seen at the end of the pass.
            self._meanwhile[key].append(str(metadata.get("resourceVersion")))
        else:
            self.queue.add(key)

    def on_reference_change(self, kind: str, namespace: str, name: str) -> None:
        """A Secret or ConfigMap changed: wake who reads it."""
        for key, used in list(self._context.uses.items()):
            if (kind, namespace, name) in used:
                self.queue.add(key)

    async def work(self, key: Key) -> None:
        """One pass over one object. Never raises."""
        controller = self._controllers[key.kind]
        metrics.QUEUE_DEPTH.labels(key.kind).set(self.queue.depth(key.kind))
        self._meanwhile[key] = []
        with (
            log_context(kind=key.kind, namespace=key.namespace, name=key.name, correlation_id=uuid.uuid4().hex[:12]),
            metrics.RECONCILE_IN_FLIGHT.labels(key.kind).track_inprogress(),
        ):
            started = time.perf_counter()
            try:
                result = await self._pass(controller, key)
            except Exception:  # a defect of ours in one object must not stop the others
                log.exception("this is a defect of the operator")
                self.queue.failed(key)
                result = "error"
            finally:
                seen = self._meanwhile.pop(key)
                if not all(self._context.cache.was_written(key, version) for version in seen):
                    self.queue.add(key)
            metrics.RECONCILE_TOTAL.labels(key.kind, result).inc()
            metrics.RECONCILE_SECONDS.labels(key.kind).observe(time.perf_counter() - started)

    async def _pass(self, controller: Controller, key: Key) -> str:
        body = self._context.cache.get(*key)
        if body is None:
            self.queue.forget(key)
            self._told.pop(key, None)
            if controller.gone is not None:
                await controller.gone(self._context, key)
            self._wake_dependents(controller, key)
            return "success"
        outcome: Outcome
        try:
            await self._announce_start(controller, key, body)
            body = self._context.cache.get(*key) or body
            outcome = await self._reconcile(controller, body)
            await self._write_status(controller, key, body, outcome)
            if outcome.once_written is not None:
                await outcome.once_written()
        except Conflict as conflict:
            # The object changed under us: the cache is behind, and the watch is about to catch up.
            log.debug("changed meanwhile, looking again: %s", conflict.message)
            self.queue.failed(key)
            return "retry"
        except NotFound as error:
            return await self._perhaps_gone(controller, key, body, error)
        except VectorwrightError as error:
            log.warning("%s: %s", error.reason, error.message)
            self.queue.failed(key, getattr(error, "after", None))
            return "retry"
        return self._schedule(key, outcome)

    async def _perhaps_gone(self, controller: Controller, key: Key, body: Body, error: NotFound) -> str:
        """The object went away, as a rule. Its last event may have been missed, so the API server is asked."""
        try:
            await self._context.client.get(controller.resource, key.name, key.namespace)
        except NotFound:
            self._context.cache.drop(key, str(body["metadata"].get("uid", "")))
            self.queue.add(key)
            return "success"
        except VectorwrightError as unknown:
            log.debug("%s: %s", unknown.reason, unknown.message)
        log.warning("%s: %s", error.reason, error.message)
        self.queue.failed(key)
        return "retry"

    def _schedule(self, key: Key, outcome: Outcome) -> str:
        error = outcome.error
        if isinstance(error, Retryable):
            delay = self.queue.failed(key, error.after)
            if outcome.requeue_after is not None and error.after is None:
                delay = min(delay, outcome.requeue_after)
                self.queue.add_after(key, delay)
            self._tell(key, error, f" (again in {delay:.1f} s)")
            return "retry"
        self.queue.succeeded(key)
        if outcome.requeue_after is not None:
            self.queue.add_after(key, outcome.requeue_after)
        if error is not None or not any(state.type == "Stalled" for state in outcome.conditions):
            self._tell(key, error)
        return "success" if error is None else "stalled"

    def _tell(self, key: Key, error: VectorwrightError | None, note: str = "") -> None:
        """Log an error when it is news: the same one again and again is told once, and its end too."""
        told = None if error is None else (error.reason, error.message)
        if told == self._told.get(key):
            return
        if error is None:
            self._told.pop(key)
            log.info("recovered")
            return
        self._told[key] = (error.reason, error.message)
        log.warning("%s: %s%s", error.reason, error.message, note)

    async def _reconcile(self, controller: Controller, body: Body) -> Outcome:
        try:
            resource = controller.model.model_validate(body)
        except ValidationError as error:
            told = "; ".join(
                f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_input=False, include_context=False)
            )
            return failed(Terminal(told, reason="InvalidSpec"), dict(body.get("status") or {}))
        if resource.paused and not resource.deleting:
            return _paused(body)
        try:
            return await controller.reconcile(self._context, resource)
        except VectorwrightError:
            raise
        except Exception:  # a defect of ours in one object must not stop the others
            log.exception("this is a defect of the operator")
            hidden = Retryable("internal error: the operator's log tells more", reason="InternalError")
            return failed(hidden, _status_of(body))

    async def _announce_start(self, controller: Controller, key: Key, body: Body) -> None:
        """A new object says at once that it is being worked on: without conditions, tools take it for finished."""
        if not _status_of(body).get("conditions") and not body["metadata"].get("deletionTimestamp"):
            started = waiting_conditions("Reconciling", "first seen, being worked on", ready="Unknown")
            await self._write_status(controller, key, body, Outcome(_status_of(body), started, handled=False))

    async def _write_status(self, controller: Controller, key: Key, looked_at: Body, outcome: Outcome) -> None:
        """Write what changed, with the resourceVersion: an object that changed meanwhile is not overrun.

        ``looked_at`` is the object that the outcome is of. The spec may have changed since: that one is not observed.
        """
        body = self._context.cache.get(*key)
        if body is None or body["metadata"].get("uid") != looked_at["metadata"].get("uid"):
            return
        if body["metadata"].get("deletionTimestamp") and not body["metadata"].get("finalizers"):
            return
        old = _status_of(body)
        generation = int(looked_at["metadata"].get("generation", 0))
        new = {name: value for name, value in outcome.status.items() if value is not None}
        new["conditions"] = merge_conditions(old.get("conditions") or (), outcome.conditions, generation)
        new["observedGeneration"] = generation
        requested = (looked_at["metadata"].get("annotations") or {}).get(ANNOTATION_RECONCILE)
        if requested is not None and outcome.handled:
            new["lastHandledReconcileAt"] = requested
        patch = merge_patch(old, new)
        if not patch:
            return
        written = await self._context.client.patch(
            controller.resource,
            key.name,
            key.namespace,
            {"metadata": {"resourceVersion": body["metadata"]["resourceVersion"]}, "status": patch},
            subresource="status",
        )
        self._context.cache.put(key.kind, written, written=True)
        self._wake_dependents(controller, key)

    def _wake_dependents(self, controller: Controller, key: Key) -> None:
        for dependent in list(controller.dependents(self._context, key)):
            self.queue.add(dependent)


def _status_of(body: Body) -> dict[str, Any]:
    return dict(body.get("status") or {})


def _paused(body: Body) -> Outcome:
    """Nothing is done; what was known stays, but for what said that work goes on."""
    status = _status_of(body)
    kept = [
        ConditionState(item["type"], item["status"], item["reason"], item["message"])
        for item in (condition(status, "Ready"), condition(status, "Drifted"), condition(status, "ReferencesResolved"))
        if item is not None
    ]
    paused = ConditionState("Synced", "False", "ReconcilePaused", "paused by annotation: nothing is done")
    return Outcome(status, [*kept, paused], handled=False)
