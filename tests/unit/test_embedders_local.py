"""The local model: same vectors as its library's, little memory for long texts, probed in a child."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from vectorwright.api.v1alpha1.embeddingmodel import EmbeddingModelSpec
from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.embedders.local import LocalEmbedder, revision
from vectorwright.ingest.embedders.probe import parse_answer, probe_local
from vectorwright.ingest.embedders.registry import fingerprint, probe_embedder

SPEC = EmbeddingModelSpec.model_validate({"local": {"model": "wordllama"}})


async def test_vectors_are_those_of_the_library() -> None:
    import wordllama

    library = wordllama.WordLlama.load(disable_download=True, cache_dir=Path(wordllama.__file__).parent)
    texts = ["hello world", "a longer sentence about vector indexes in Kubernetes", "日本語 text"]
    embedder = LocalEmbedder(normalize=False)
    answer = await embedder.embed(texts)
    assert answer.vectors.shape == (3, 256)
    assert answer.vectors == pytest.approx(library.embed(texts), abs=1e-5)
    assert answer.tokens == sum(len(library.tokenize(text)[0].ids) for text in texts)
    normal = LocalEmbedder(normalize=True)
    assert np.linalg.norm((await normal.embed(texts)).vectors, axis=1) == pytest.approx(1.0)
    await embedder.close()
    await normal.close()


async def test_a_vector_does_not_depend_on_its_batch() -> None:
    embedder = LocalEmbedder(normalize=False)
    together = (await embedder.embed(["short", "long " * 5000, ""])).vectors
    assert together[0] == pytest.approx((await embedder.embed(["short"])).vectors[0])
    assert not together[2].any()
    await embedder.close()


async def test_a_huge_text_takes_little_memory() -> None:
    embedder = LocalEmbedder(normalize=False)
    await embedder.embed(["warm up"])
    tracemalloc.start()
    await embedder.embed(["lorem ipsum dolor " * 30_000, *["x"] * 63])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await embedder.close()
    assert peak < 64 * 2**20


async def test_a_probe_happens_in_a_child_and_agrees_with_what_workers_compute() -> None:
    loaded = "wordllama" in sys.modules
    info = await probe_embedder(SPEC, token=None, ca=None)
    assert ("wordllama" in sys.modules) is loaded
    assert (info.dimension, info.model, info.normalized) == (256, "wordllama", False)
    assert info.revision == revision()
    assert info.fingerprint == fingerprint(SPEC, revision(), normalized=False)


async def test_a_probe_has_a_time_limit() -> None:
    with pytest.raises(Retryable) as error:
        await probe_local(SPEC, timeout=0.01)
    assert error.value.reason == "ProbeFailed"


async def test_a_probe_checks_the_dimension_that_the_spec_says() -> None:
    with pytest.raises(Terminal) as error:
        await probe_local(SPEC.model_copy(update={"dimension": 100}))
    assert error.value.reason == "DimensionMismatch"


def test_what_the_child_says() -> None:
    with pytest.raises(Retryable, match="code -9"):
        parse_answer(b"", -9)
    with pytest.raises(Retryable):
        parse_answer(b'{"dimension": 3}', 0)
    with pytest.raises(Retryable):
        parse_answer(b"[]", 0)
    with pytest.raises(Terminal):
        parse_answer(b'{"error": "no", "reason": "MissingExtra", "terminal": true}', 0)
