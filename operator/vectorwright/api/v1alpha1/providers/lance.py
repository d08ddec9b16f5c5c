"""Lance: where tables are, and the settings of a table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..addresses import OptionalHttpUrl, StorePath
from ..common import ApiModel, exactly_one, rules


class LanceProvider(ApiModel):
    """Lance tables on a volume, behind `vectorwright store-server`, their single writer."""

    model_config = rules(exactly_one("server", "path", where="spec.lance"))

    server: str | None = OptionalHttpUrl
    """Address of the store server that owns the volume."""
    path: str | None = StorePath
    """For trials: a folder below the operator's `--local-stores` directory; the operator runs its store server."""


class LanceTuning(ApiModel):
    """Settings of a Lance table."""

    index_type: Literal["none", "ivfPq", "ivfHnswSq"] | None = None
    """Vector index. Exact search (`none`) when left out. A change rebuilds the index (Costly)."""
    num_partitions: int | None = Field(default=None, ge=1, le=65536)
    """Partitions of the vector index. A change rebuilds the index (Costly)."""
