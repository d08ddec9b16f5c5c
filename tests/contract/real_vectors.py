"""Vectors of real text: sentences of the standard library's documentation, embedded by a model that a wheel brings."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from vectorwright.stores.base import Vectors

STORED, ASKED, DIMENSION = 10_000, 100, 128
_LEAST, _MOST = 40, 300
"""Characters of a sentence."""


def _sentences() -> Iterator[str]:
    """Distinct sentences of docstrings, in an order that a Python version fixes."""
    seen = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts or "tests" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except SyntaxError:  # files that are made to be none
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", ast.get_docstring(node) or ""):
                    text = " ".join(sentence.split())
                    if _LEAST <= len(text) <= _MOST and text not in seen:
                        seen.add(text)
                        yield text


@cache
def real_vectors() -> tuple[Vectors, Vectors]:
    """(stored, asked), of shapes (10000, 128) and (100, 128) and unit length; what is asked is not among the stored."""
    import wordllama

    texts = [text for text, _ in zip(_sentences(), range(STORED + ASKED), strict=False)]
    if len(texts) < STORED + ASKED:
        raise AssertionError(f"the standard library has only {len(texts)} sentences")
    model = wordllama.WordLlama.load(
        cache_dir=Path(wordllama.__file__).parent, trunc_dim=DIMENSION, disable_download=True
    )
    found = np.asarray(model.embed(texts), np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    # Every hundredth is asked for, so that the questions are of all modules.
    asked = np.arange(len(found)) % (len(found) // ASKED) == 0
    asked &= np.cumsum(asked) <= ASKED
    return np.ascontiguousarray(found[~asked]), np.ascontiguousarray(found[asked])
