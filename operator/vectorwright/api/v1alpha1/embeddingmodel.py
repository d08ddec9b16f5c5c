"""EmbeddingModel: one model that turns text into vectors."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .addresses import HttpUrl
from .common import ApiModel, Credentials, Duration, Resource, ResourceStatus, Tls, exactly_one, rules

EMBEDDERS = ("openAI", "local")
"""The embedder keys of an EmbeddingModel. Exactly one is set."""


class OpenAIEmbedder(ApiModel):
    """An endpoint that speaks OpenAI's embeddings API: OpenAI, Azure, vLLM, TEI, Ollama and many more."""

    base_url: str = HttpUrl
    """Address up to and without `/embeddings`, such as `https://api.openai.com/v1`."""
    model: str = Field(min_length=1, max_length=256)
    """Name of the model, as the endpoint knows it."""
    dimensions: int | None = Field(default=None, ge=1, le=65536)
    """Sent as `dimensions`, for models that can shorten their vectors."""
    batch_size: int | None = Field(default=None, ge=1, le=2048)
    """Texts in one request. 64 when left out."""


class LocalEmbedder(ApiModel):
    """A model whose weights come with the worker's image: nothing is downloaded."""

    model: Literal["wordllama"]
    """`wordllama`: static embeddings, 256 dimensions, fast on a CPU."""


class EmbedderLimits(ApiModel):
    """What the endpoint may be asked for, all workers together."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests a minute."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Tokens a minute."""
    max_concurrency: int | None = Field(default=None, ge=1, le=64)
    """Requests in flight from one worker. 4 when left out."""
    timeout: Duration | None = None
    """Time that one request may take. `60s` when left out."""


class Price(ApiModel):
    """What embedding costs, for reports."""

    per_million_tokens: str = Field(pattern=r"^[0-9]+(\.[0-9]{1,6})?$", max_length=20)
    """Price of a million tokens, a decimal number such as `0.02`."""
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    """ISO 4217 code such as `USD`."""


class EmbeddingModelSpec(ApiModel):
    """One model: endpoint or local weights, model, revision, normalisation, dimension, Secret, limits, price."""

    model_config = rules(exactly_one(*EMBEDDERS, where="spec"))

    open_ai: OpenAIEmbedder | None = Field(default=None, alias="openAI")
    """An OpenAI-compatible endpoint."""
    local: LocalEmbedder | None = None
    """A model that runs in the worker."""
    revision: str | None = Field(default=None, min_length=1, max_length=128)
    """Revision of the model. Change it when the endpoint starts to serve other weights under the same name."""
    normalize: bool | None = None
    """Scale every vector to length 1 before it is stored or searched. The model's own vectors when left out."""
    dimension: int | None = Field(default=None, ge=1, le=65536)
    """Dimension to expect. Detected when left out; when both are known they must agree."""
    credentials: Credentials | None = None
    """Secret with the API key of the endpoint (key `token` when not said otherwise)."""
    tls: Tls | None = None
    """How the endpoint is verified."""
    limits: EmbedderLimits | None = None
    """What the endpoint may be asked for."""
    price: Price | None = None
    """What embedding costs."""
    probe_interval: Duration | None = None
    """How often the endpoint is asked for one embedding, with 10 % of jitter. Only on change when left out."""

    @property
    def embedder(self) -> str:
        """The one embedder key that is set. Raises ``ValueError`` when none or several are."""
        found = [name for name, value in zip(EMBEDDERS, (self.open_ai, self.local), strict=True) if value is not None]
        if len(found) != 1:
            raise ValueError(
                f"spec: exactly one of {', '.join(EMBEDDERS)} must be set, found {', '.join(found) or 'none'}"
            )
        return found[0]


class EmbeddingModelStatus(ResourceStatus):
    """What is known of the model."""

    model: str | None = None
    """Name of the model."""
    revision: str | None = None
    """Revision in effect: the spec's, or that of the local weights."""
    dimension: int | None = None
    """Dimension that the model really returned."""
    normalized: bool | None = None
    """Whether the vectors that Vectorwright stores have length 1."""
    fingerprint: str | None = None
    """Identity of the vectors: hash of embedder, model, revision, shortening and normalisation. Indexes record it."""


class EmbeddingModel(Resource):
    """An EmbeddingModel object."""

    kind: ClassVar[str] = "EmbeddingModel"
    plural: ClassVar[str] = "embeddingmodels"

    spec: EmbeddingModelSpec
    status: EmbeddingModelStatus = Field(default_factory=EmbeddingModelStatus)
