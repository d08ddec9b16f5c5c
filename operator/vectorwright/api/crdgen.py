"""CustomResourceDefinitions from the pydantic models.

The API server wants structural OpenAPI v3: no ``$ref``, no ``anyOf`` of types, no ``const``, boolean
``exclusiveMinimum``. Pydantic writes JSON Schema 2020-12; :func:`structural` turns one into the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from .v1alpha1 import (
    CATEGORY,
    GROUP,
    VERSION,
    APIKeyRotationSpec,
    APIKeyRotationStatus,
    EmbeddingModelSpec,
    EmbeddingModelStatus,
    IngestionJobSpec,
    IngestionJobStatus,
    VectorIndexSpec,
    VectorIndexStatus,
    VectorStoreSpec,
    VectorStoreStatus,
)

Schema = dict[str, Any]

_KEPT = (
    "type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems",
    "minProperties", "maxProperties", "uniqueItems",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``kubectl get``."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""

    def manifest(self) -> Schema:
        """The entry of ``additionalPrinterColumns``."""
        column: Schema = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            column["description"] = self.description
        if self.wide:
            column["priority"] = 1
        return column


@dataclass(frozen=True, slots=True)
class KindDefinition:
    """A kind of the API, and how it is shown."""

    kind: str
    plural: str
    short_name: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[Column, ...]


def _condition(name: str, part: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].{part}'


_READY = Column("Ready", _condition("Ready", "status"), description="Whether it can be used now")
_REASON = Column("Reason", _condition("Ready", "reason"), description="Why it is, or is not, ready")
_AGE = Column("Age", ".metadata.creationTimestamp", "date")

KINDS = (
    KindDefinition(
        "VectorStore",
        "vectorstores",
        "vst",
        "How to reach one vector store.",
        VectorStoreSpec,
        VectorStoreStatus,
        (
            _READY,
            _REASON,
            Column("Provider", ".status.provider"),
            Column("Version", ".status.version"),
            Column("Indexes", ".status.indexes", "integer", description="Indexes that the store holds, anybody's"),
            Column("Throttled", ".status.throttled", "boolean"),
            Column("Endpoint", ".status.endpoint", wide=True),
            _AGE,
        ),
    ),
    KindDefinition(
        "EmbeddingModel",
        "embeddingmodels",
        "vem",
        "One model that turns text into vectors.",
        EmbeddingModelSpec,
        EmbeddingModelStatus,
        (_READY, _REASON, Column("Model", ".status.model"), Column("Dim", ".status.dimension", "integer"), _AGE),
    ),
    KindDefinition(
        "VectorIndex",
        "vectorindexes",
        "vix",
        "One index in one vector store.",
        VectorIndexSpec,
        VectorIndexStatus,
        (
            _READY,
            _REASON,
            Column("Store", ".spec.storeRef.name"),
            Column("Model", ".spec.embeddingModelRef.name"),
            Column("Dim", ".status.dimension", "integer"),
            Column("Vectors", ".status.vectors", "integer", description="Number of vectors, as the store tells it"),
            Column("Fresh", ".status.lastIngestedAt", "date", description="Time since an ingestion last succeeded"),
            Column("Drift", ".status.driftedFields", "integer", description="Differences between spec and store"),
            Column("Metric", ".status.metric", wide=True),
            Column("Index", ".status.physicalName", wide=True, description="Name in the store"),
            Column("Message", _condition("Ready", "message"), wide=True),
            _AGE,
        ),
    ),
    KindDefinition(
        "IngestionJob",
        "ingestionjobs",
        "vij",
        "Fills one index from one source, and keeps it in sync.",
        IngestionJobSpec,
        IngestionJobStatus,
        (
            Column("Phase", ".status.phase"),
            Column("Index", ".spec.indexRef.name"),
            Column("Done", ".status.done", description="Documents done of those listed"),
            Column("Failed", ".status.counts.documentsFailed", "integer", description="Documents in the dead letters"),
            Column("Rate", ".status.rate", description="Vectors written a second"),
            Column("ETA", ".status.eta"),
            Column("Tokens", ".status.counts.tokens", "integer", wide=True),
            Column("LastSuccess", ".status.lastSuccessAt", "date"),
            Column("NextRun", ".status.nextRunAt", wide=True),
            _AGE,
        ),
    ),
    KindDefinition(
        "APIKeyRotation",
        "apikeyrotations",
        "akr",
        "Makes the keys of one identity of a store, publishes them in one Secret, and replaces them.",
        APIKeyRotationSpec,
        APIKeyRotationStatus,
        (
            _READY,
            Column("Step", ".status.step", description="Where a rotation is; Idle between two"),
            Column("Store", ".spec.storeRef.name"),
            Column("Secret", ".spec.secret.name"),
            Column("Expires", ".status.notAfter", description="When the published key expires, where it does"),
            Column("Next", ".status.renewalTime", description="When the published key is to be replaced"),
            Column("BlockedBy", ".status.blockedBy", wide=True),
            Column("Revision", ".status.revision", "integer", wide=True),
            _AGE,
        ),
    ),
)


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """One JSON Schema node as a structural OpenAPI v3 node. Raises ``ValueError`` for what cannot be expressed."""
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"a union of types has no structural schema: {schema}")
        siblings = {key: value for key, value in schema.items() if key != "anyOf"}
        return structural({**options[0], **siblings}, definitions)
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        return structural({**target, **siblings}, definitions)

    node: Schema = {}
    if description := schema.get("description"):
        node["description"] = " ".join(str(description).split())
    node.update({key: schema[key] for key in _KEPT if key in schema})
    if "const" in schema:
        node.update(type="string", enum=[schema["const"]])
    for bound, flag in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in schema:
            node.update({flag: schema[bound], bound: True})
    if node.get("type") == "integer":
        node["format"] = "int64"
    node.update({key: value for key, value in schema.items() if key.startswith("x-kubernetes-")})
    if "items" in schema:
        node["items"] = structural(schema["items"], definitions)
    if node.get("type") == "object":
        _object(schema, definitions, node)
    return node


def _object(schema: Mapping[str, Any], definitions: Mapping[str, Any], node: Schema) -> None:
    if "properties" in schema:
        node["properties"] = {
            name: structural(value, definitions) for name, value in sorted(schema["properties"].items())
        }
        if schema.get("required"):
            node["required"] = sorted(schema["required"])
        return
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping):
        node["additionalProperties"] = structural(values, definitions)
    else:
        node["x-kubernetes-preserve-unknown-fields"] = True


def _model(model: type[BaseModel]) -> Schema:
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return structural(schema, schema.get("$defs", {}))


def manifest(definition: KindDefinition) -> Schema:
    """The CustomResourceDefinition of one kind."""
    singular = definition.kind.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{definition.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "vectorwright", "app.kubernetes.io/component": "crds"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": definition.kind,
                "listKind": f"{definition.kind}List",
                "plural": definition.plural,
                "singular": singular,
                "shortNames": [definition.short_name],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.manifest() for column in definition.columns],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": definition.description,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": _model(definition.spec),
                                "status": _model(definition.status),
                            },
                        }
                    },
                }
            ],
        },
    }


def files() -> dict[str, str]:
    """File name → YAML of every CustomResourceDefinition, as committed in ``crds/``."""
    header = "# Generated from the API models by `make crds`. Change the models, not this file.\n"
    return {
        f"{GROUP}_{definition.plural}.yaml": header
        + yaml.safe_dump(manifest(definition), sort_keys=False, allow_unicode=True, width=120)
        for definition in KINDS
    }
