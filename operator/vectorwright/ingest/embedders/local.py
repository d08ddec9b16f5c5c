"""The model whose weights come with the image: static embeddings, the mean of the vectors of a text's tokens.

The library reads weights and tokenizer; pooling is done here, because the library pads every text of a batch to the
longest one, which takes gigabytes for one long document.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import threading
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vectorwright.errors import Terminal
from vectorwright.ingest.contracts import Embedded
from vectorwright.stores.base import Vectors

from .registry import DEFAULT_BATCH
from .vectors import normalized

MODEL = "wordllama"
DIMENSION = 256
_FILES = ("weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json")
_BLOCK = 8192
"""Tokens that are looked up at a time: 8 MiB of vectors."""


def _package() -> Path:
    """The folder that the weights are in. The package is found, not imported."""
    found = find_spec(MODEL)
    if found is None or found.origin is None:
        raise Terminal(
            f"the local model needs the package {MODEL!r}: install vectorwright[local]", reason="MissingExtra"
        )
    return Path(found.origin).parent


@cache
def revision() -> str:
    """Version of the package and the first 8 hex digits of the SHA-256 of its weights and tokenizer."""
    package = _package()
    digest = sha256()
    for name in _FILES:
        path = package / name
        if not path.is_file():
            raise Terminal(f"the package {MODEL!r} lacks its file {name}: install it again", reason="ModelNotFound")
        digest.update(path.read_bytes())
    return f"{importlib.metadata.version(MODEL)}+{digest.hexdigest()[:8]}"


class _Model:
    """Weights, shape (vocabulary, 256) float32, and tokenizer."""

    def __init__(self) -> None:
        package = _package()
        import wordllama  # noqa: PLC0415 - 100 MB of libraries that only workers need

        loaded = wordllama.WordLlama.load(disable_download=True, cache_dir=package)
        self._weights: Vectors = loaded.embedding
        self._tokenizer: Any = loaded.tokenizer
        self._tokenizer.no_padding()

    def embed(self, texts: Sequence[str]) -> Embedded:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        tokens = [np.asarray(one.ids, dtype=np.int64) for one in encoded]
        vectors = np.zeros((len(texts), self._weights.shape[1]), dtype=np.float32)
        for row, ids in enumerate(tokens):
            for start in range(0, len(ids), _BLOCK):
                vectors[row] += self._weights[ids[start : start + _BLOCK]].sum(axis=0, dtype=np.float32)
            vectors[row] /= max(1, len(ids))
        return Embedded(vectors, sum(len(ids) for ids in tokens))


class LocalEmbedder:
    """Embeds in a thread of this process. The weights are read at the first call."""

    def __init__(self, *, normalize: bool, batch_size: int = DEFAULT_BATCH) -> None:
        self.batch_size = batch_size
        self._normalize = normalize
        self._model: _Model | None = None
        self._loading = threading.Lock()

    def _embed(self, texts: Sequence[str]) -> Embedded:
        with self._loading:
            if self._model is None:
                self._model = _Model()
        answer = self._model.embed(texts)
        return Embedded(normalized(answer.vectors), answer.tokens) if self._normalize else answer

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors of shape (n, 256). A text without a known token has a vector of zeros."""
        return await asyncio.to_thread(self._embed, texts)

    async def close(self) -> None:
        """Let go of the weights."""
        self._model = None
