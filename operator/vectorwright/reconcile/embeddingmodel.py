"""EmbeddingModel: ask the model for one vector, and say what it is."""

from __future__ import annotations

import orjson

from vectorwright.api.v1alpha1.common import seconds
from vectorwright.api.v1alpha1.embeddingmodel import EmbeddingModel
from vectorwright.errors import Terminal, VectorwrightError
from vectorwright.ingest.embedders.registry import EmbedderInfo, probe_embedder

from .cache import Key
from .connections import Reference, read_credentials, read_tls, remember_uses
from .context import Context
from .digests import secret_digest
from .outcome import Outcome, Status, failed, ready_conditions
from .vectorstore import MIN_PROBE_INTERVAL, jittered

RETRY_STALLED = 60.0
"""Seconds after which an endpoint that refused is asked again: it may have changed without a trace in the cluster."""


async def reconcile(context: Context, model: EmbeddingModel) -> Outcome:
    """One pass: the endpoint or the local weights are asked once for each change of the spec or its Secrets."""
    key = Key("EmbeddingModel", *model.key)
    if model.deleting:
        remember_uses(context, key, [])
        context.probed.pop(key, None)
        return Outcome()
    status: Status = {
        name: value for name, value in model.status.dump().items() if name in ("model", "dimension", "fingerprint")
    }
    used: list[Reference] = []
    try:
        info = await _probe(context, key, model, used)
    except VectorwrightError as error:
        outcome = failed(error, status)
        outcome.requeue_after = RETRY_STALLED
        return outcome
    finally:
        remember_uses(context, key, used)
    status = {
        "model": info.model,
        "revision": info.revision,
        "dimension": info.dimension,
        "normalized": info.normalized,
        "fingerprint": info.fingerprint,
    }
    interval = model.spec.probe_interval
    return Outcome(
        {name: value for name, value in status.items() if value is not None},
        ready_conditions(f"{info.model} makes vectors of dimension {info.dimension}", synced=False),
        requeue_after=jittered(max(MIN_PROBE_INTERVAL, seconds(interval))) if interval else None,
    )


async def _probe(context: Context, key: Key, model: EmbeddingModel, used: list[Reference]) -> EmbedderInfo:
    """What the model is; asked anew only when the spec, a Secret or the time to probe changed."""
    spec = model.spec
    try:
        spec.embedder  # noqa: B018 - raises when none or several are set
    except ValueError as error:
        raise Terminal(str(error), reason="InvalidSpec") from None
    credentials = await read_credentials(context, key.namespace, spec.credentials, used)
    tls = await read_tls(context, key.namespace, spec.tls, used)
    asked_with = [model.metadata.uid, spec.dump(), credentials.token, credentials.password, tls.ca]
    digest = secret_digest(orjson.dumps(asked_with))
    known = context.probed.get(key)
    if known is not None and known[0] == digest and not spec.probe_interval:
        return known[1]
    context.probed.pop(key, None)
    info = await probe_embedder(spec, token=credentials.token or credentials.password, ca=tls.ca)
    context.probed[key] = (digest, info)
    return info
