"""What a Lance table can do and be told: known without loading the Lance library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vectorwright.errors import Terminal

from ..base import Capabilities, ChangeClass, Setting
from ..server_checks import check_settings

INDEX_TYPE = "index_type"
NUM_PARTITIONS = "num_partitions"
COMPACT_AFTER = "compaction.min_commits"
VERSIONS_KEEP = "versions.keep_seconds"
INDEX_STATE = "index_state"
"""Told in descriptions, never set: ``exact`` or ``built``, and what an index that was asked for waits for."""

EXACT, IVF_PQ, IVF_HNSW_SQ = "none", "ivfPq", "ivfHnswSq"
INDEX_TYPES = (EXACT, IVF_PQ, IVF_HNSW_SQ)
MAX_PARTITIONS = 65_536

COMMITS_RANGE = (8, 512)
KEEP_VERSIONS_SECONDS = 3600
"""Seconds that an old version of a table in a bucket is kept for those who still read it."""
KEEP_RANGE = (300, 30 * 86_400)

MIN_INDEXED_ROWS = 10_000
"""Rows below which no vector index is built: exact search of as many takes milliseconds, and the quantiser needs
thousands of vectors to learn from."""

LANCE_CAPABILITIES = Capabilities(
    metrics=frozenset({"cosine", "dotproduct", "euclidean"}),
    max_dimension=65_535,
    name_pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
    mutable_settings={INDEX_TYPE: ChangeClass.COSTLY, NUM_PARTITIONS: ChangeClass.COSTLY},
    list_metadata=True,
    counts_in_listing=True,
    filtered_count=True,
    exact_search=True,
)

BUCKET_CAPABILITIES = replace(
    LANCE_CAPABILITIES,
    mutable_settings={
        **LANCE_CAPABILITIES.mutable_settings,
        COMPACT_AFTER: ChangeClass.SAFE,
        VERSIONS_KEEP: ChangeClass.SAFE,
    },
)
"""A table in a bucket: the same, and what its writers do beside writing."""


def check_bucket_settings(settings: Mapping[str, Setting]) -> None:
    """The same for a table in a bucket."""
    check_settings(settings, BUCKET_CAPABILITIES.mutable_settings)
    for name, (least, most) in ((COMPACT_AFTER, COMMITS_RANGE), (VERSIONS_KEEP, KEEP_RANGE)):
        value = settings.get(name, least)
        if type(value) is not int or not least <= value <= most:
            raise Terminal(
                f"setting {name}: {str(value)[:100]} is not a whole number from {least} to {most}",
                reason="InvalidSetting",
            )
    check_lance_settings({key: value for key, value in settings.items() if key not in (COMPACT_AFTER, VERSIONS_KEEP)})


def check_lance_settings(settings: Mapping[str, Setting]) -> None:
    """Raise Terminal (``UnsupportedSetting``, ``InvalidSetting``) where a setting is unknown or has a wrong value."""
    check_settings(settings, LANCE_CAPABILITIES.mutable_settings)
    index_type = settings.get(INDEX_TYPE, EXACT)
    if index_type not in INDEX_TYPES:
        raise Terminal(
            f"setting {INDEX_TYPE}: {str(index_type)[:100]!r} is not one of {', '.join(INDEX_TYPES)}",
            reason="InvalidSetting",
        )
    partitions = settings.get(NUM_PARTITIONS, 1)
    if type(partitions) is not int or not 1 <= partitions <= MAX_PARTITIONS:
        raise Terminal(
            f"setting {NUM_PARTITIONS}: {str(partitions)[:100]} is not a whole number from 1 to {MAX_PARTITIONS}",
            reason="InvalidSetting",
        )


def sub_vectors(dimension: int) -> int:
    """Pieces into which product quantisation cuts a vector of this dimension: the most that divide it, at 16 numbers or
    more a piece (the library's own default), or at 4 or more where no such cut exists."""
    for smallest in (16, 8, 4):
        pieces = next((dimension // size for size in range(smallest, smallest * 2) if dimension % size == 0), None)
        if pieces:
            return pieces
    return 1
