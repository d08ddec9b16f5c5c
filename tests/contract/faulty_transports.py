"""All transports of one store behind proxies that share a plan."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Self

from tests.contract.fault_plan import FaultPlan
from tests.contract.fault_proxy import FaultProxy
from tests.contract.postgres_fault_proxy import PostgresFaultProxy
from tests.contract.providers.base import Provider

from vectorwright.stores.registry import Connection


class FaultyTransports:
    """Proxies before every port that ``provider`` speaks to. Use as a context manager."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.plan = FaultPlan()
        self._open = ExitStack()
        self._ports: list[int] = []
        self._grpc_port: int | None = None

    def connection(self, timeout: float = 5.0) -> Connection:
        """The provider's own place, through the proxies."""
        return replace(self.provider.at("127.0.0.1", self._ports[0], self._grpc_port), timeout=timeout)

    def __enter__(self) -> Self:
        provider = self.provider
        with ExitStack() as opening:
            if provider.speaks_http:
                transport = "http without headers" if "retry-after" in provider.cannot else "http"
                proxy = FaultProxy(provider.origin(), self.plan, provider.refusal, transport=transport)
                opening.enter_context(proxy)
                self._ports.append(proxy.port)
            if provider.speaks_grpc:
                from tests.contract.grpc_fault_proxy import GrpcFaultProxy

                grpc = opening.enter_context(GrpcFaultProxy(f"127.0.0.1:{provider.grpc_port()}", self.plan))
                self._ports.append(grpc.port)
                self._grpc_port = grpc.port
            if provider.speaks_postgres:
                postgres = opening.enter_context(PostgresFaultProxy(provider.postgres_address(), self.plan))
                self._ports.append(postgres.port)
            if not self._ports:
                raise ValueError(f"{provider.name} says of no transport that it speaks it")
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.plan.disarm()
        self._open.close()
