"""The embedder for OpenAI-compatible endpoints, against a server that also misbehaves on demand."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
from tests.support.openai import Fault, FaultKind, OpenAIServer

from vectorwright.api.v1alpha1.embeddingmodel import EmbeddingModelSpec
from vectorwright.errors import BatchRejected, BatchTooLarge, Retryable, Terminal
from vectorwright.ingest.embedders.openai import OpenAIEmbedder
from vectorwright.ingest.embedders.registry import fingerprint, open_embedder, probe_embedder


def spec(server: OpenAIServer | None = None, **overrides: Any) -> EmbeddingModelSpec:
    endpoint = {"baseUrl": server.base_url if server else "http://127.0.0.1:1/v1", "model": "text-embedding-test"}
    top = {name: overrides.pop(name) for name in ("normalize", "dimension", "revision", "limits") if name in overrides}
    return EmbeddingModelSpec.model_validate({"openAI": endpoint | overrides, **top})


async def embed(server: OpenAIServer, texts: list[str], token: str | None = None, **overrides: Any) -> np.ndarray:
    embedder = open_embedder(spec(server, **overrides), token=token or server.key, ca=None)
    try:
        return (await embedder.embed(texts)).vectors
    finally:
        await embedder.close()


async def test_vectors_come_in_the_order_of_the_texts_with_their_tokens(openai_server: OpenAIServer) -> None:
    texts = [f"word{n} and more" for n in range(20)]
    embedder = open_embedder(spec(openai_server), token=openai_server.key, ca=None)
    answer = await embedder.embed(texts)
    await embedder.close()
    assert answer.vectors.dtype == np.float32
    assert answer.vectors.flags.c_contiguous
    for row, text in zip(answer.vectors, texts, strict=True):
        assert row == pytest.approx(openai_server.vector(text))
    assert answer.tokens == 60
    assert json.loads(openai_server.requests[0].body)["encoding_format"] == "base64"


async def test_dimensions_are_sent(openai_server: OpenAIServer) -> None:
    assert (await embed(openai_server, ["a"], dimensions=16)).shape == (1, 16)


@pytest.mark.parametrize(
    "kind",
    [
        FaultKind.RUBBISH,
        FaultKind.EMPTY,
        FaultKind.WRONG_COUNT,
        FaultKind.NAN,
    ],
)
async def test_a_200_that_makes_no_sense_may_be_tried_again(openai_server: OpenAIServer, kind: FaultKind) -> None:
    embedder = open_embedder(spec(openai_server), token=openai_server.key, ca=None)
    openai_server.fail_next(kind)
    with pytest.raises(Retryable) as error:
        await embedder.embed(["a", "b"])
    assert error.value.reason == "EmbedderBadAnswer"
    assert (await embedder.embed(["a", "b"])).vectors.shape == (2, 64)
    await embedder.close()


async def test_another_dimension_than_before_is_a_bad_answer(openai_server: OpenAIServer) -> None:
    embedder = open_embedder(spec(openai_server), token=openai_server.key, ca=None)
    await embedder.embed(["a"])
    openai_server.fail_next(FaultKind.WRONG_DIMENSION)
    with pytest.raises(Retryable) as error:
        await embedder.embed(["a"])
    assert error.value.reason == "EmbedderBadAnswer"
    assert (await embedder.embed(["a"])).vectors.shape == (1, 64)
    await embedder.close()


@pytest.mark.parametrize(
    ("fault", "reason", "after"),
    [
        (Fault(FaultKind.RATE_LIMITED, retry_after=7.0), "Throttled", 7.0),
        (Fault(FaultKind.SERVER_ERROR), "Unavailable", None),
        (Fault(FaultKind.DROPPED), "Unreachable", None),
    ],
)
async def test_passing_failures(openai_server: OpenAIServer, fault: Fault, reason: str, after: float | None) -> None:
    openai_server.always = fault
    with pytest.raises(Retryable) as error:
        await embed(openai_server, ["a"])
    assert (error.value.reason, error.value.after) == (reason, after)


async def test_an_endpoint_that_does_not_answer(openai_server: OpenAIServer) -> None:
    openai_server.delay = 3.0
    with pytest.raises(Retryable) as error:
        await embed(openai_server, ["a"], limits={"timeout": "200ms"})
    assert error.value.reason == "Timeout"
    nobody = open_embedder(spec(), token=None, ca=None)
    with pytest.raises(Retryable) as error:
        await nobody.embed(["a"])
    await nobody.close()
    assert error.value.reason == "Unreachable"


async def test_a_refused_key_is_terminal_and_never_shown(openai_server: OpenAIServer) -> None:
    with pytest.raises(Terminal) as error:
        await embed(openai_server, ["a"], token="sk-very-secret-key")
    assert error.value.reason == "AccessDenied"
    assert "sk-very-secret-key" not in str(error.value)


async def test_an_unknown_model_is_terminal(openai_server: OpenAIServer) -> None:
    with pytest.raises(Terminal, match=r"openAI\.model") as error:
        await embed(openai_server, ["a"], model="nope")
    assert error.value.reason == "ModelNotFound"


async def test_a_text_that_is_too_long_is_blamed_on_the_text(openai_server: OpenAIServer) -> None:
    with pytest.raises(BatchRejected) as error:
        await embed(openai_server, ["a", "word " * 9000])
    assert error.value.reason == "EmbeddingRejected"
    assert "context length" in error.value.message


class _Scripted(httpx.AsyncBaseTransport):
    """Answers requests by a function, for what the server of the other tests does not do."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(json.loads(await request.aread()))
        answer = self.answer(self.bodies[-1])
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


def _scripted(answer: Any, token: str | None = "sk-0123456789", **overrides: Any) -> tuple[OpenAIEmbedder, _Scripted]:
    transport = _Scripted(answer)
    return OpenAIEmbedder(spec(**overrides), token=token, ca=None, transport=transport), transport


def _list_of(body: dict[str, Any], vector: Any = (3.0, 4.0)) -> dict[str, Any]:
    return {"data": [{"index": number, "embedding": list(vector)} for number in range(len(body["input"]))]}


async def test_an_endpoint_without_base64_is_asked_for_numbers_and_remembered() -> None:
    def answer(body: dict[str, Any]) -> Any:
        if "encoding_format" in body:
            return httpx.Response(400, json={"error": {"message": "unknown field encoding_format"}})
        return _list_of(body)

    embedder, transport = _scripted(answer)
    assert (await embedder.embed(["a"])).vectors.tolist() == [[3.0, 4.0]]
    assert (await embedder.embed(["a"])).tokens == 0
    assert ["encoding_format" in body for body in transport.bodies] == [True, False, False]


async def test_rows_are_ordered_by_index_and_normalised_when_asked() -> None:
    def answer(_: dict[str, Any]) -> Any:
        return {
            "data": [{"index": 1, "embedding": [0, 0]}, {"index": 0, "embedding": [3, 4]}],
            "usage": {"prompt_tokens": 5},
        }

    embedder, _ = _scripted(answer, normalize=True)
    answered = await embedder.embed(["a", "b"])
    assert answered.vectors == pytest.approx(np.array([[0.6, 0.8], [0.0, 0.0]], np.float32))
    assert answered.tokens == 5


@pytest.mark.parametrize(
    "data",
    [
        [{"embedding": [1.0]}],
        [{"index": 1, "embedding": [1.0]}],
        [{"index": True, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": "!!!"}],
        [{"index": 0, "embedding": "AAA="}],
        [{"index": 0, "embedding": ["x"]}],
        [{"index": 0, "embedding": [[1.0]]}],
        [{"index": 0, "embedding": []}],
        [{"index": 0, "embedding": None}],
        [{"index": 0, "embedding": [1e300]}],
        ["x"],
        None,
    ],
)
async def test_answers_of_a_wrong_shape(data: Any) -> None:
    embedder, _ = _scripted(lambda _: {"data": data})
    with pytest.raises(Retryable) as error:
        await embedder.embed(["a"])
    assert error.value.reason == "EmbedderBadAnswer"


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, BatchRejected, "EmbeddingRejected"),
        (422, BatchRejected, "EmbeddingRejected"),
        (413, BatchTooLarge, "BatchTooLarge"),
        (401, Terminal, "AccessDenied"),
        (403, Terminal, "AccessDenied"),
        (404, Terminal, "ModelNotFound"),
        (302, Terminal, "RequestRefused"),
        (408, Retryable, "Unavailable"),
        (429, Retryable, "Throttled"),
        (503, Retryable, "Throttled"),
        (500, Retryable, "Unavailable"),
    ],
)
async def test_what_an_answer_means_and_that_it_tells_no_key(status: int, kind: type[Exception], reason: str) -> None:
    told = {"error": {"type": "t", "code": "c", "message": "key sk-0123456789 " + "x" * 400, "trace": "internal"}}
    embedder, _ = _scripted(lambda _: httpx.Response(status, json=told))
    with pytest.raises(kind) as error:
        await embedder.embed(["a"])
    assert getattr(error.value, "reason", None) == reason
    shown = str(error.value)
    assert "sk-0123456789" not in shown
    assert "internal" not in shown
    assert len(shown) < 450


def test_the_fingerprint_is_of_the_model_not_of_its_address() -> None:
    base = spec()
    same = base.model_copy(update={"open_ai": base.open_ai.model_copy(update={"base_url": "https://other/v1"})})  # type: ignore[union-attr]
    assert fingerprint(base, None, normalized=False) == fingerprint(same, None, normalized=False)
    others = {
        fingerprint(base, "2", normalized=False),
        fingerprint(base, None, normalized=True),
        fingerprint(spec(dimensions=16), None, normalized=False),
        fingerprint(spec(model="other"), None, normalized=False),
        fingerprint(EmbeddingModelSpec.model_validate({"local": {"model": "wordllama"}}), None, normalized=False),
    }
    assert len(others | {fingerprint(base, None, normalized=False)}) == 6


async def test_a_probe_tells_the_dimension_and_checks_the_spec(openai_server: OpenAIServer) -> None:
    info = await probe_embedder(spec(openai_server, revision="r1"), token=openai_server.key, ca=None)
    assert (info.dimension, info.revision, info.normalized, info.model) == (64, "r1", False, "text-embedding-test")
    assert info.fingerprint == fingerprint(spec(openai_server, revision="r1"), "r1", normalized=False)
    with pytest.raises(Terminal) as error:
        await probe_embedder(spec(openai_server, dimension=1536), token=openai_server.key, ca=None)
    assert error.value.reason == "DimensionMismatch"
