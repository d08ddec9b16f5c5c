"""Records, filters and answers as Weaviate's protobuf messages."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from vectorwright.errors import Retryable

from ..base import Match, Metadata, MetadataValue, Record, RecordBatch
from ..http_errors import UNEXPECTED_ANSWER
from .channel import Messages
from .collection import METADATA, RANGED_RESERVED, TERMS, TEXT, Collection, range_property, typed_property
from .filters import Clause
from .terms import order_key, terms

_EXACT_DOUBLE = 2**53
_FP32 = 1
"""``VECTOR_TYPE_SINGLE_FP32``."""


def encode_batch(
    messages: Messages,
    collection: Collection,
    batch: RecordBatch,
    encoded: Sequence[bytes],
    *,
    tenant: str,
    consistency: str | None,
) -> Any:
    """The request that writes a batch. ``encoded`` is the metadata of the records as JSON."""
    import numpy as np  # noqa: PLC0415 - the operator moves no vectors, and its memory is budgeted

    rows = np.ascontiguousarray(batch.vectors, "<f4")
    # Keys of every field that a range may be asked of; what other clients see, of those that were declared.
    keyed = [name for name in _keyed(collection) if collection.has(range_property(name))]
    typed = [(name, field) for field in collection.fields if (name := typed_property(field)) and collection.has(name)]
    lists = {name for name, _ in typed if collection.properties[name].endswith("[]")}
    request = messages.batch.BatchObjectsRequest(consistency_level=_level(messages, consistency))
    for at, record_id in enumerate(batch.ids):
        metadata, text = batch.metadata[at], batch.texts[at]
        one = request.objects.add(uuid=record_id, collection=collection.name, tenant=tenant)
        raw = rows[at].tobytes()
        if collection.vector:
            one.vectors.add(name=collection.vector, vector_bytes=raw, type=_FP32)
        else:
            one.vector_bytes = raw
        fields = one.properties.non_ref_properties.fields
        fields[METADATA].string_value = encoded[at].decode()
        if text is not None:
            fields[TEXT].string_value = text
        for name in keyed:
            if (value := metadata.get(name)) is not None and (key := order_key(value)) is not None:
                fields[range_property(name)].string_value = key
        for name, field in typed:
            if field.name in metadata and name not in lists:
                _set_typed(fields, name, field.type, metadata[field.name])
        one.properties.text_array_properties.add(prop_name=TERMS, values=terms(metadata))
    return request


def _keyed(collection: Collection) -> tuple[str, ...]:
    return (*RANGED_RESERVED, *(field.name for field in collection.fields))


def _set_typed(fields: Any, name: str, kind: str, value: MetadataValue) -> None:
    """Write a value where the property's type holds it as it is; otherwise the metadata alone has it."""
    if kind == "keyword" and isinstance(value, str):
        fields[name].string_value = value
    elif kind == "bool" and isinstance(value, bool):
        fields[name].bool_value = value
    elif isinstance(value, bool):
        return
    elif isinstance(value, int) and kind in {"integer", "float"}:
        if abs(value) <= _EXACT_DOUBLE:  # what is sent is a double
            fields[name].number_value = value
    elif kind == "float" and isinstance(value, float):
        fields[name].number_value = value
    elif kind == "datetime" and isinstance(value, str) and _is_time(value):
        fields[name].string_value = value


def _is_time(text: str) -> bool:
    """Whether it is RFC 3339, which Weaviate takes as a date."""
    if len(text) < 20 or text[10] != "T" or not (text.endswith("Z") or text[-6] in "+-"):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _level(messages: Messages, consistency: str | None) -> Any:
    return None if consistency is None else getattr(messages.base, f"CONSISTENCY_LEVEL_{consistency}")


def encode_filter(messages: Messages, clause: Clause) -> Any:
    """A clause as Weaviate's filter."""
    filters = messages.base.Filters
    if len(clause) == 2:
        operator, parts = clause
        number = {"and": filters.OPERATOR_AND, "or": filters.OPERATOR_OR, "not": filters.OPERATOR_NOT}[operator]
        return filters(operator=number, filters=[encode_filter(messages, part) for part in parts])
    operator, name, values = clause
    target = messages.base.FilterTarget(property=name)
    if operator == "any":
        if len(values) == 1:
            return filters(operator=filters.OPERATOR_EQUAL, target=target, value_text=values[0])
        array = messages.base.TextArray(values=values)
        return filters(operator=filters.OPERATOR_CONTAINS_ANY, target=target, value_text_array=array)
    number = {
        "gt": filters.OPERATOR_GREATER_THAN,
        "gte": filters.OPERATOR_GREATER_THAN_EQUAL,
        "lt": filters.OPERATOR_LESS_THAN,
        "lte": filters.OPERATOR_LESS_THAN_EQUAL,
    }[operator]
    return filters(operator=number, target=target, value_text=values[0])


def search_request(
    messages: Messages,
    collection: Collection,
    *,
    limit: int,
    tenant: str,
    consistency: str | None,
    clause: Clause | None = None,
    after: str = "",
    near: bytes | None = None,
    vectors: bool = False,
    metadata: bool = True,
) -> Any:
    """A request for records: the nearest to ``near`` (float32, little-endian), those after an id, or any."""
    search = messages.search
    wanted = search.PropertiesRequest(
        non_ref_properties=[METADATA, TEXT] if metadata and collection.own else (),
        return_all_nonref_properties=metadata and not collection.own,
    )
    found = search.MetadataRequest(
        uuid=True,
        distance=near is not None,
        vector=vectors and collection.vector == "",
        vectors=[collection.vector] if vectors and collection.vector else (),
    )
    request = search.SearchRequest(
        collection=collection.name,
        tenant=tenant,
        consistency_level=_level(messages, consistency),
        properties=wanted,
        metadata=found,
        limit=limit,
        after=after,
        uses_127_api=True,
    )
    if clause is not None:
        request.filters.CopyFrom(encode_filter(messages, clause))
    if near is not None:
        nearest = request.near_vector
        nearest.vectors.add(name=collection.vector or "", vector_bytes=near, type=_FP32)
        if collection.vector:
            nearest.targets.target_vectors.append(collection.vector)
    return request


def decode_records(answer: Any, *, metadata: bool) -> list[Record]:
    """The records of a search."""
    try:
        return [_record(one, metadata=metadata) for one in answer.results]
    except (AttributeError, TypeError, ValueError):
        raise Retryable(
            "Weaviate answered a read with something that is no list of records: check spec.weaviate.grpcPort",
            reason=UNEXPECTED_ANSWER,
        ) from None


def decode_matches(answer: Any, metric: str | None) -> list[Match]:
    """The matches of a search by vector, nearest first."""
    return [
        Match(record, score(float(one.metadata.distance), metric))
        for one, record in zip(answer.results, decode_records(answer, metadata=True), strict=True)
    ]


def score(distance: float, metric: str | None) -> float:
    """Weaviate's distance as a score, higher is nearer: 1 - cosine, minus the inner product, the squared distance."""
    if metric == "euclidean":
        return -math.sqrt(max(distance, 0.0))
    return -distance if metric == "dotproduct" else 1.0 - distance


def _record(one: Any, *, metadata: bool) -> Record:
    import numpy as np  # noqa: PLC0415 - as above

    values: Metadata = {}
    text: str | None = None
    if metadata:
        fields = one.properties.non_ref_props.fields
        if TEXT in fields and fields[TEXT].WhichOneof("kind") == "text_value":
            text = fields[TEXT].text_value
        if METADATA in fields and fields[METADATA].WhichOneof("kind") == "text_value":
            values = orjson.loads(fields[METADATA].text_value)
        else:
            values = _native(fields)
    raw = one.metadata.vectors[0].vector_bytes if one.metadata.vectors else one.metadata.vector_bytes
    vector = np.frombuffer(raw, "<f4").astype(np.float32) if raw else None
    return Record(str(uuid.UUID(one.metadata.id)), values, text, vector)


def _native(fields: Mapping[str, Any]) -> Metadata:
    """The properties of a record that another client wrote, as far as metadata can hold them."""
    found: Metadata = {}
    for name, value in fields.items():
        if name.startswith("vw_"):
            continue
        kind = value.WhichOneof("kind")
        match kind:
            case "text_value" | "date_value" | "uuid_value" | "number_value" | "bool_value" | "int_value":
                found[name] = getattr(value, kind)
            case "list_value" if (listed := _strings(value.list_value)) is not None:
                found[name] = listed
    return found


def _strings(listed: Any) -> list[str] | None:
    kind = listed.WhichOneof("kind")
    if kind not in {"text_values", "date_values", "uuid_values"}:
        return None
    values: Iterable[str] = getattr(listed, kind).values
    return list(values)
