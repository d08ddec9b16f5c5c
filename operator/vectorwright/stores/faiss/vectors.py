"""The vectors of an index inside FAISS: a flat index, or an inverted file. The only place that knows the library.

A record's vector is addressed by its slot, a small whole number that stays the same while the record lives. In a flat
index the slot is the position; in an inverted file it is the FAISS id. For cosine, FAISS compares a copy of unit
length by inner product; what was written is kept beside it where that copy differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss as _library
import numpy as np
import numpy.typing as npt

from ..base import Vectors
from .columns import Mask

faiss: Any = _library
"""Its own types do not tell what its Python layer adds."""

Slots = npt.NDArray[np.int64]
"""Shape (n,)."""

_UNIT = 1e-6
"""A vector whose length differs from one by less is compared as it is: so much is lost to float32 anyhow."""
_SLICE = 8192
_SEED = 1234
_TRAINING_POINTS = 256
"""Vectors a list that are learned from, at most: more change the centroids little (FAISS's own limit)."""


def _metric(metric: str) -> int:
    return int(faiss.METRIC_L2 if metric == "euclidean" else faiss.METRIC_INNER_PRODUCT)


def flat_header(dimension: int, metric: str, count: int) -> bytes:
    """The beginning of a FAISS file of a flat index with so many vectors, which follow as raw float32."""
    header = bytearray(faiss.serialize_index(faiss.IndexFlat(dimension, _metric(metric))).tobytes())
    header[8:16] = count.to_bytes(8, "little")
    header[-8:] = (count * dimension).to_bytes(8, "little")
    return bytes(header)


class Flat:
    """Exact search. Slots that hold nothing keep their place until the table is packed."""

    lists: int | None = None

    def __init__(self, dimension: int, metric: str) -> None:
        self._dimension = dimension
        self._index = faiss.IndexFlat(dimension, _metric(metric))

    def put(self, slots: Slots, vectors: Vectors) -> None:
        """Write vectors into slots: into those that are there, and at the end without a gap."""
        known = slots < self._index.ntotal
        if known.any():
            self._matrix()[slots[known]] = vectors[known]
        if not known.all():
            order = np.argsort(slots[~known])
            self._index.add(np.ascontiguousarray(vectors[~known][order]))

    def remove(self, slots: Slots) -> None:
        """Nothing to do: searches pass over what is not live."""

    def get(self, slots: Slots) -> Vectors:
        """The vectors of slots, shape (n, d)."""
        found: Vectors = self._matrix()[slots]
        return found

    def search(self, asked: Vectors, top_k: int, selected: Mask | None) -> tuple[Vectors, Slots]:
        """Distances or products, and slots (-1: no more)."""
        parameters = None
        if selected is not None:
            bits = np.packbits(selected, bitorder="little")
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        distances, slots = self._index.search(asked.reshape(1, -1), top_k, params=parameters)
        return distances[0], slots[0]

    def _matrix(self) -> Vectors:
        count = self._index.ntotal
        if not count:
            return np.empty((0, self._dimension), np.float32)
        flat = faiss.rev_swig_ptr(self._index.get_xb(), count * self._dimension)
        matrix: Vectors = flat.reshape(count, self._dimension)
        return matrix


class Inverted:
    """An inverted file over flat lists (IVFFlat). Removal is by id, through a table of where each id is."""

    def __init__(self, index: Any, trained_on: int) -> None:
        self._index = index
        self.trained_on = trained_on
        """Vectors that there were when its centroids were learned."""

    @property
    def lists(self) -> int:
        """Number of lists."""
        return int(self._index.nlist)

    @classmethod
    def train(cls, sample: Vectors, lists: int, metric: str, count: int) -> Inverted:
        """An empty inverted file, its centroids learned from ``sample``, shape (n, d). Takes seconds."""
        dimension = sample.shape[1]
        quantizer = faiss.IndexFlat(dimension, _metric(metric))
        index = faiss.IndexIVFFlat(quantizer, dimension, lists, _metric(metric))
        index.own_fields = True
        quantizer.this.disown()
        index.cp.seed = _SEED
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = _TRAINING_POINTS
        index.train(sample)
        return cls._addressed(index, count)

    @classmethod
    def _addressed(cls, index: Any, trained_on: int) -> Inverted:
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        return cls(index, trained_on)

    @classmethod
    def decode(cls, data: bytes | memoryview, trained_on: int) -> Inverted:
        """The empty inverted file that :meth:`encode` wrote. Raises ValueError where it is none."""
        try:
            index = faiss.deserialize_index(np.frombuffer(data, np.uint8).copy())
        except RuntimeError:
            raise ValueError("not a FAISS index") from None
        if not isinstance(index, faiss.IndexIVFFlat) or index.ntotal:
            raise ValueError("not an empty inverted file")
        return cls._addressed(index, trained_on)

    def encode(self) -> bytes:
        """The inverted file without its vectors, as a FAISS file."""
        empty = faiss.IndexIVFFlat(self._index.quantizer, self._index.d, self._index.nlist, self._index.metric_type)
        empty.is_trained = True
        data: bytes = faiss.serialize_index(empty).tobytes()
        return data

    def put(self, slots: Slots, vectors: Vectors) -> None:
        """Write vectors into slots."""
        self.remove(slots)
        self._index.add_with_ids(np.ascontiguousarray(vectors), slots)

    def remove(self, slots: Slots) -> None:
        """Forget slots; those that hold nothing are fine."""
        if not len(slots):
            return
        ids = np.ascontiguousarray(slots, np.int64)
        self._index.remove_ids(faiss.IDSelectorArray(len(ids), faiss.swig_ptr(ids)))

    def get(self, slots: Slots) -> Vectors:
        """The vectors of slots, shape (n, d)."""
        if not len(slots):
            return np.empty((0, self._index.d), np.float32)
        found: Vectors = self._index.reconstruct_batch(np.ascontiguousarray(slots, np.int64))
        return found

    def search(self, asked: Vectors, top_k: int, selected: Mask | None, probes: int) -> tuple[Vectors, Slots]:
        """As in a flat index, looking into so many lists."""
        parameters = faiss.SearchParametersIVF(nprobe=probes)
        if selected is not None:
            parameters = faiss.SearchParametersIVF(
                nprobe=probes, sel=faiss.IDSelectorBitmap(np.packbits(selected, bitorder="little"))
            )
        distances, slots = self._index.search(asked.reshape(1, -1), top_k, params=parameters)
        return distances[0], slots[0]


class VectorTable:
    """The vectors of an index by slot, as they were written, and the search for the nearest."""

    def __init__(self, dimension: int, metric: str) -> None:
        self.dimension = dimension
        self.metric = metric
        self.index: Flat | Inverted = Flat(dimension, metric)
        self._written: dict[int, Vectors] = {}
        """For cosine: what was written, where the copy that is compared has another length."""

    def put(self, slots: Slots, vectors: Vectors) -> None:
        """Write vectors, shape (n, d), into distinct slots, new ones without a gap."""
        if self.metric == "cosine":
            vectors = self._normalised(slots, vectors)
        self.index.put(slots, vectors)

    def _normalised(self, slots: Slots, vectors: Vectors) -> Vectors:
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        other = np.abs(lengths - 1) > _UNIT
        for slot in slots.tolist():
            self._written.pop(slot, None)
        if not other.any():
            return vectors
        compared = vectors.copy()
        compared[other] = vectors[other] / lengths[other, None]
        for at in np.flatnonzero(other).tolist():
            self._written[int(slots[at])] = vectors[at].copy()
        return compared

    def remove(self, slots: Slots) -> None:
        """Forget slots."""
        self.index.remove(slots)
        for slot in slots.tolist():
            self._written.pop(slot, None)

    def get(self, slots: Slots) -> Vectors:
        """Vectors as they were written, shape (n, d)."""
        found = self.index.get(slots)
        if self._written:
            for at, slot in enumerate(slots.tolist()):
                written = self._written.get(slot)
                if written is not None:
                    found[at] = written
        return found

    def search(
        self, asked: Vectors, top_k: int, selected: Mask | None, probes: Callable[[int], int], available: int
    ) -> list[tuple[int, float]]:
        """Slots and scores of the nearest, nearest first; ``selected`` None means all slots.

        ``available`` is how many there are to find; ``probes(lists)`` how many lists to look into. With a selection
        every list is looked into, so that its last member is found.
        """
        if self.metric == "cosine":
            asked = np.asarray(asked / np.linalg.norm(asked.astype(np.float64)), np.float32)
        top_k = min(top_k, available)
        if not top_k:
            return []
        if isinstance(self.index, Flat):
            values, slots = self.index.search(asked, top_k, selected)
        else:
            lists = self.index.lists
            values, slots = self.index.search(asked, top_k, selected, lists if selected is not None else probes(lists))
            if selected is None and (slots < 0).any():
                values, slots = self.index.search(asked, top_k, selected, lists)
        found = slots >= 0
        scores = -np.sqrt(np.maximum(values, 0)) if self.metric == "euclidean" else values
        return list(zip(slots[found].tolist(), scores[found].tolist(), strict=True))

    def sample(self, slots: Slots, lists: int) -> Vectors:
        """Vectors, as they are compared, to learn the centroids of so many lists from: some of these slots."""
        drawn = np.random.default_rng(_SEED).permutation(slots)[: lists * _TRAINING_POINTS]
        return np.ascontiguousarray(self.index.get(np.sort(drawn)))

    def copy_into(self, other: Flat | Inverted, slots: Slots) -> None:
        """Put the vectors of slots, as they are compared, into another index."""
        for start in range(0, len(slots), _SLICE):
            part = slots[start : start + _SLICE]
            other.put(part, self.index.get(part))

    def pack(self, slots: Slots) -> None:
        """Renumber: the vector of ``slots[i]`` gets slot i, and nothing else is kept. Makes a flat index."""
        packed = Flat(self.dimension, self.metric)
        for start in range(0, len(slots), _SLICE):
            part = slots[start : start + _SLICE]
            packed.put(np.arange(start, start + len(part)), self.index.get(part))
        self.index = packed
        self._written = {new: self._written[old] for new, old in enumerate(slots.tolist()) if old in self._written}

    @property
    def nbytes(self) -> int:
        """Bytes that the kept originals take beside the index itself."""
        return len(self._written) * (4 * self.dimension + 200)
