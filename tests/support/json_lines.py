"""Jobs whose documents are lines of JSON that bring their vectors: no model and no server, and every record known."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


def json_lines_job(lines: Iterable[object], index: str = "index", **spec: Any) -> dict[str, Any]:
    """The spec of a job that runs in the operator. A line that is a string already is written as it is.

    ``spec`` adds to it, or says something else.
    """
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return {
        "indexRef": {"name": index},
        "source": {"inline": {"documents": [{"id": "records.jsonl", "text": text}]}},
        "parse": {"type": "jsonLines", "idField": "id", "textFields": ["text"]},
        "embedding": {"precomputed": {"field": "vector"}},
        "runner": {"type": "InProcess"},
        **spec,
    }
