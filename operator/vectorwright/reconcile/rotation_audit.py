"""The trail that a rotation leaves: an event and one structured line a step. Ids of keys are told, values never."""

from __future__ import annotations

import logging

from vectorwright.api.v1alpha1.common import API_VERSION
from vectorwright.kube.status import rfc3339

from .rotation_pass import RotationPass

_audit = logging.getLogger("vectorwright.audit")


def tell(rotation: RotationPass, reason: str, message: str, *, warning: bool = False) -> None:
    """Record what was just done: called after it was remembered."""
    state, resource = rotation.state, rotation.resource
    involved = {
        "apiVersion": API_VERSION,
        "kind": rotation.key.kind,
        "metadata": resource.metadata.model_dump(by_alias=True, include={"name", "namespace", "uid"}),
    }
    record = rotation.context.events.warning if warning else rotation.context.events.normal
    record(involved, reason, message)
    fields = {
        "audit": "key-rotation",
        "event": reason,
        "step": state.step.value,
        "revision": state.revision,
        "cause": state.record.reason if state.record else None,
        "store": resource.spec.store_ref.name,
        "provider": rotation.provider,
        "strategy": rotation.strategy.value,
        "secret": f"{rotation.publication.namespace}/{rotation.publication.spec.name}",
        "key_id": state.current.id if state.current else None,
        "pending_key_id": state.pending.id if state.pending else None,
        "previous_key_id": state.previous.id if state.previous else None,
        "at": rfc3339(rotation.now),
    }
    level = logging.WARNING if warning else logging.INFO
    _audit.log(level, message, extra={"fields": {name: value for name, value in fields.items() if value is not None}})
