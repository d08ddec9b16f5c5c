"""Weaviate: how a server is reached, and the settings of a collection."""

from __future__ import annotations

from pydantic import Field

from ..addresses import HttpUrl
from ..common import ApiModel


class WeaviateProvider(ApiModel):
    """A Weaviate server (1.27 or newer). Its API key is the `token` of the credentials."""

    url: str = HttpUrl
    """Address of the REST API, such as `http://weaviate.search.svc:8080`."""
    grpc_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the gRPC API. 50051 when left out."""


class WeaviateTuning(ApiModel):
    """Settings of a Weaviate collection."""

    multi_tenancy: bool | None = None
    """Whether the collection is divided into tenants. Fixed at creation."""
