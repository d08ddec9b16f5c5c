"""Whether records of one index can be copied to another: the same vector space, or nothing."""

from __future__ import annotations

from dataclasses import dataclass

from vectorwright.errors import Conflict, Terminal


@dataclass(frozen=True, slots=True)
class Space:
    """What vectors are. None: not known."""

    name: str
    """Of what, for messages: ``VectorIndex docs``."""
    dimension: int | None
    metric: str | None
    model_fingerprint: str | None


def check_fit(source: Space, target: Space) -> None:
    """Raise Terminal (``WrongDimension``, ``WrongMetric``) or Conflict (``ModelMismatch``) where they differ."""
    if None not in (source.dimension, target.dimension) and source.dimension != target.dimension:
        raise Terminal(
            f"{source.name} has dimension {source.dimension}, and {target.name} has {target.dimension}: vectors are "
            f"copied as they are. Make an index of dimension {source.dimension}",
            reason="WrongDimension",
        )
    if None not in (source.metric, target.metric) and source.metric != target.metric:
        raise Terminal(
            f"{source.name} compares by {source.metric}, and {target.name} by {target.metric}: the same vectors would "
            f"be ranked otherwise (cosine and dotproduct agree for vectors of length 1 only). Make an index with "
            f"metric {source.metric}",
            reason="WrongMetric",
        )
    if None not in (source.model_fingerprint, target.model_fingerprint) and (
        source.model_fingerprint != target.model_fingerprint
    ):
        raise Conflict(
            f"{source.name} holds vectors of another embedding model (fingerprint {source.model_fingerprint}) than "
            f"{target.name} (fingerprint {target.model_fingerprint}): vectors of two models cannot be compared. Make "
            "an index with the same model, or ingest the documents anew",
            reason="ModelMismatch",
        )
