"""Clauses of the filter languages that say ``$and`` and ``$or`` (Chroma, Pinecone), joined and cut short."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Clause = dict[str, Any]
"""A clause as it is sent."""
Translated = Clause | bool
"""A clause, or the constant that a filter comes to."""


def all_of(clauses: Iterable[Translated]) -> Translated:
    """What is true where all clauses are; True where there are none."""
    return _joined(clauses, "$and", neutral=True)


def any_of(clauses: Iterable[Translated]) -> Translated:
    """What is true where one clause is; False where there are none."""
    return _joined(clauses, "$or", neutral=False)


def _joined(clauses: Iterable[Translated], operator: str, *, neutral: bool) -> Translated:
    parts: list[Clause] = []
    for clause in clauses:
        if isinstance(clause, bool):
            if clause is not neutral:
                return clause
        elif operator in clause:
            parts.extend(clause[operator])  # a flat clause keeps the depth that servers limit
        else:
            parts.append(clause)
    if not parts:
        return neutral
    return parts[0] if len(parts) == 1 else {operator: parts}
