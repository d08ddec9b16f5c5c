"""A collection as Weaviate's schema has it, and what its description holds of ours.

Weaviate keeps no metadata of a collection. Its description is text that can be changed at any time, so our part is the
last line of it, JSON behind :data:`MARKER`; what people wrote before it stays.
"""

from __future__ import annotations

import uuid
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from vectorwright.errors import Retryable

from ..base import FieldDefinition, IndexDefinition, IndexDescription, OwnershipMark
from ..http_errors import UNEXPECTED_ANSWER
from .names import index_name
from .settings import DISTANCES, creation_settings, read_settings

MARKER = "vectorwright:"
VECTOR = "default"
"""Name of the vector of a collection that we make, as Weaviate's own clients call an only one."""

METADATA, TEXT, TERMS = "vw_metadata", "vw_text", "vw_terms"
"""Properties of every record: its metadata as JSON and its text, not indexed, and its terms."""
RANGED_RESERVED = ("vw_n", "vw_count")
"""Reserved fields that ranges are asked of."""

TYPES: Mapping[str, str] = {
    "keyword": "text",
    "integer": "int",
    "float": "number",
    "bool": "boolean",
    "datetime": "date",
}
"""Types of fields → of the properties that other clients see."""
_FIELD_TYPES = {
    **{data_type: field_type for field_type, data_type in TYPES.items()},
    "text[]": "keyword",
    "int[]": "integer",
    "number[]": "float",
    "boolean[]": "bool",
    "date[]": "datetime",
    "uuid": "keyword",
}
_NO_PROPERTIES = frozenset({"id", "_id", "_additional"})
"""Names that Weaviate keeps for itself."""


def range_property(field: str) -> str:
    """The property that holds a field's key (see :mod:`.terms`).

    To Weaviate names that differ in small and capital letters only are one.
    """
    return "vw_range_" + "".join(
        f"_{letter.lower()}" if letter.isupper() or letter == "_" else letter for letter in field
    )


def typed_property(field: FieldDefinition) -> str | None:
    """The property that other clients see a declared field as; None where Weaviate cannot have one of that name.

    It writes the first letter of every property small.
    """
    if field.name[0].isupper() or field.name in _NO_PROPERTIES or field.name.startswith("vw_"):
        return None
    return field.name


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection, as it was when it was asked for."""

    name: str
    """Its name in Weaviate."""
    body: Mapping[str, Any]
    """The schema's entry, whole."""
    ours: Mapping[str, Any]
    """Our part of the description."""
    vector: str | None
    """Name of its vector; "" is the only one of a collection in the older form; None: it has none, or several."""
    properties: Mapping[str, str]
    """Its properties and their data types."""

    @classmethod
    def parse(cls, body: Any) -> Collection:
        """Raises Retryable (``UnexpectedAnswer``) for what is no entry of a schema."""
        try:
            named = body.get("vectorConfig") or {}
            properties = {one["name"]: one["dataType"][0] for one in body.get("properties") or ()}
            vector = next(iter(named)) if len(named) == 1 else None if named else ""
            return cls(str(body["class"]), body, _ours(str(body.get("description") or ""))[1], vector, properties)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise Retryable(
                "Weaviate described a collection in a form that is not its own: check what is behind spec.weaviate.url",
                reason=UNEXPECTED_ANSWER,
            ) from None

    @property
    def index(self) -> str:
        return index_name(self.name)

    @property
    def own(self) -> bool:
        """Whether it was made here, so that all of its records carry terms."""
        return "incarnation" in self.ours

    @property
    def dimension(self) -> int | None:
        found = self.ours.get("dimension")
        return found if isinstance(found, int) else None

    @property
    def metric(self) -> str | None:
        distance = self.vector_config.get("distance", "cosine") if self.vector is not None else None
        return next((metric for metric, name in DISTANCES.items() if name == distance), None)

    @property
    def vector_config(self) -> dict[str, Any]:
        """The configuration of the vector's index."""
        holder = self.body["vectorConfig"][self.vector] if self.vector else self.body
        found = holder.get("vectorIndexConfig")
        return found if isinstance(found, dict) else {}

    @property
    def index_type(self) -> str:
        """``hnsw``, ``flat`` or ``dynamic``."""
        holder = self.body["vectorConfig"][self.vector] if self.vector else self.body
        return str(holder.get("vectorIndexType") or "hnsw")

    @property
    def multi_tenant(self) -> bool:
        return bool((self.body.get("multiTenancyConfig") or {}).get("enabled"))

    @property
    def fields(self) -> tuple[FieldDefinition, ...]:
        """Declared fields; of a collection that others made, those that its properties are."""
        declared = dict(self.ours.get("fields") or {})
        if not self.own:
            found = {
                name: _FIELD_TYPES[data_type]
                for name, data_type in self.properties.items()
                if data_type in _FIELD_TYPES and not name.startswith("vw_")
            }
            declared = found | declared
        return tuple(FieldDefinition(name, str(type_)) for name, type_ in sorted(declared.items()))

    @property
    def ranged(self) -> frozenset[str]:
        """Fields whose keys all records carry: those that were declared when the collection was made."""
        declared = set(self.ours.get("fields") or {}) if self.own else set()
        candidates = declared - set(self.ours.get("late") or ()) | set(RANGED_RESERVED)
        return frozenset(name for name in candidates if self.has(range_property(name)))

    def has(self, name: str) -> bool:
        """Whether it has the property."""
        return name in self.properties

    def missing_properties(self) -> list[dict[str, Any]]:
        """What records of ours need, and it does not have: of a collection that others made."""
        return [one for one in _needed(()) if not self.has(str(one["name"]))]

    def describe(self) -> IndexDescription:
        mark, model = self.ours.get("mark"), self.ours.get("model")
        return IndexDescription(
            name=self.index,
            dimension=self.dimension,
            metric=self.metric,
            incarnation=str(self.ours.get("incarnation") or f"weaviate:{self.name}"),
            fields=self.fields,
            settings=read_settings(self.body, self.vector_config, self.index_type, named=self.vector is not None),
            mark=OwnershipMark.parse(mark if isinstance(mark, str) else None),
            model_fingerprint=model if isinstance(model, str) else None,
        )

    def description_with(self, changes: Mapping[str, Any]) -> str:
        """The description with our part changed; None removes a key."""
        told, ours = _ours(str(self.body.get("description") or ""))
        return _description(told, {**ours, **changes})


def _ours(description: str) -> tuple[str, dict[str, Any]]:
    """(what people wrote, our part)."""
    told, found, text = description.rpartition(MARKER)
    if not found or (told and not told.endswith("\n")):
        return description, {}
    try:
        ours = orjson.loads(text)
    except orjson.JSONDecodeError:
        return description, {}
    return (told.removesuffix("\n"), ours) if isinstance(ours, dict) else (description, {})


def _description(told: str, ours: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in ours.items() if value is not None}
    if not kept:
        return told
    line = MARKER + orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode()
    return f"{told}\n{line}" if told else line


def property_of(name: str, data_type: str, *, filterable: bool) -> dict[str, Any]:
    """A property as it is sent. Texts are one token, as they are; nothing is indexed for keyword search."""
    body: dict[str, Any] = {"name": name, "dataType": [data_type], "indexFilterable": filterable}
    if data_type.startswith("text"):
        body |= {"indexSearchable": False, "tokenization": "field"}
    return body


def properties_of_field(field: FieldDefinition, *, ranged: bool, taken: Container[str]) -> list[dict[str, Any]]:
    """The properties of a declared field: what other clients see, and its key. ``taken``: names, in small letters."""
    typed = typed_property(field)
    made = [] if typed is None or typed.lower() in taken else [property_of(typed, TYPES[field.type], filterable=True)]
    return [*made, property_of(range_property(field.name), "text", filterable=True)] if ranged else made


def _needed(fields: Iterable[FieldDefinition]) -> list[dict[str, Any]]:
    made = [
        property_of(METADATA, "text", filterable=False),
        property_of(TEXT, "text", filterable=False),
        property_of(TERMS, "text[]", filterable=True),
        *(property_of(range_property(name), "text", filterable=True) for name in RANGED_RESERVED),
    ]
    for field in fields:
        made += properties_of_field(field, ranged=True, taken={str(one["name"]).lower() for one in made})
    return made


def creation(definition: IndexDefinition, collection: str) -> dict[str, Any]:
    """The body that makes a collection. Raises Terminal (``InvalidSetting``) where settings contradict each other."""
    ours = {
        "incarnation": str(uuid.uuid4()),
        "dimension": definition.dimension,
        "fields": {field.name: field.type for field in definition.fields},
        "mark": None if definition.mark is None else str(definition.mark),
        "model": definition.model_fingerprint,
    }
    index_type, vector_config, rest = creation_settings(definition)
    return {
        "class": collection,
        "description": _description("", ours),
        "vectorConfig": {
            VECTOR: {
                "vectorizer": {"none": {}},
                "vectorIndexType": index_type,
                "vectorIndexConfig": vector_config,
            }
        },
        "properties": _needed(definition.fields),
        **rest,
    }
