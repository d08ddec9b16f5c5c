"""FAISS: where indexes are, and the settings of an index."""

from __future__ import annotations

from pydantic import Field

from ..addresses import OptionalHttpUrl, StorePath
from ..common import ApiModel, exactly_one, rules


class FaissProvider(ApiModel):
    """FAISS indexes in memory and on a volume, behind `vectorwright store-server`, their single writer."""

    model_config = rules(exactly_one("server", "path", where="spec.faiss"))

    server: str | None = OptionalHttpUrl
    """Address of the store server that owns the volume."""
    path: str | None = StorePath
    """For trials: a folder below the operator's `--local-stores` directory; the operator runs its store server."""


class FaissIvf(ApiModel):
    """Settings of an inverted file (IVFFlat)."""

    lists: int | None = Field(default=None, ge=1, le=65536)
    """Number of lists. The index is built beside the traffic once it holds 39 vectors a list; a change rebuilds it
    (Costly)."""
    probes: int | None = Field(default=None, ge=1, le=65536)
    """Lists that a search without a filter looks into. A third of them, at least 8, when left out. Changed in place
    (Safe)."""


class FaissTuning(ApiModel):
    """Settings of a FAISS index. Exact search (Flat) when nothing is set."""

    ivf: FaissIvf | None = None
    """An inverted file. Exact search when left out. HNSW is not offered: FAISS cannot remove vectors from it."""
