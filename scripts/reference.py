"""Write docs/reference.md from the committed resource definitions, or check that it is theirs (``--check``)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "reference.md"
KINDS = ("vectorstores", "embeddingmodels", "vectorindexes", "ingestionjobs")
"""Resources in the order of the page; those of a kind that is not listed here come after them."""

Schema = dict[str, Any]

_HEAD = """\
# Reference

Every field of every kind, generated from the resource definitions in `crds/` by `scripts/reference.py`. `kubectl
explain` tells the same. The API fills in no defaults: what is used when a field is left out is said with the field.
"""


def definitions() -> list[Schema]:
    """The resource definitions, in the order of the page."""
    found = [yaml.safe_load(path.read_text()) for path in sorted((CHECKOUT / "crds").glob("*.yaml"))]
    return sorted(found, key=lambda item: [item["spec"]["names"]["plural"] != name for name in KINDS])


def page() -> str:
    """The whole page."""
    kinds = definitions()
    contents = "\n".join(f"- [{_name(item)}](#{_name(item).lower()})" for item in kinds)
    return "\n".join([_HEAD, contents, "", *(line for item in kinds for line in _kind(item))])


def _name(definition: Schema) -> str:
    return str(definition["spec"]["names"]["kind"])


def _kind(definition: Schema) -> Iterator[str]:
    names = definition["spec"]["names"]
    (version,) = definition["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    yield f"## {names['kind']}"
    yield ""
    yield _text(schema.get("description", ""))
    yield ""
    short = ", ".join(f"`{name}`" for name in names.get("shortNames", ()))
    yield f"`apiVersion: {definition['spec']['group']}/{version['name']}`, short name {short}, namespaced."
    yield ""
    columns = version.get("additionalPrinterColumns", ())
    shown = ", ".join(column["name"] for column in columns if not column.get("priority"))
    wide = ", ".join(column["name"] for column in columns if column.get("priority"))
    yield f"Columns of `kubectl get`: {shown}{f'; with `-o wide` also {wide}' if wide else ''}."
    for part in ("spec", "status"):
        block = schema["properties"][part]
        yield ""
        yield f"### {names['kind']} {part}"
        yield ""
        yield _text(block.get("description", ""))
        yield ""
        rules = _rules(block)
        if rules:
            yield "The API server refuses what breaks one of these rules:"
            yield ""
            yield from (f"- {rule}" for rule in rules)
            yield ""
        yield "| Field | Type | Meaning |"
        yield "|---|---|---|"
        yield from _rows(block, "")
    yield ""


def _rules(schema: Schema) -> list[str]:
    """The messages of all rules of a schema and below it, without repetition."""
    seen = [_text(rule["message"]) for rule in schema.get("x-kubernetes-validations", ())]
    for child in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
        seen += [message for message in _rules(child) if message not in seen]
    return seen


def _rows(schema: Schema, prefix: str) -> Iterator[str]:
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        mark = " **(required)**" if name in required else ""
        yield f"| `{path}` | {_type(field)} | {_text(field.get('description', ''))}{mark} |"
        yield from _rows(field, f"{path}.")
        if "items" in field:
            yield from _rows(field["items"], f"{path}[].")


def _type(field: Schema) -> str:
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(field['items'])}{_bounds(field, 'maxItems', 'at most {} items')}"
    if kind == "object" and "additionalProperties" in field:
        return f"map of {_type(field['additionalProperties'])}"
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if field.get("format") == "date-time":
        return "time"
    bounds = [f"{word} {field[key]}" for key, word in (("minimum", "≥"), ("maximum", "≤")) if key in field]
    if field.get("exclusiveMinimum"):
        bounds[:1] = [f"> {field.get('minimum')}"]
    return kind + (f", {', '.join(bounds)}" if bounds else "") + _bounds(field, "maxLength", "at most {} characters")


def _bounds(field: Schema, key: str, text: str) -> str:
    return f", {text.format(field[key])}" if key in field else ""


def _text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Exit status: 1 when ``--check`` finds a difference, 2 for other arguments."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m scripts.reference [--check]", file=sys.stderr)
        return 2
    wanted = page()
    if arguments:
        if PAGE.exists() and PAGE.read_text() == wanted:
            return 0
        print(f"{PAGE.relative_to(CHECKOUT)} differs from crds/: run python -m scripts.reference", file=sys.stderr)
        return 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
