"""Promises about indexes: what does not fit is refused, drift is mended, and what is let go stays whole."""

from __future__ import annotations

import time

from deploy.demo.commands import Body, condition
from deploy.demo.proofs_of_runs import CRASHED
from deploy.demo.world import World
from deploy.devcluster import KubectlError

FOREIGN = "someone-elses"
"""A collection that exists already, with another dimension."""
_BEHIND = 17
"""The value that hnsw.ef_search gets behind the operator's back."""
_NOTICED_SECONDS = 60.0
_PAUSE = 0.1


def refuse_other_dimension(world: World) -> None:
    """A dimension can neither be changed nor forced on an index that has another one."""
    _refused_by_api_server(world)
    _refused_for_existing(world)


def _refused_by_api_server(world: World) -> None:
    dimension = int(world.kubectl.get("vix", "docs")["status"]["dimension"])
    patch = f'{{"spec": {{"dimension": {dimension * 2}}}}}'
    world.screen.command(f"kubectl patch vix docs --type=merge -p '{patch}'")
    try:
        refusal = ""
        world.kubectl("patch", "vix", "docs", "--type=merge", "-p", patch)
    except KubectlError as error:
        refusal = str(error)
        world.screen.wrapped(refusal)
    world.screen.check(
        "the API server refuses another dimension",
        "spec.dimension is immutable" if refusal else "it was accepted",
        holds="spec.dimension is immutable" in refusal,
    )


def _refused_for_existing(world: World) -> None:
    world.store.create(FOREIGN, [0.6, 0.8, 0.0])
    before = world.collection(FOREIGN)
    world.screen.say(
        f"collection {FOREIGN} is made through Chroma's API, with one vector of {before.dimension} numbers"
    )
    spec = {
        "storeRef": {"name": "docs-store"},
        "embeddingModelRef": {"name": "wordllama"},
        "adoptionPolicy": "IfMatching",
    }
    world.kubectl.apply(_vector_index(FOREIGN, spec))
    reason = "jsonpath={.status.conditions[?(@.type=='Ready')].reason}=DimensionMismatch"
    world.kubectl.wait(f"vix/{FOREIGN}", reason, _NOTICED_SECONDS)
    body = world.kubectl.get("vix", FOREIGN)
    ready, stalled = condition(body, "Ready"), condition(body, "Stalled")
    world.screen.wrapped(str(ready.get("message")))
    after = world.collection(FOREIGN)
    world.screen.check(
        "an index of another dimension is not adopted",
        f"Ready={ready.get('status')}, Stalled={stalled.get('status')}, reason {ready.get('reason')}; "
        f"the collection is {'untouched' if after == before else 'changed'}",
        holds=ready.get("status") == "False" and stalled.get("status") == "True" and after == before,
    )
    world.kubectl("delete", "vix", FOREIGN, "--timeout=60s")


def _vector_index(name: str, spec: Body) -> Body:
    return {"apiVersion": "vectorwright.dev/v1alpha1", "kind": "VectorIndex", "metadata": {"name": name}, "spec": spec}


def mend_drift(world: World) -> None:
    """A setting changed behind the operator's back is named and set again."""
    wanted = int(world.kubectl.get("vix", "docs")["spec"]["tuning"]["chroma"]["hnsw"]["efSearch"])
    collection = world.collection("docs")
    world.store.set_ef_search(collection, _BEHIND)
    changed = world.collection("docs").ef_search
    begun = time.monotonic()
    taken = 0.0
    world.screen.say(f"through Chroma's API, hnsw.ef_search of collection docs: {collection.ef_search} → {changed}")
    told: list[str] = []
    restored = changed
    while taken < _NOTICED_SECONDS and not (told and restored == wanted):
        time.sleep(_PAUSE)
        taken = time.monotonic() - begun
        restored = world.collection("docs").ef_search
        if restored == wanted:
            told = world.kubectl.events("VectorIndex", "docs", "DriftCorrected")
    world.screen.check(
        "drift is named",
        f"event DriftCorrected: “{told[-1] if told else 'none'}”",
        holds=changed == _BEHIND and any("ef_search" in message for message in told),
    )
    world.screen.check(
        "drift is mended",
        f"hnsw.ef_search is {restored} again, {taken:.1f} s after the change; the spec says {wanted}",
        holds=restored == wanted,
    )


def retain_deleted(world: World) -> None:
    """Deleting the resource of an index leaves its vectors in the store."""
    before = world.store.count(world.collection(CRASHED))
    world.kubectl.show("delete", "vij,vix", CRASHED, "--timeout=60s")
    told: list[str] = []
    deadline = time.monotonic() + _NOTICED_SECONDS
    while not told and time.monotonic() < deadline:
        told = world.kubectl.events("VectorIndex", CRASHED, "Retained")
        time.sleep(_PAUSE)
    collection = world.store.collection(CRASHED)
    after = world.store.count(collection) if collection else 0
    released = collection is not None and "vw_mark" not in collection.metadata
    world.screen.check(
        f"index retained, {after} vectors",
        f"event Retained: “{told[-1] if told else 'none'}”; in the store {before} vectors before, {after} after, "
        f"the mark of ownership {'removed' if released else 'still there'}",
        holds=bool(told) and str(before) in told[-1] and after == before > 0 and released,
    )
