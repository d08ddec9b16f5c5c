"""Pinecone: how a project is reached, and the settings of an index."""

from __future__ import annotations

from pydantic import Field

from ..addresses import OptionalHttpUrl
from ..common import ApiModel


class PineconeProvider(ApiModel):
    """A Pinecone project. Its API key is the `token` of the credentials."""

    control_url: str | None = OptionalHttpUrl
    """Address of the control plane. `https://api.pinecone.io` when left out."""


class PineconeServerless(ApiModel):
    """A serverless index."""

    cloud: str = Field(min_length=1, max_length=32)
    """Cloud, such as `aws`. Fixed at creation."""
    region: str = Field(min_length=1, max_length=64)
    """Region, such as `us-east-1`. Fixed at creation."""


class PineconeTuning(ApiModel):
    """Settings of a Pinecone index."""

    serverless: PineconeServerless | None = None
    """A serverless index."""
