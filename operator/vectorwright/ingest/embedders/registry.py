"""Which module turns text into vectors, how an embedder is opened, and what a model is found to be.

A local model is never loaded in the process that asks about it: its weights and libraries would stay in the operator's
memory. A child of the worker command answers instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import orjson

from vectorwright.api.v1alpha1.embeddingmodel import EmbeddingModelSpec
from vectorwright.errors import Terminal
from vectorwright.ingest.contracts import Embedder

DEFAULT_BATCH = 64
"""Texts in one call."""
PROBE_TEXT = "The quick brown fox jumps over the lazy dog."
"""What a probe embeds: a handful of tokens that no model refuses."""


@dataclass(frozen=True, slots=True)
class EmbedderInfo:
    """What a probe finds."""

    dimension: int
    """Dimension of the vectors that really came."""
    revision: str | None
    """The spec's revision; for a local model its package's version and a hash of its weights."""
    normalized: bool
    """Whether vectors are scaled to length 1 before they are stored or searched."""
    fingerprint: str
    """Identity of the vectors, as :func:`fingerprint` makes it."""
    model: str
    """Name of the model."""


def fingerprint(spec: EmbeddingModelSpec, resolved_revision: str | None, normalized: bool) -> str:
    """Identity of the vectors that a model makes: 16 hex digits, needing no library of any model.

    It depends on the kind of embedder, the model, its revision, the dimensions asked for and normalisation; not on the
    address: one model behind two addresses makes the same vectors.
    """
    if spec.open_ai is not None:
        identity: dict[str, object] = {
            "kind": "openAI",
            "model": spec.open_ai.model,
            "dimensions": spec.open_ai.dimensions,
        }
    elif spec.local is not None:
        identity = {"kind": "local", "model": spec.local.model}
    else:
        raise Terminal("the embedding model names no embedder: set openAI or local", reason="InvalidSpec")
    identity |= {"revision": resolved_revision, "normalized": normalized}
    return sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def model_name(spec: EmbeddingModelSpec) -> str:
    """The name of the model."""
    chosen = spec.open_ai or spec.local
    if chosen is None:
        raise Terminal("the embedding model names no embedder: set openAI or local", reason="InvalidSpec")
    return chosen.model


def open_embedder(spec: EmbeddingModelSpec, *, token: str | None, ca: str | None) -> Embedder:
    """Open an embedder. No request is made and no weights are read yet.

    ``ca`` is a PEM bundle that replaces the system's authorities. Raises Terminal (``MissingExtra``, ``InvalidSpec``).
    """
    if spec.open_ai is not None:
        from .openai import OpenAIEmbedder  # noqa: PLC0415 - only the embedder that is used is loaded

        return OpenAIEmbedder(spec, token=token, ca=ca)
    if spec.local is not None:
        from .local import LocalEmbedder  # noqa: PLC0415

        return LocalEmbedder(normalize=bool(spec.normalize))
    raise Terminal("the embedding model names no embedder: set openAI or local", reason="InvalidSpec")


def resolved_revision(spec: EmbeddingModelSpec) -> str | None:
    """The revision in effect. For a local model its files are read: not for the operator's process."""
    if spec.local is not None:
        from .local import revision  # noqa: PLC0415

        found = revision()
        return f"{spec.revision}+{found}" if spec.revision else found
    return spec.revision


async def probe_here(spec: EmbeddingModelSpec, *, token: str | None, ca: str | None) -> EmbedderInfo:
    """Embed one text in this process and tell what came. Raises Terminal, Retryable."""
    embedder = open_embedder(spec, token=token, ca=ca)
    try:
        answer = await embedder.embed([PROBE_TEXT])
    finally:
        await embedder.close()
    dimension = int(answer.vectors.shape[1])
    check_dimension(spec, dimension)
    revision, normalized = resolved_revision(spec), bool(spec.normalize)
    return EmbedderInfo(dimension, revision, normalized, fingerprint(spec, revision, normalized), model_name(spec))


def check_dimension(spec: EmbeddingModelSpec, dimension: int) -> None:
    """Raise Terminal (``DimensionMismatch``) where a model answers in another dimension than the spec says."""
    asked = spec.open_ai.dimensions if spec.open_ai is not None else None
    for field, expected in (("dimension", spec.dimension), ("openAI.dimensions", asked)):
        if expected is not None and expected != dimension:
            raise Terminal(
                f"model {model_name(spec)} returned vectors of dimension {dimension}, but {field} says {expected}: "
                f"correct {field}, or choose a model that has this dimension",
                reason="DimensionMismatch",
            )


async def probe_embedder(spec: EmbeddingModelSpec, *, token: str | None, ca: str | None) -> EmbedderInfo:
    """Ask a model for one embedding: an endpoint directly, a local model in a child. Raises Terminal, Retryable."""
    if spec.local is not None:
        from .probe import probe_local  # noqa: PLC0415

        return await probe_local(spec)
    return await probe_here(spec, token=token, ca=ca)
