"""Endpoints that speak OpenAI's embeddings API.

Such endpoints differ: some take no ``encoding_format``, some answer with lists of numbers where base64 was asked for,
some say nothing of tokens, and some answer 200 with a page of HTML when they are overloaded. What makes no sense is
tried again; what is refused for its content is told apart from what is refused for other reasons.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import orjson

from vectorwright.api.v1alpha1.common import seconds
from vectorwright.api.v1alpha1.embeddingmodel import EmbeddingModelSpec
from vectorwright.errors import BatchRejected, Retryable, Terminal
from vectorwright.ingest.contracts import Embedded
from vectorwright.stores.base import Vectors
from vectorwright.stores.http_errors import transport_error
from vectorwright.stores.registry import TlsSettings
from vectorwright.stores.tls import ssl_context

from .answers import refusal
from .registry import DEFAULT_BATCH
from .vectors import normalized

DEFAULT_TIMEOUT = 60.0
DEFAULT_CONCURRENCY = 4
_MAX_ANSWER = 256 * 2**20
"""Bytes of an answer: 2,048 vectors of 4,096 dimensions as numbers take 160 MiB."""


def concurrency(spec: EmbeddingModelSpec) -> int:
    """Requests in flight from one worker."""
    limits = spec.limits
    return (limits.max_concurrency if limits else None) or DEFAULT_CONCURRENCY


class OpenAIEmbedder:
    """One model at one endpoint."""

    def __init__(
        self,
        spec: EmbeddingModelSpec,
        *,
        token: str | None,
        ca: str | None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if spec.open_ai is None:
            raise Terminal("the embedding model names no endpoint: set openAI", reason="InvalidSpec")
        self._model = spec.open_ai.model
        self._dimensions = spec.open_ai.dimensions
        self._normalize = bool(spec.normalize)
        self._endpoint = spec.open_ai.base_url.rstrip("/")
        self._token = token
        self._dimension: int | None = None
        self._base64: bool | None = None
        """Whether the endpoint takes ``encoding_format: base64``; None until it answered."""
        self.batch_size = spec.open_ai.batch_size or DEFAULT_BATCH
        timeout = spec.limits.timeout if spec.limits else None
        self._seconds = seconds(timeout) if timeout else DEFAULT_TIMEOUT
        tls = spec.tls
        self._extensions = {"sni_hostname": tls.server_name} if tls and tls.server_name else {}
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(self._seconds, connect=min(10.0, self._seconds)),
            verify=ssl_context(TlsSettings(ca, insecure_skip_verify=bool(tls and tls.insecure_skip_verify))),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
            transport=transport,
            trust_env=False,
        )

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors of at most ``batch_size`` texts, shape (n, d), in the order of the texts.

        Raises Retryable (``EmbedderBadAnswer``, ``Throttled``, ``Timeout``, ``Unavailable``), Terminal
        (``AccessDenied``, ``ModelNotFound``, ``TLSVerificationFailed``), BatchRejected (``EmbeddingRejected``).
        """
        if self._base64 is None:
            try:
                answer = await self._ask(texts, "base64")
            except BatchRejected:
                # Either a text is refused, or this endpoint knows no base64: only asking without it tells.
                answer = await self._ask(texts, None)
                self._base64 = False
            else:
                self._base64 = True
        else:
            answer = await self._ask(texts, "base64" if self._base64 else None)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, texts: Sequence[str], encoding: str | None) -> Embedded:
        body: dict[str, Any] = {"model": self._model, "input": list(texts)}
        if encoding is not None:
            body["encoding_format"] = encoding
        if self._dimensions is not None:
            body["dimensions"] = self._dimensions
        content = await self._post(orjson.dumps(body))
        vectors, tokens = self._understand(content, len(texts))
        return Embedded(normalized(vectors) if self._normalize else vectors, tokens)

    async def _post(self, body: bytes) -> bytes:
        address = f"{self._endpoint}/embeddings"
        headers = {"content-type": "application/json", "accept": "application/json"}
        try:
            async with self._client.stream(
                "POST", address, content=body, headers=headers, extensions=self._extensions
            ) as response:
                content = bytearray()
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > _MAX_ANSWER:
                        raise self._nonsense(f"more than {_MAX_ANSWER:,} bytes")
                if response.status_code != 200:
                    raise refusal(response, bytes(content), where=self._where, secret=self._token)
                return bytes(content)
        except httpx.HTTPError as error:
            raise transport_error(error, self._where) from None
        except (httpx.InvalidURL, UnicodeError):
            raise Terminal(f"openAI.baseUrl is no valid address: {self._endpoint}") from None

    @property
    def _where(self) -> str:
        return f"the embedding endpoint {self._endpoint}"

    def _nonsense(self, what: str) -> Retryable:
        return Retryable(f"{self._where} answered 200 with {what}", reason="EmbedderBadAnswer")

    def _understand(self, content: bytes, expected: int) -> tuple[Vectors, int]:
        """Vectors of shape (expected, d) and tokens. Raises Retryable for an answer that makes no sense."""
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise self._nonsense("something that is no JSON") from None
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list) or len(data) != expected:
            raise self._nonsense(f"{len(data) if isinstance(data, list) else 'no'} embeddings for {expected} texts")
        rows: list[Vectors | None] = [None] * expected
        for item in data:
            place = item.get("index") if isinstance(item, dict) else None
            if not isinstance(place, int) or not 0 <= place < expected or rows[place] is not None:
                raise self._nonsense("embeddings whose index is missing, doubled or out of range")
            rows[place] = self._vector(item.get("embedding"))
        lengths = {len(row) for row in rows if row is not None}
        if len(lengths) != 1 or 0 in lengths or lengths != {self._dimension or next(iter(lengths))}:
            # Which of the two answers was wrong is not known: the next one sets the measure again.
            self._dimension = None
            raise self._nonsense("vectors of different dimensions, or another dimension than before")
        vectors = np.ascontiguousarray(np.stack([row for row in rows if row is not None]), dtype=np.float32)
        if not np.isfinite(vectors).all():
            raise self._nonsense("vectors that hold NaN or infinity")
        self._dimension = vectors.shape[1]
        return vectors, _tokens(answer)

    def _vector(self, embedding: object) -> Vectors:
        try:
            if isinstance(embedding, str):
                return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
            if isinstance(embedding, list):
                with np.errstate(over="ignore"):
                    vector = np.asarray(embedding, dtype=np.float32)
                if vector.ndim == 1:
                    return vector
        except (binascii.Error, ValueError, TypeError):
            pass
        raise self._nonsense("an embedding that is no list of numbers")


def _tokens(answer: dict[str, Any]) -> int:
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return 0
    for name in ("total_tokens", "prompt_tokens"):
        tokens = usage.get(name)
        if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0:
            return tokens
    return 0
