"""What the contract suite asks of a store that it runs against."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import pytest

from vectorwright.stores.base import Setting
from vectorwright.stores.filters import Filter
from vectorwright.stores.registry import Connection

SECRET = "s3cret-that-never-shows"


class Provider(ABC):
    """One real server, and connections to it. Made once a test; the server behind it is shared."""

    name: str
    speaks_http = False
    """Whether the fault proxy can stand in front of it: then ``origin`` is needed."""
    speaks_grpc = False
    """Whether some of its calls go over gRPC: then ``grpc_port`` is needed."""
    checks_credentials = False
    """Whether the server itself refuses wrong credentials; the proxy does it for those that do not."""
    has_namespaces = False
    """Whether its indexes can be divided into namespaces."""
    namespaced: ClassVar[Mapping[str, Setting]] = {}
    """Settings that an index needs at creation to be divided."""
    tuned: ClassVar[Mapping[str, tuple[int, int]]] = {}
    """Mutable settings and two values to change between."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.request = request

    @abstractmethod
    def connection(self) -> Connection:
        """A connection to a place of this test's own, where nothing is: the same place each time it is called."""

    @abstractmethod
    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        """The same, as if the server were at another address.

        ``grpc_port`` is where its gRPC API is, for those that ``speak_grpc``; None puts it on ``port``, too.
        """

    def wrong_credentials(self) -> Connection:
        """The same with credentials that the server refuses, where ``checks_credentials``."""
        raise NotImplementedError(f"{self.name} asks for no credentials by itself")

    def origin(self) -> str:
        """Where the server is, such as ``http://127.0.0.1:8000``, for the proxy."""
        raise NotImplementedError(f"{self.name} does not speak HTTP")

    def grpc_port(self) -> int:
        """Where the gRPC API of the server is, on 127.0.0.1, for the proxy."""
        raise NotImplementedError(f"{self.name} does not speak gRPC")

    def may_refuse(self, where: Filter) -> bool:
        """Whether this store cannot express the filter, and says so. Nothing is refused by default."""
        del where
        return False
