"""Tuning settings by dotted name, in Qdrant's messages and out of them.

Every change makes the server stop its optimisers and start them anew. Whether they then rewrite segments decides the
class: Qdrant compares ``m``, ``ef_construct``, ``full_scan_threshold``, ``payload_m`` and ``on_disk`` of a segment's
graph with the configuration, but not the number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vectorwright.errors import Terminal

from ..base import ChangeClass, Setting
from .messages import grpc

_PARAMS = ("replication_factor", "write_consistency_factor", "on_disk_payload")
_HNSW = ("m", "ef_construct", "full_scan_threshold", "max_indexing_threads", "on_disk", "payload_m")
_OPTIMIZERS = (
    "deleted_threshold",
    "vacuum_min_vector_number",
    "default_segment_number",
    "max_segment_size",
    "memmap_threshold",
    "indexing_threshold",
    "flush_interval_sec",
)
_QUANTIZATION = ("type", "quantile", "compression", "always_ram")
_NO_QUANTIZATION = "none"
_KINDS = ("scalar", "product", "binary", _NO_QUANTIZATION)

IMMUTABLE = ("shard_number",)
MUTABLE: Mapping[str, ChangeClass] = {
    # In a cluster replicas are made or dropped.
    "replication_factor": ChangeClass.COSTLY,
    "write_consistency_factor": ChangeClass.SAFE,
    "on_disk_payload": ChangeClass.COSTLY,
    "on_disk": ChangeClass.COSTLY,
    **{f"hnsw.{name}": ChangeClass.COSTLY for name in _HNSW},
    "hnsw.max_indexing_threads": ChangeClass.SAFE,
    **{f"quantization.{name}": ChangeClass.COSTLY for name in _QUANTIZATION},
    **{f"optimizers.{name}": ChangeClass.COSTLY for name in _OPTIMIZERS},
    "optimizers.deleted_threshold": ChangeClass.SAFE,
    "optimizers.vacuum_min_vector_number": ChangeClass.SAFE,
    "optimizers.flush_interval_sec": ChangeClass.SAFE,
}
KNOWN = (*IMMUTABLE, *MUTABLE)


def _part(settings: Mapping[str, Setting], prefix: str) -> dict[str, Setting]:
    return {name.removeprefix(prefix): value for name, value in settings.items() if name.startswith(prefix)}


def _make(message: type[Any], **values: Any) -> Any:
    """A message, or Terminal (``InvalidTuning``) where a value is none that it can hold."""
    try:
        return message(**values)
    except (TypeError, ValueError):
        told = ", ".join(f"{name}: {str(value)[:63]}" for name, value in values.items())
        raise Terminal(f"Qdrant cannot take these settings ({told})", reason="InvalidTuning") from None


def _quantization(settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The field of a quantization message, by name. Raises Terminal (``InvalidTuning``)."""
    kind = settings.get("type", _NO_QUANTIZATION)
    allowed = {"scalar": {"quantile", "always_ram"}, "product": {"compression", "always_ram"}, "binary": {"always_ram"}}
    stray = settings.keys() - allowed.get(str(kind), set()) - {"type"}
    if kind not in _KINDS or stray:
        what = f"quantization.{min(stray)}" if stray else f"quantization.type {str(kind)[:63]!r}"
        raise Terminal(
            f"{what} does not fit: quantization.type is one of {', '.join(_KINDS)}; scalar has quantile, product has "
            "compression, and all have alwaysRam",
            reason="InvalidTuning",
        )
    given = {name: value for name, value in settings.items() if name != "type"}
    match kind:
        case "scalar":
            return {"scalar": _make(grpc.ScalarQuantization, type=grpc.QuantizationType.Int8, **given)}
        case "product":
            ratio = str(given.pop("compression", "x16"))
            return {"product": _make(grpc.ProductQuantization, compression=ratio, **given)}
        case "binary":
            return {"binary": _make(grpc.BinaryQuantization, **given)}
    return {"disabled": grpc.Disabled()}


def creation(settings: Mapping[str, Setting], size: int, distance: str) -> grpc.CreateCollection:
    """A request that makes a collection, without its name. Nothing is said of what is not set."""
    vector = _make(grpc.VectorParams, size=size, distance=distance, **_only(settings, ("on_disk",)))
    made: grpc.CreateCollection = _make(
        grpc.CreateCollection,
        vectors_config=grpc.VectorsConfig(params=vector),
        **_only(settings, (*IMMUTABLE, *_PARAMS)),
    )
    if hnsw := _part(settings, "hnsw."):
        made.hnsw_config.CopyFrom(_make(grpc.HnswConfigDiff, **hnsw))
    if optimizers := _part(settings, "optimizers."):
        made.optimizers_config.CopyFrom(_make(grpc.OptimizersConfigDiff, **optimizers))
    quantization = _quantization(_part(settings, "quantization."))
    if "disabled" not in quantization:
        made.quantization_config.CopyFrom(grpc.QuantizationConfig(**quantization))
    return made


def change(
    settings: Mapping[str, Setting], present: Mapping[str, Setting], vector: grpc.VectorParams, vector_name: str | None
) -> grpc.UpdateCollection:
    """A request that changes settings, without the collection's name.

    What the vector has of its own outweighs what the collection says, so it is changed there, too.
    """
    made = grpc.UpdateCollection()
    diff = _make(grpc.VectorParamsDiff, **_only(settings, ("on_disk",)))
    if params := _only(settings, _PARAMS):
        made.params.CopyFrom(_make(grpc.CollectionParamsDiff, **params))
    if optimizers := _part(settings, "optimizers."):
        made.optimizers_config.CopyFrom(_make(grpc.OptimizersConfigDiff, **optimizers))
    if hnsw := _part(settings, "hnsw."):
        made.hnsw_config.CopyFrom(_make(grpc.HnswConfigDiff, **hnsw))
        if vector.HasField("hnsw_config"):
            diff.hnsw_config.CopyFrom(made.hnsw_config)
    if changed := _part(settings, "quantization."):
        kept = _part(present, "quantization.")
        same = changed.get("type", kept.get("type")) == kept.get("type")
        wanted = grpc.QuantizationConfigDiff(**_quantization({**kept, **changed} if same else changed))
        made.quantization_config.CopyFrom(wanted)
        if vector.HasField("quantization_config"):
            diff.quantization_config.CopyFrom(wanted)
    if diff.ByteSize():
        if vector_name is None:
            made.vectors_config.params.CopyFrom(diff)
        else:
            made.vectors_config.params_map.map[vector_name].CopyFrom(diff)
    return made


def _only(settings: Mapping[str, Setting], names: tuple[str, ...]) -> dict[str, Setting]:
    return {name: settings[name] for name in names if name in settings}


def found(config: grpc.CollectionConfig, vector: grpc.VectorParams | None) -> dict[str, Setting]:
    """The settings of a collection, those of its vector before its own."""
    settings: dict[str, Setting] = {"shard_number": config.params.shard_number}
    settings |= _read(config.params, _PARAMS)
    settings |= _read(config.hnsw_config, _HNSW, "hnsw.")
    settings |= _read(config.optimizer_config, _OPTIMIZERS, "optimizers.")
    quantization = config.quantization_config
    if vector is not None:
        settings["on_disk"] = vector.on_disk
        settings |= _read(vector.hnsw_config, _HNSW, "hnsw.")
        if vector.HasField("quantization_config"):
            quantization = vector.quantization_config
    return settings | _found_quantization(quantization)


def _read(message: Any, names: tuple[str, ...], prefix: str = "") -> dict[str, Setting]:
    present = {field.name for field, _ in message.ListFields()}
    optional = {name for name in names if message.DESCRIPTOR.fields_by_name[name].has_presence}
    return {f"{prefix}{name}": getattr(message, name) for name in names if name in present or name not in optional}


def _found_quantization(quantization: grpc.QuantizationConfig) -> dict[str, Setting]:
    kind = quantization.WhichOneof("quantization")
    if kind is None:
        return {"quantization.type": _NO_QUANTIZATION}
    settings: dict[str, Setting] = {"quantization.type": kind}
    given = getattr(quantization, kind)
    if given.HasField("always_ram"):
        settings["quantization.always_ram"] = given.always_ram
    if kind == "scalar" and given.HasField("quantile"):
        settings["quantization.quantile"] = round(given.quantile, 6)  # the server keeps four bytes of it
    if kind == "product":
        settings["quantization.compression"] = grpc.CompressionRatio.Name(given.compression)
    return settings
