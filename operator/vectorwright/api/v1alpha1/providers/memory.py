"""Memory: where the store server is."""

from __future__ import annotations

from ..addresses import OptionalHttpUrl
from ..common import ApiModel, exactly_one, rules


class MemoryProvider(ApiModel):
    """Exact search in the memory of a `vectorwright store-server`: for tests and trials; gone when it stops."""

    model_config = rules(
        exactly_one("server", "local", where="spec.memory"),
        ("!has(self.local) || self.local", "spec.memory.local: true, or left out"),
    )

    server: str | None = OptionalHttpUrl
    """Address of the store server."""
    local: bool | None = None
    """For trials: true runs it beside the operator. Needs the operator's `--local-stores`."""
