"""A double of the OpenAI-compatible ``/v1/embeddings`` endpoint, with faults on demand.

It follows the published API: bearer key, ``input`` as a string, a list of strings or token lists, ``dimensions``,
``encoding_format``, usage in tokens, and errors as ``{"error": {"message", "type", "code"}}``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.support.loopback_http import LoopbackHttp, Request, Response

_MOST_INPUTS = 2048
_MOST_TOKENS = 8192
"""The limits of the public API for one request and one input."""

Vector = npt.NDArray[np.float32]


class FaultKind(StrEnum):
    RATE_LIMITED = "429 with Retry-After"
    SERVER_ERROR = "500"
    RUBBISH = "200 with a body that is no JSON"
    EMPTY = "200 with a JSON body that has no data"
    WRONG_COUNT = "one vector fewer than inputs"
    WRONG_DIMENSION = "vectors one shorter than announced"
    NAN = "NaN in the first vector"
    DROPPED = "connection closed without an answer"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request. ``retry_after`` is seconds, sent with RATE_LIMITED when it is not None."""

    kind: FaultKind
    retry_after: float | None = 1.0


class OpenAIServer:
    """``base_url`` and ``key`` are what a client needs. Equal texts get equal vectors, similar texts near ones.

    A vector is the normalised sum of one fixed random direction a word, so that a search test can expect the document
    that shares words with its question.
    """

    def __init__(self, *, dimension: int = 64, model: str = "text-embedding-test", key: str = "test-key") -> None:
        self.key = key
        self.models = {model: dimension}
        """Dimension of each model that is served; a test may add some."""
        self.model = model
        self.dimension = dimension
        self.delay = 0.0
        """Seconds before each answer."""
        self.always: Fault | None = None
        """A fault for every request, until it is set to None again."""
        self.embedded: list[str] = []
        """Every text that was answered with a vector, in order: what a client would have been billed for."""
        self._next: deque[Fault | None] = deque()
        self._guard = threading.Lock()
        self._words: dict[tuple[str, int], Vector] = {}
        self._server = LoopbackHttp(self._answer)
        self.base_url = f"{self._server.origin}/v1"
        self.port = self._server.port

    @property
    def requests(self) -> list[Request]:
        """What was asked so far, in order."""
        return self._server.requests

    def fail_next(self, *faults: Fault | FaultKind | None) -> None:
        """Queue a fault for each of the coming requests; None lets one pass."""
        with self._guard:
            self._next.extend(Fault(fault) if isinstance(fault, FaultKind) else fault for fault in faults)

    def vector(self, text: str, model: str | None = None) -> Vector:
        """The unit vector (float32, shape (dimension,)) that the server gives ``text``."""
        size = self.models[model or self.model]
        total = np.zeros(size, dtype=np.float32)
        for word in re.findall(r"\w+", text.lower()) or [text]:
            total += self._direction(f"{model or self.model}\0{word}", size)
        return _normalised(total)

    def _direction(self, seed: str, size: int) -> Vector:
        known = self._words.get((seed, size))
        if known is None:
            number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
            known = np.random.default_rng(number).standard_normal(size, dtype=np.float32)
            self._words[seed, size] = known
        return known

    def _answer(self, request: Request) -> Response:
        with self._guard:
            fault = self._next.popleft() if self._next else self.always
            return self._respond(request, fault)

    def _respond(self, request: Request, fault: Fault | None) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return self._error(401, "Incorrect API key provided.", "invalid_api_key")
        if fault is not None and (broken := self._broken(fault)) is not None:
            return broken
        if request.method == "GET" and request.path == "/v1/models":
            return self._json({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})
        if request.method != "POST" or request.path != "/v1/embeddings":
            return self._error(404, f"Unknown request URL: {request.method} {request.path}.", "unknown_url")
        try:
            asked = json.loads(request.body)
        except ValueError:
            return self._error(400, "We could not parse the JSON body of your request.", None)
        return self._embed(asked, fault)

    def _broken(self, fault: Fault) -> Response | None:
        """The answer to a fault that does not depend on the request; None for the faults that spoil a good one."""
        match fault.kind:
            case FaultKind.RATE_LIMITED:
                wait = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
                return self._error(429, "Rate limit reached.", "rate_limit_exceeded", wait)
            case FaultKind.SERVER_ERROR:
                return self._error(500, "The server had an error while processing your request.", None)
            case FaultKind.RUBBISH:
                return Response(b"<html>upstream</html>", 200, {"Content-Type": "text/html"}, self.delay)
            case FaultKind.EMPTY:
                return self._json({"object": "list"})
            case FaultKind.DROPPED:
                return Response(delay=self.delay, cut_after=0)
        return None

    def _embed(self, asked: dict[str, Any], fault: Fault | None) -> Response:
        name, given = asked.get("model"), asked.get("input")
        if name not in self.models:
            return self._error(404, f"The model `{name}` does not exist.", "model_not_found")
        texts = _texts(given)
        if texts is None or not 1 <= len(texts) <= _MOST_INPUTS:
            return self._error(400, f"'$.input' is invalid: 1 to {_MOST_INPUTS} non-empty inputs.", "invalid_input")
        counts = [len(text.split()) or 1 for text in texts]
        if max(counts) > _MOST_TOKENS:
            return self._error(400, f"This model's maximum context length is {_MOST_TOKENS} tokens.", "context_length")
        size = asked.get("dimensions", self.models[name])
        if not isinstance(size, int) or not 1 <= size <= self.models[name]:
            return self._error(400, f"'dimensions' must be 1 to {self.models[name]}.", "invalid_dimensions")
        vectors = [self.vector(text, name) for text in texts]
        if size < self.models[name]:
            vectors = [_normalised(vector[:size]) for vector in vectors]
        self.embedded.extend(texts)
        vectors = _spoiled(vectors, fault)
        encode = _base64 if asked.get("encoding_format") == "base64" else _floats
        return self._json(
            {
                "object": "list",
                "model": name,
                "data": [
                    {"object": "embedding", "index": number, "embedding": encode(vector)}
                    for number, vector in enumerate(vectors)
                ],
                "usage": {"prompt_tokens": sum(counts), "total_tokens": sum(counts)},
            }
        )

    def _json(self, document: object) -> Response:
        return Response(json.dumps(document).encode(), 200, {"Content-Type": "application/json"}, self.delay)

    def _error(self, status: int, message: str, code: str | None, headers: dict[str, str] | None = None) -> Response:
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
        everything = {"Content-Type": "application/json", **(headers or {})}
        return Response(json.dumps(body).encode(), status, everything, self.delay)

    def close(self) -> None:
        self._server.close()


def _texts(given: object) -> list[str] | None:
    """The inputs as texts; token lists become texts of one word a token. None when the shape or an input is refused."""
    if isinstance(given, str) or (isinstance(given, list) and given and all(isinstance(item, int) for item in given)):
        given = [given]
    if not isinstance(given, list):
        return None
    texts = [" ".join(map(str, item)) if isinstance(item, list) else item for item in given]
    return texts if all(isinstance(text, str) and text for text in texts) else None


def _spoiled(vectors: list[Vector], fault: Fault | None) -> list[Vector]:
    match fault and fault.kind:
        case FaultKind.WRONG_COUNT:
            return vectors[:-1]
        case FaultKind.WRONG_DIMENSION:
            return [vector[:-1] for vector in vectors]
        case FaultKind.NAN:
            first = vectors[0].copy()
            first[0] = np.nan
            return [first, *vectors[1:]]
    return vectors


def _normalised(vector: Vector) -> Vector:
    unit: Vector = vector / np.linalg.norm(vector)
    return unit


def _floats(vector: Vector) -> list[float]:
    return [float(value) for value in vector]


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


StartOpenAI = Callable[..., OpenAIServer]


@pytest.fixture
def start_openai() -> Iterator[StartOpenAI]:
    """``start_openai(dimension=, model=, key=)`` starts a server of this test's own, stopped after it."""
    servers: list[OpenAIServer] = []

    def begin(**options: Any) -> OpenAIServer:
        server = OpenAIServer(**options)
        servers.append(server)
        return server

    yield begin
    for server in servers:
        server.close()


@pytest.fixture
def openai_server(start_openai: StartOpenAI) -> OpenAIServer:
    """An embeddings endpoint with one 64-dimensional model, ``text-embedding-test``."""
    return start_openai()
