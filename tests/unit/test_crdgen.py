"""Resource definitions from the models, without an API server.

What is checked: what is committed is what the models say, and ``vectorwright crds`` notices when not; nothing that the
API server does not take, and no default for anything; every field described; names and columns as the conventions have
them; bounded lists; what cannot be expressed is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, Field

from vectorwright.api.crdgen import KINDS, files, manifest, structural
from vectorwright.cli import crds as command

ROOT = Path(__file__).resolve().parents[2]
Node = dict[str, Any]


def nodes(schema: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Every schema in a schema, with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def schema_of(kind: str) -> Node:
    body = next(manifest(definition) for definition in KINDS if definition.kind == kind)
    found: Node = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


ALL = [(definition.kind, path, node) for definition in KINDS for path, node in nodes(schema_of(definition.kind))]


# -- what is committed --
def test_the_committed_definitions_are_those_of_the_models() -> None:
    committed = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    committed.pop("kustomization.yaml", None)
    assert committed == files(), "run make crds"


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["crds", *arguments])
    status: int = parsed.run(parsed)
    return status


def test_the_command_writes_what_differs_and_removes_what_is_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "crds")
    assert run("--check", "--dir", place) == 1
    assert run("--dir", place) == 0
    assert run("--check", "--dir", place) == 0
    capsys.readouterr()
    assert run("--dir", place) == 0
    assert capsys.readouterr().out == "", "nothing is written twice"
    first = next(iter(files()))
    (tmp_path / "crds" / first).write_text("old")
    (tmp_path / "crds" / "vectorwright.dev_gone.yaml").write_text("x")
    assert run("--check", "--dir", place) == 1
    told = capsys.readouterr().err
    assert first in told
    assert "vectorwright.dev_gone.yaml" in told
    assert "make crds" in told
    assert run("--dir", place) == 0
    assert {path.name for path in (tmp_path / "crds").iterdir()} == set(files())


def test_the_command_prints_all_where_no_folder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [body["spec"]["names"]["kind"] for body in printed] == [definition.kind for definition in KINDS]
    assert run("--check") == 2


def test_generating_twice_gives_the_same() -> None:
    assert files() == files()


# -- structural --
TAKEN = {
    "type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "minItems", "maxItems", "minProperties", "maxProperties", "uniqueItems", "description",
    "properties", "required", "items", "additionalProperties", "x-kubernetes-validations", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip


@pytest.mark.parametrize("kind", [definition.kind for definition in KINDS])
def test_nothing_is_in_a_schema_that_the_api_server_does_not_take(kind: str) -> None:
    for path, node in nodes(schema_of(kind)):
        assert set(node) <= TAKEN, path
        assert node["type"] in {"object", "array", "string", "integer", "number", "boolean"}, path
        assert node["type"] != "integer" or node["format"] == "int64" or path.count(".") < 1, path
        assert not ("properties" in node and "additionalProperties" in node), path
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            assert node.get(bound, True) is True, path


def test_nothing_has_a_default() -> None:
    """What is left out is the store's to choose; effective values are in the status."""
    assert [path for _, path, node in ALL if "default" in node] == []


def test_every_field_is_described() -> None:
    plain = {"", ".apiVersion", ".kind", ".metadata"}
    missing = [
        f"{kind}{path}"
        for kind, path, node in ALL
        if "description" not in node and path not in plain and not path.endswith(("[]", "{}"))
    ]
    assert missing == []
    for kind, path, node in ALL:
        assert "\n" not in node.get("description", ""), f"{kind}{path}"


def test_lists_that_a_rule_walks_and_lists_of_a_status_are_bounded() -> None:
    for kind, path, node in ALL:
        if node["type"] == "array" and path.startswith(".status"):
            assert node["maxItems"] <= 20, f"{kind}{path}"
        if node["type"] == "array" and path.startswith(".spec"):
            assert "maxItems" in node, f"{kind}{path}"


def test_nothing_keeps_unknown_fields() -> None:
    assert [path for _, path, node in ALL if node.get("x-kubernetes-preserve-unknown-fields")] == []


def test_conditions_are_a_map_by_type() -> None:
    for definition in KINDS:
        conditions = schema_of(definition.kind)["properties"]["status"]["properties"]["conditions"]
        assert conditions["x-kubernetes-list-type"] == "map"
        assert conditions["x-kubernetes-list-map-keys"] == ["type"]
        assert {"type", "status", "reason", "message", "lastTransitionTime"} == set(conditions["items"]["required"])
        assert conditions["items"]["properties"]["status"]["enum"] == ["True", "False", "Unknown"]


def test_rules_have_words() -> None:
    rules = [rule for _, _, node in ALL for rule in node.get("x-kubernetes-validations", ())]
    assert len(rules) >= 15
    assert all(set(rule) == {"rule", "message"} and rule["message"] for rule in rules)
    for kind, path, node in ALL:
        if any("oldSelf" in rule["rule"] for rule in node.get("x-kubernetes-validations", ())):
            assert path == ".spec", f"{kind}{path}: a rule on an optional field is skipped when it was absent"


# -- names and columns --
NAMES = {
    "VectorStore": ("vectorstores", "vst"),
    "EmbeddingModel": ("embeddingmodels", "vem"),
    "VectorIndex": ("vectorindexes", "vix"),
    "IngestionJob": ("ingestionjobs", "vij"),
    "APIKeyRotation": ("apikeyrotations", "akr"),
}
COLUMNS = {
    "VectorStore": "Ready Reason Provider Version Indexes Throttled Endpoint* Age",
    "EmbeddingModel": "Ready Reason Model Dim Age",
    "VectorIndex": "Ready Reason Store Model Dim Vectors Fresh Drift Metric* Index* Message* Age",
    "IngestionJob": "Phase Index Done Failed Rate ETA Tokens* LastSuccess NextRun* Age",
    "APIKeyRotation": "Ready Step Store Secret Expires Next BlockedBy* Revision* Age",
}


def test_names_are_those_of_the_conventions() -> None:
    for definition in KINDS:
        names = manifest(definition)["spec"]["names"]
        assert (names["plural"], names["shortNames"]) == (NAMES[definition.kind][0], [NAMES[definition.kind][1]])
        assert names["categories"] == ["vectorwright"]
        assert names["singular"] == definition.kind.lower()
        assert manifest(definition)["spec"]["scope"] == "Namespaced"
    assert {definition.kind for definition in KINDS} == set(NAMES)


def test_columns_are_those_of_the_conventions_and_lead_somewhere() -> None:
    for definition in KINDS:
        columns = manifest(definition)["spec"]["versions"][0]["additionalPrinterColumns"]
        shown = " ".join(column["name"] + ("*" if column.get("priority") else "") for column in columns)
        assert shown == COLUMNS[definition.kind]
        paths = {path for path, _ in nodes(schema_of(definition.kind))}
        for column in columns:
            path = column["jsonPath"]
            if path.startswith(".metadata") or "?(" in path:
                continue
            assert path in paths, f"{definition.kind}: {path}"


def test_the_status_is_a_subresource_and_the_spec_is_required() -> None:
    for definition in KINDS:
        version = manifest(definition)["spec"]["versions"][0]
        assert version["subresources"] == {"status": {}}
        assert version["schema"]["openAPIV3Schema"]["required"] == ["spec"]
        assert (version["served"], version["storage"]) == (True, True)


# -- the translation --
class Inner(BaseModel):
    """What it is."""

    kind: Literal["only"] = "only"


class Outer(BaseModel):
    number: float | None = Field(default=None, gt=0, lt=5)
    inner: Inner | None = None
    """Not described here."""
    named: dict[str, int] = Field(default_factory=dict)


class Either(BaseModel):
    value: int | str


def translated(model: type[BaseModel]) -> Node:
    schema = model.model_json_schema()
    return structural(schema, schema.get("$defs", {}))


def test_optional_values_references_and_bounds_are_translated() -> None:
    found = translated(Outer)["properties"]
    assert found["number"] == {
        "type": "number",
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 5,
        "exclusiveMaximum": True,
    }
    assert found["inner"] == {
        "type": "object",
        "description": "What it is.",
        "properties": {"kind": {"type": "string", "enum": ["only"]}},
    }
    assert found["named"] == {"type": "object", "additionalProperties": {"type": "integer", "format": "int64"}}


def test_a_union_of_types_is_refused() -> None:
    with pytest.raises(ValueError, match="a union of types has no structural schema"):
        translated(Either)


def test_every_definition_has_a_file_that_says_where_it_comes_from() -> None:
    assert set(files()) == {f"vectorwright.dev_{plural}.yaml" for plural, _ in NAMES.values()}
    for text in files().values():
        assert text.startswith("# Generated from the API models by `make crds`.")
