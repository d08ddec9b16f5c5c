"""Tuning settings of a collection: their dotted names, and where Weaviate's schema has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vectorwright.errors import Terminal

from ..base import ChangeClass, IndexDefinition, Setting

DISTANCES: Mapping[str, str] = {"cosine": "cosine", "dotproduct": "dot", "euclidean": "l2-squared"}
"""Metric → Weaviate's distance."""

HNSW: Mapping[str, str] = {
    "hnsw.ef": "ef",
    "hnsw.ef_construction": "efConstruction",
    "hnsw.max_connections": "maxConnections",
    "hnsw.dynamic_ef_min": "dynamicEfMin",
    "hnsw.dynamic_ef_max": "dynamicEfMax",
    "hnsw.dynamic_ef_factor": "dynamicEfFactor",
    "hnsw.flat_search_cutoff": "flatSearchCutoff",
    "hnsw.filter_strategy": "filterStrategy",
}
QUANTIZER: Mapping[str, str] = {
    "quantizer.rescore_limit": "rescoreLimit",
    "quantizer.training_limit": "trainingLimit",
    "quantizer.segments": "segments",
    "quantizer.bits": "bits",
}
QUANTIZERS = ("pq", "bq", "sq", "rq")
NONE = "none"
QUANTIZER_TYPE, INDEX_TYPE, THRESHOLD = "quantizer.type", "index_type", "dynamic.threshold"

KNOWN = (
    INDEX_TYPE,
    *HNSW,
    THRESHOLD,
    QUANTIZER_TYPE,
    *QUANTIZER,
    "multi_tenancy",
    "replication_factor",
    "shards",
)
MUTABLE: Mapping[str, ChangeClass] = {
    **{name: ChangeClass.SAFE for name in HNSW if name not in {"hnsw.ef_construction", "hnsw.max_connections"}},
    "quantizer.rescore_limit": ChangeClass.SAFE,
    # What is there is compressed while the collection serves.
    QUANTIZER_TYPE: ChangeClass.COSTLY,
}


def _contradiction(what: str) -> Terminal:
    return Terminal(f"spec.tuning.weaviate: {what}", reason="InvalidSetting")


def creation_settings(definition: IndexDefinition) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(vector index type, its configuration, the rest of the collection's body); nothing that was left out is sent.

    Raises Terminal (``InvalidSetting``) where settings contradict each other.
    """
    settings = definition.settings
    index_type = str(settings.get(INDEX_TYPE, "hnsw"))
    if index_type not in {"hnsw", "flat", "dynamic"}:
        raise _contradiction(f"indexType {index_type[:50]!r} is none of hnsw, flat, dynamic")
    config: dict[str, Any] = {"distance": DISTANCES[definition.metric]}
    if THRESHOLD in settings:
        if index_type != "dynamic":
            raise _contradiction(f"dynamic.threshold is set, and indexType is {index_type}")
        config["threshold"] = settings[THRESHOLD]
    apply(config, index_type, {name: value for name, value in settings.items() if name in HNSW or "quant" in name})
    rest: dict[str, Any] = {}
    if settings.get("multi_tenancy"):
        if "shards" in settings:
            raise _contradiction("shards is set, and multiTenancy: every tenant is one shard")
        rest["multiTenancyConfig"] = {"enabled": True, "autoTenantCreation": True, "autoTenantActivation": True}
    if "replication_factor" in settings:
        rest["replicationConfig"] = {"factor": settings["replication_factor"]}
    if "shards" in settings:
        rest["shardingConfig"] = {"desiredCount": settings["shards"]}
    return index_type, config, rest


def _graph(config: dict[str, Any], index_type: str) -> dict[str, Any]:
    """Where the settings of HNSW are."""
    if index_type != "dynamic":
        return config
    found: dict[str, Any] = config.setdefault("hnsw", {"distance": config.get("distance", "cosine")})
    return found


def apply(config: dict[str, Any], index_type: str, settings: Mapping[str, Setting]) -> None:
    """Write settings of HNSW and of the quantizer into a vector index's configuration.

    Raises Terminal (``InvalidSetting``) where the index has no such thing.
    """
    graph = _graph(config, index_type)
    for name in HNSW.keys() & settings.keys():
        if index_type == "flat":
            raise _contradiction(f"{name} is set, and indexType is flat, which has no graph")
        graph[HNSW[name]] = settings[name]
    current = quantizer_of(graph)
    wanted = str(settings.get(QUANTIZER_TYPE, current))
    if wanted not in (*QUANTIZERS, NONE):
        raise _contradiction(f"quantizer.type {wanted[:50]!r} is none of {', '.join(QUANTIZERS)}, {NONE}")
    if QUANTIZER_TYPE in settings:
        for kind in QUANTIZERS:
            if kind == wanted or kind in graph:
                graph[kind] = {**graph.get(kind, {}), "enabled": kind == wanted}
        if wanted == NONE:
            graph["skipDefaultQuantization"] = True
    for name in QUANTIZER.keys() & settings.keys():
        if wanted == NONE:
            raise _contradiction(f"{name} is set, and there is no quantizer: set quantizer.type")
        graph.setdefault(wanted, {})[QUANTIZER[name]] = settings[name]


def quantizer_of(graph: Mapping[str, Any]) -> str:
    """Which quantizer is on."""
    return next((kind for kind in QUANTIZERS if (graph.get(kind) or {}).get("enabled")), NONE)


def read_settings(
    body: Mapping[str, Any], config: Mapping[str, Any], index_type: str, *, named: bool
) -> dict[str, Setting]:
    """The settings of a collection. ``named``: whether it has one vector, whose configuration is ``config``."""
    found: dict[str, Setting] = {"multi_tenancy": bool((body.get("multiTenancyConfig") or {}).get("enabled"))}
    factor = (body.get("replicationConfig") or {}).get("factor")
    if isinstance(factor, int):
        found["replication_factor"] = factor
    shards = (body.get("shardingConfig") or {}).get("desiredCount")
    if isinstance(shards, int) and not found["multi_tenancy"]:
        found["shards"] = shards
    if not named:
        return found
    found[INDEX_TYPE] = index_type
    if index_type == "dynamic" and isinstance(config.get("threshold"), int):
        found[THRESHOLD] = config["threshold"]
    graph = config.get("hnsw") or {} if index_type == "dynamic" else config
    if index_type != "flat":
        found |= {name: graph[key] for name, key in HNSW.items() if isinstance(graph.get(key), int | str)}
    kind = found[QUANTIZER_TYPE] = quantizer_of(graph)
    section = graph.get(kind) or {}
    found |= {name: section[key] for name, key in QUANTIZER.items() if isinstance(section.get(key), int)}
    return found
