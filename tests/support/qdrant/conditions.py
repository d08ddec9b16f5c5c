"""Filters with the meaning that they have for a Qdrant server, payload indexes included.

As its source says (lib/segment/src/payload_storage/condition_checker.rs and the numeric index), and as its engine in
process did in a comparison: a match of an integer takes integers only, a range takes numbers as floats, a list fulfils
what one of its items does, ``is_empty`` takes null and an empty list for absence. An index of integers holds integers
and integral floats, and answers for its field: ranges compare integers exactly there, and numbers with a fraction are
not found. Of two lower bounds of a range, or two upper ones, an index looks at the inclusive one only.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from qdrant_client import grpc
from tests.support.qdrant.errors import QdrantError, bad_request
from tests.support.qdrant.values import at_path, path

Payload = Mapping[str, Any]
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?(Z|[+-]\d{2}:?\d{2})?")


class Conditions:
    """Evaluates filters for one collection. ``types`` are the types of its payload indexes, by key."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = types

    def matches(self, where: grpc.Filter, key: tuple[int, int], payload: Payload) -> bool:
        """Whether a point fulfils a filter. Clauses without conditions are fulfilled."""

        def holds(one: grpc.Condition) -> bool:
            return self._holds(one, key, payload)

        return (
            all(map(holds, where.must))
            and (not where.should or any(map(holds, where.should)))
            and not any(map(holds, where.must_not))
            and (
                not where.HasField("min_should")
                or sum(map(holds, where.min_should.conditions)) >= where.min_should.min_count
            )
        )

    def _holds(self, one: grpc.Condition, key: tuple[int, int], payload: Payload) -> bool:
        match one.WhichOneof("condition_one_of"):
            case "field":
                return self._field(one.field, payload)
            case "is_empty":
                return all(value is None or value == [] for value in _values(payload, one.is_empty.key))
            case "is_null":
                return any(value is None for value in _values(payload, one.is_null.key))
            case "has_id":
                return key in {point_key(point) for point in one.has_id.has_id}
            case "filter":
                return self.matches(one.filter, key, payload)
        raise QdrantError(grpc_code="UNIMPLEMENTED", http=501, said="the double does not know this condition")

    def _field(self, field: grpc.FieldCondition, payload: Payload) -> bool:
        values = _values(payload, field.key)
        kind = self._types.get(field.key)
        checks: list[Callable[[Any], bool]] = []
        if field.HasField("match"):
            checks.append(lambda value: _matches(field.match, value, kind))
        if field.HasField("range"):
            checks.append(lambda value: _in_range(field.range, value, kind))
        if field.HasField("datetime_range"):
            checks.append(lambda value: _in_time(field.datetime_range, value, kind))
        if not checks:
            raise bad_request("the double knows conditions on a field by match, range and datetime_range only")
        items = [item for value in values for item in (value if isinstance(value, list) else [value])]
        return any(check(item) for check in checks for item in items)


def _values(payload: Payload, key: str) -> list[Any]:
    try:
        return at_path(payload, path(key))
    except ValueError:
        raise bad_request(f"Wrong input: invalid JSON path {key}") from None


def _indexed_integer(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


def _matches(match: grpc.Match, value: Any, kind: str | None) -> bool:
    wanted = match.WhichOneof("match_value")
    if wanted == "boolean":
        return isinstance(value, bool) and value == match.boolean
    if wanted in {"integer", "integers", "except_integers"}:
        given = {match.integer} if wanted == "integer" else set(getattr(match, wanted).integers)
        number = _indexed_integer(value) if kind == "Integer" else _integer(value)
        return bool(number not in given and value is not None) if wanted == "except_integers" else number in given
    if wanted in {"keyword", "keywords", "except_keywords"}:
        texts = {match.keyword} if wanted == "keyword" else set(getattr(match, wanted).strings)
        if wanted == "except_keywords":
            return value is not None and not (isinstance(value, str) and value in texts)
        return isinstance(value, str) and value in texts
    if wanted == "text":
        return isinstance(value, str) and match.text in value
    raise bad_request(f"the double does not know the match {wanted}")


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _in_range(bounds: grpc.Range, value: Any, kind: str | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    number: float
    if kind == "Integer":
        indexed = _indexed_integer(value)
        if indexed is None:
            return False
        number = indexed  # Python compares it with the bound exactly
    else:
        number = float(value)
    limits = {name.name: bound for name, bound in bounds.ListFields()}
    return _between(number, limits, indexed=kind in {"Integer", "Float"})


def _in_time(bounds: grpc.DatetimeRange, value: Any, kind: str | None) -> bool:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return False
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return False
    seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    limits = {name.name: stamp.seconds + stamp.nanos / 1e9 for name, stamp in bounds.ListFields()}
    return _between(seconds, limits, indexed=kind == "Datetime")


def _between(number: float, limits: Mapping[str, float], *, indexed: bool) -> bool:
    passed_over = {sign for sign in ("gt", "lt") if indexed and f"{sign}e" in limits}
    kept = {sign: bound for sign, bound in limits.items() if sign not in passed_over}
    above = number > kept.get("gt", -math.inf) and number >= kept.get("gte", -math.inf)
    return above and number < kept.get("lt", math.inf) and number <= kept.get("lte", math.inf)


def point_key(point: grpc.PointId) -> tuple[int, int]:
    """Order of points in a scroll: numbers before UUIDs. Raises QdrantError where the id is no UUID."""
    if point.WhichOneof("point_id_options") == "num":
        return 0, point.num
    try:
        return 1, uuid.UUID(point.uuid).int
    except ValueError:
        raise bad_request(f"Unable to parse UUID: {point.uuid}") from None


def point_id(key: tuple[int, int]) -> grpc.PointId:
    """The other way round; a UUID in the spelling that the server gives."""
    return grpc.PointId(num=key[1]) if key[0] == 0 else grpc.PointId(uuid=str(uuid.UUID(int=key[1])))
