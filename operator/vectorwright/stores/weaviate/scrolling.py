"""All records of a collection, in pages that hold each once, whatever is deleted meanwhile.

Without a filter Weaviate's cursor goes through the ids. It takes no filter, and pages by offset end at 10,000 and slip
when records are deleted. So a filtered scroll divides the ids: a range of ids is asked for one more than a page holds;
where there are more, the range is cut at ids that were seen, into about as many parts as pages are needed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from ..base import Record
from .filters import ID, Clause, Translated, joined

FIRST = "00000000-0000-0000-0000-000000000000"
"""Sorts before all ids that records have."""
MOST_PARTS = 64
PART_RECORDS = 1_000
"""Records that a part of a filtered scroll should hold at least, where pages are smaller than that."""

Search = Callable[..., Awaitable[list[Record]]]
"""``search(limit, after=…)`` or ``search(limit, clause=…)``."""


async def scroll_all(search: Search, page: int) -> AsyncGenerator[list[Record], None]:
    """Everything, in the order of ids."""
    after = FIRST
    while records := await search(limit=page, after=after):
        after = records[-1].id
        yield records


async def scroll_matching(
    search: Search,
    count: Callable[[Any], Awaitable[int]],
    narrowed: Callable[[Translated], Translated],
    page: int,
) -> AsyncGenerator[list[Record], None]:
    """What matches. ``narrowed`` adds a clause to the filter; ``count`` tells how many records match one."""
    most = min(max(page, PART_RECORDS), 9_999)
    ranges: list[tuple[str | None, str | None]] = [(None, None)]
    while ranges:
        first, end = ranges.pop()
        clause = narrowed(_between(first, end))
        records = await search(limit=most + 1, clause=clause)
        if len(records) <= most:
            for start in range(0, len(records), page):
                yield records[start : start + page]
            continue
        cuts = _cuts(sorted(record.id for record in records), await count(clause), most)
        ranges += zip((first, *cuts), (*cuts, end), strict=True)


def _between(first: str | None, end: str | None) -> Translated:
    """Ids from ``first`` on, before ``end``."""
    bounds: list[Clause] = []
    if first is not None:
        bounds.append(("gte", ID, (first,)))
    if end is not None:
        bounds.append(("lt", ID, (end,)))
    return joined("and", bounds)


def _cuts(seen: list[str], total: int, most: int) -> list[str]:
    """Ids to cut a range at, some of those that were seen in it (sorted, two at least), so that each part has fewer."""
    parts = max(2, min(MOST_PARTS, len(seen), -(-3 * total // (2 * most))))
    return [seen[len(seen) * part // parts] for part in range(1, parts)]
