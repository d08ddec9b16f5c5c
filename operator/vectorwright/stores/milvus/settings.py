"""Tuning settings as parameters of Milvus: which index, how it is built, how it is searched, how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vectorwright.errors import Terminal

from ..base import ChangeClass, Setting

AUTOINDEX = "AUTOINDEX"
_BUILD: Mapping[str, tuple[str, str]] = {
    "hnsw.m": ("hnsw", "M"),
    "hnsw.ef_construction": ("hnsw", "efConstruction"),
    "ivf.nlist": ("ivf", "nlist"),
    "ivf.m": ("ivf", "m"),
    "ivf.nbits": ("ivf", "nbits"),
    "scann.nlist": ("scann", "nlist"),
    "scann.with_raw_data": ("scann", "with_raw_data"),
}
"""Setting → its block and Milvus' parameter of the index."""
_SEARCH: Mapping[str, tuple[str, str]] = {
    "autoindex.level": ("autoindex", "level"),
    "hnsw.ef": ("hnsw", "ef"),
    "ivf.nprobe": ("ivf", "nprobe"),
    "scann.nprobe": ("scann", "nprobe"),
    "scann.reorder_k": ("scann", "reorder_k"),
    "diskann.search_list": ("diskann", "search_list"),
}
"""Setting → its block and Milvus' parameter of a search."""
_BLOCKS: Mapping[str, str] = {
    AUTOINDEX: "autoindex",
    "FLAT": "flat",
    "HNSW": "hnsw",
    "IVF_FLAT": "ivf",
    "IVF_SQ8": "ivf",
    "IVF_PQ": "ivf",
    "SCANN": "scann",
    "DISKANN": "diskann",
}
"""Type of index → the block that tunes it."""
_DEFAULT_TYPES = {"autoindex": AUTOINDEX, "hnsw": "HNSW", "ivf": "IVF_FLAT", "scann": "SCANN", "diskann": "DISKANN"}
"""What a block means where no type is named."""
CONSISTENCY_LEVELS = ("Strong", "Session", "Bounded", "Eventually")
"""In the order of Milvus' numbers, from 0."""
_LOADING = ("replicas", "mmap")
_FIXED = ("consistency_level", "shards")
_BOUNDS: Mapping[str, tuple[int, int]] = {
    "hnsw.m": (2, 2048),
    "hnsw.ef_construction": (1, 2**31 - 1),
    "hnsw.ef": (1, 2**31 - 1),
    "ivf.nlist": (1, 65_536),
    "ivf.m": (1, 65_536),
    "ivf.nbits": (1, 64),
    "ivf.nprobe": (1, 65_536),
    "scann.nlist": (1, 65_536),
    "scann.nprobe": (1, 65_536),
    "scann.reorder_k": (1, 2**31 - 1),
    "diskann.search_list": (1, 65_535),
    "autoindex.level": (1, 10),
    "replicas": (1, 1024),
    "shards": (1, 64),
}
"""Milvus' documented bounds of its parameters."""

KNOWN_SETTINGS = frozenset({"index_type", *_BUILD, *_SEARCH, *_LOADING, *_FIXED})
MUTABLE: Mapping[str, ChangeClass] = (
    # A search carries them: nothing is rebuilt.
    dict.fromkeys(_SEARCH, ChangeClass.SAFE)
    # Milvus drops an index, and changes how a collection is loaded, only while it is released: nobody can search then.
    | dict.fromkeys(("index_type", *_BUILD, *_LOADING), ChangeClass.DISRUPTIVE)
    | {"metadata_fields": ChangeClass.SAFE}
)


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """How vectors are indexed: Milvus' own words."""

    type: str = AUTOINDEX
    params: Mapping[str, Setting] = field(default_factory=dict)

    def settings(self) -> dict[str, Setting]:
        """The same as settings of ours, those that we have a name for."""
        block = _BLOCKS.get(self.type)
        named = {
            setting: self.params[name] for setting, (of, name) in _BUILD.items() if of == block and name in self.params
        }
        return {"index_type": self.type, **named}


def check_values(settings: Mapping[str, Setting]) -> None:
    """Raise Terminal (``InvalidSetting``) where a value cannot be right. Names are known already."""
    for name, value in settings.items():
        expected: str | None = None
        if name in _BOUNDS:
            low, high = _BOUNDS[name]
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                expected = f"a whole number from {low} to {high}"
        elif name == "index_type" and value not in _BLOCKS:
            expected = f"one of {', '.join(_BLOCKS)}"
        elif name == "consistency_level" and value not in CONSISTENCY_LEVELS:
            expected = f"one of {', '.join(CONSISTENCY_LEVELS)}"
        elif name in {"mmap", "scann.with_raw_data"} and not isinstance(value, bool):
            expected = "true or false"
        if expected is not None:
            raise Terminal(f"setting {name!r} is {str(value)[:100]!r}: it must be {expected}", reason="InvalidSetting")


def vector_index(settings: Mapping[str, Setting], present: VectorIndex | None = None) -> VectorIndex:
    """The index that settings ask for, on top of one that is there.

    The type follows from the blocks where it is not named; a block of another type than the one named, or than the one
    that is there, is refused: Terminal (``InvalidSetting``). So nothing is set that has no effect.
    """
    named = settings.get("index_type")
    blocks = sorted(
        {block for name in settings for block, _ in (_BUILD.get(name) or _SEARCH.get(name, ("", "")),)} - {""}
    )
    if len(blocks) > 1:
        raise Terminal(
            f"settings of {' and '.join(blocks)} are for different types of index: keep one", reason="InvalidSetting"
        )
    builds = any(name in _BUILD for name in settings)
    if named is not None:
        kind = str(named)
    elif blocks and (present is None or (builds and _BLOCKS.get(present.type) != blocks[0])):
        kind = _DEFAULT_TYPES[blocks[0]]
    else:
        kind = present.type if present else AUTOINDEX
    if blocks and _BLOCKS.get(kind) != blocks[0]:
        raise Terminal(
            f"settings of {blocks[0]} have no effect on an index of type {kind}: set index_type, or leave them out",
            reason="InvalidSetting",
        )
    kept = dict(present.params) if present is not None and present.type == kind else {}
    asked = {_BUILD[name][1]: value for name, value in settings.items() if name in _BUILD}
    return VectorIndex(kind, kept | asked)


def search_params(index_type: str, settings: Mapping[str, Setting], top_k: int) -> dict[str, Setting]:
    """Parameters of a search: what was set, where it fits the index that is there, and enough candidates for ``top_k``.

    Milvus refuses an HNSW search with ``ef`` below the number asked for, so it is never less.
    """
    block = _BLOCKS.get(index_type)
    found = {name: settings[setting] for setting, (of, name) in _SEARCH.items() if of == block and setting in settings}
    for least in ("ef", "search_list", "reorder_k"):
        if least in found:
            found[least] = max(int(found[least]), top_k)
    return found


def recorded(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Settings that the server has no place for, or does not tell back: they are kept as a property."""
    return {name: value for name, value in settings.items() if name in {*_SEARCH, *_LOADING, *_FIXED}}


def check_update(settings: Mapping[str, Setting]) -> None:
    """Raise Terminal (``ImmutableSetting``) where a setting is fixed at creation."""
    for name in settings:
        if name in _FIXED:
            raise Terminal(
                f"setting {name!r} of Milvus is fixed when an index is made: make another index",
                reason="ImmutableSetting",
            )
