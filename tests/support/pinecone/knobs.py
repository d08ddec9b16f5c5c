"""What of the double's behaviour can be turned."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.support.double_clock import DoubleClock


@dataclass(slots=True)
class Knobs:
    """Seconds, unless said otherwise. By default everything happens at once."""

    ready_after: float = 0.0
    """From the creation of an index until it takes requests."""
    gone_after: float = 0.0
    """From the deletion of an index until its name is free."""
    visible_after: float = 0.0
    """From a write until reads show it."""
    stale_counts: float = 0.0
    """How old the answer of describe_index_stats may be."""
    latency: float = 0.0
    """Added to every answer."""
    whole_numbers: bool = False
    """Whether doubles without a fraction are written without one (10 and not 10.0): JSON allows both."""
    bare_hosts: bool = False
    """Whether hosts of indexes are told without a scheme, as the service does: the SDK then takes them for https."""
    max_indexes: int = 100
    """Serverless indexes of a project."""
    clock: DoubleClock = field(default_factory=DoubleClock)
    """By which all of it happens."""
