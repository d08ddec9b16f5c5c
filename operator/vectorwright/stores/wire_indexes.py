"""Indexes and stores as JSON, between a store server and its client. Everything raises WireError on another form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from typing import Any

from .base import (
    Capabilities,
    ChangeClass,
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    IndexStatistics,
    OwnershipMark,
    Setting,
    StoreInfo,
)
from .wire import WireError, take, take_optional, take_strings

_CAPABILITIES = tuple(field.name for field in fields_of(Capabilities))
_SETS = ("metrics", "field_types", "rotation_strategies")


def encode_definition(definition: IndexDefinition) -> dict[str, Any]:
    """The definition of an index as JSON."""
    return {
        "name": definition.name,
        "dimension": definition.dimension,
        "metric": definition.metric,
        "fields": encode_fields(definition.fields),
        "settings": dict(definition.settings),
        "mark": encode_mark(definition.mark),
        "model_fingerprint": definition.model_fingerprint,
    }


def decode_definition(body: Mapping[str, Any]) -> IndexDefinition:
    """The definition that :func:`encode_definition` wrote. Raises WireError."""
    return IndexDefinition(
        name=take(body, "name", str),
        dimension=take(body, "dimension", int),
        metric=take(body, "metric", str),
        fields=decode_fields(body.get("fields", [])),
        settings=decode_settings(body.get("settings", {})),
        mark=decode_mark(body.get("mark")),
        model_fingerprint=take_optional(body, "model_fingerprint"),
    )


def encode_description(description: IndexDescription) -> dict[str, Any]:
    """The description of an index as JSON."""
    return {
        "name": description.name,
        "dimension": description.dimension,
        "metric": description.metric,
        "incarnation": description.incarnation,
        "fields": None if description.fields is None else encode_fields(description.fields),
        "settings": dict(description.settings),
        "mark": encode_mark(description.mark),
        "model_fingerprint": description.model_fingerprint,
        "count": description.count,
        "count_exact": description.count_exact,
    }


def decode_description(body: Mapping[str, Any]) -> IndexDescription:
    """The description that :func:`encode_description` wrote. Raises WireError."""
    return IndexDescription(
        name=take(body, "name", str),
        dimension=None if body.get("dimension") is None else take(body, "dimension", int),
        metric=take_optional(body, "metric"),
        incarnation=take(body, "incarnation", str),
        fields=None if body.get("fields") is None else decode_fields(body["fields"]),
        settings=decode_settings(body.get("settings", {})),
        mark=decode_mark(body.get("mark")),
        model_fingerprint=take_optional(body, "model_fingerprint"),
        count=None if body.get("count") is None else take(body, "count", int),
        count_exact=take(body, "count_exact", bool, True),
    )


def encode_statistics(statistics: IndexStatistics) -> dict[str, Any]:
    """What an index holds, as JSON."""
    return {
        "count": statistics.count,
        "exact": statistics.exact,
        "namespaces": None if statistics.namespaces is None else dict(statistics.namespaces),
        "storage_bytes": statistics.storage_bytes,
        "details": dict(statistics.details),
    }


def decode_statistics(body: Mapping[str, Any]) -> IndexStatistics:
    """What :func:`encode_statistics` wrote. Raises WireError."""
    namespaces = body.get("namespaces")
    if namespaces is not None and not (
        isinstance(namespaces, dict) and all(type(count) is int for count in namespaces.values())
    ):
        raise WireError("'namespaces' is not an object of numbers")
    return IndexStatistics(
        count=take(body, "count", int),
        exact=take(body, "exact", bool, True),
        namespaces=namespaces,
        storage_bytes=None if body.get("storage_bytes") is None else take(body, "storage_bytes", int),
        details=decode_settings(body.get("details", {})),
    )


def encode_fields(fields: Sequence[FieldDefinition]) -> list[list[str]]:
    """Metadata fields as pairs of name and type."""
    return [[one.name, one.type] for one in fields]


def decode_fields(value: object) -> tuple[FieldDefinition, ...]:
    """The fields that :func:`encode_fields` wrote. Raises WireError."""
    if not isinstance(value, list):
        raise WireError("'fields' is not a list")
    fields = []
    for item in value:
        match item:
            case [str(name), str(kind)]:
                fields.append(FieldDefinition(name, kind))
            case _:
                raise WireError("'fields' holds something else than pairs of name and type")
    return tuple(fields)


def decode_settings(value: object) -> dict[str, Setting]:
    """Settings by name. Raises WireError."""
    if not isinstance(value, dict) or not all(isinstance(one, str | int | float) for one in value.values()):
        raise WireError("'settings' is not an object of strings, numbers and booleans")
    return value


def encode_mark(mark: OwnershipMark | None) -> list[str] | None:
    """An ownership mark as a list of its parts."""
    return None if mark is None else [mark.installation, mark.namespace, mark.name]


def decode_mark(value: object) -> OwnershipMark | None:
    """The mark that :func:`encode_mark` wrote. Raises WireError."""
    match value:
        case None:
            return None
        case [str(installation), str(namespace), str(name)]:
            return OwnershipMark(installation, namespace, name)
    raise WireError("'mark' is not a list of installation, namespace and name")


def encode_info(info: StoreInfo) -> dict[str, Any]:
    """The answer to a probe as JSON."""
    capabilities = {name: getattr(info.capabilities, name) for name in _CAPABILITIES}
    for name in _SETS:
        capabilities[name] = sorted(capabilities[name])
    capabilities["mutable_settings"] = {name: one.value for name, one in info.capabilities.mutable_settings.items()}
    return {"version": info.version, "backend_id": info.backend_id, "capabilities": capabilities}


def decode_info(body: Mapping[str, Any], endpoint: str) -> StoreInfo:
    """The answer that :func:`encode_info` wrote; what a newer server adds is passed over. Raises WireError."""
    given = body.get("capabilities")
    if not isinstance(given, dict):
        raise WireError("'capabilities' is not an object")
    values = {name: value for name, value in given.items() if name in _CAPABILITIES}
    try:
        for name in _SETS:
            if name in values:
                values[name] = frozenset(take_strings(values, name))
        if "filter_limits" in values:
            values["filter_limits"] = tuple(take_strings(values, "filter_limits"))
        classes = values.get("mutable_settings", {}).items()
        values["mutable_settings"] = {name: ChangeClass(change_class) for name, change_class in classes}
        capabilities = Capabilities(**values)
    except (AttributeError, TypeError, ValueError) as error:
        raise WireError("'capabilities' is not of the form that this version knows") from error
    return StoreInfo(take(body, "version", str), take(body, "backend_id", str), endpoint, capabilities)
