"""Milvus: how a server is reached, and the settings of a collection."""

from __future__ import annotations

from pydantic import Field

from ..addresses import HttpUrl
from ..common import ApiModel


class MilvusProvider(ApiModel):
    """A Milvus server (2.4 or newer) or Zilliz Cloud. `username` and `password`, or `token`, are the credentials."""

    url: str = HttpUrl
    """Address, such as `http://milvus.search.svc:19530`."""
    database: str | None = Field(default=None, min_length=1, max_length=255)
    """Database. `default` when left out."""


class MilvusTuning(ApiModel):
    """Settings of a Milvus collection."""

    index_type: str | None = Field(default=None, min_length=1, max_length=32)
    """Vector index. `AUTOINDEX` when left out."""
