"""VectorIndex manifests of indexes that exist: what is in the store, as a spec would say it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from vectorwright.api.v1alpha1 import VectorIndex, VectorIndexSpec
from vectorwright.api.v1alpha1.common import API_VERSION
from vectorwright.api.v1alpha1.vectorindex import FieldType, Metric, Tuning
from vectorwright.stores.base import IndexDescription, Setting

MAX_FIELDS = 64
"""Metadata fields that a VectorIndex can declare."""


class UnsayableError(ValueError):
    """The index cannot be described by a VectorIndex. The message says why."""


def object_name(name: str, taken: Collection[str]) -> str:
    """A Kubernetes name like the index's: lower-case letters, digits, dashes and dots, not one of ``taken``."""
    plain = re.sub(r"[^a-z0-9.-]+", "-", name.lower())
    plain = re.sub(r"[.-]*\.[.-]*", ".", plain).strip("-.")[:240].rstrip("-.") or "index"
    found, number = plain, 2
    while found in taken:
        found, number = f"{plain}-{number}", number + 1
    return found


def index_manifest(
    *,
    name: str,
    namespace: str,
    store: str,
    index_name: str,
    description: IndexDescription,
    policies: Mapping[str, str],
    model: str | None = None,
    tuning: str | None = None,
) -> dict[str, Any]:
    """A VectorIndex that says what the store has. ``tuning`` is the provider whose settings are written out, too.

    Raises UnsayableError where the API cannot say it.
    """
    if description.dimension is None:
        raise UnsayableError("the store does not tell its dimension")
    spec: dict[str, Any] = {"storeRef": {"name": store}}
    if index_name != name:
        spec["indexName"] = index_name
    spec["dimension"] = description.dimension
    if description.metric in set(Metric):
        spec["metric"] = str(description.metric)
    if model is not None:
        spec["embeddingModelRef"] = {"name": model}
    declared = [
        {"name": one.name, "type": one.type}
        for one in description.fields or ()
        if one.type in set(FieldType) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", one.name)
    ]
    if declared:
        spec["metadataFields"] = declared[:MAX_FIELDS]
    if tuning is not None and (block := tuning_block(tuning, description.settings)):
        spec["tuning"] = {tuning: block}
    spec |= policies
    try:
        VectorIndexSpec.model_validate(spec)
    except ValidationError as error:
        first = error.errors()[0]
        raise UnsayableError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return {
        "apiVersion": API_VERSION,
        "kind": VectorIndex.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def camel(name: str) -> str:
    """snake_case → camelCase, as the API is written."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def tuning_block(provider: str, settings: Mapping[str, Setting]) -> dict[str, Any]:
    """Dotted settings as the provider's tuning block, without those that the API has no field for."""
    block: dict[str, Any] = {}
    for path, value in sorted(settings.items()):
        *parents, last = map(camel, path.split("."))
        trial: dict[str, Any] = {last: value}
        for parent in reversed(parents):
            trial = {parent: trial}
        try:
            said = Tuning.model_validate({provider: trial}).dump().get(provider)
        except ValidationError:
            continue
        if said == trial:
            place = block
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
    return block
