"""What a call that met a fault must raise: the kinds of ``vectorwright.errors``, and reasons where they matter."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from tests.contract.calls import Call
from tests.contract.fault_plan import RETRY_AFTER

from vectorwright.errors import BatchRejected, BatchTooLarge, Conflict, NotFound, Retryable, Terminal, VectorwrightError

LONGEST = 1_000
"""Characters of a message: foreign text in it is bounded."""


@dataclass(frozen=True, slots=True)
class Met:
    """A call whose requests met a fault from the ``first``-th (from 0) of ``usual`` on."""

    call: Call
    fault: str
    first: int
    usual: int
    transports: Sequence[str]
    result: object
    late: bool = False
    """Whether it took much longer than a request may."""

    def __str__(self) -> str:
        shown = self.result
        if isinstance(shown, VectorwrightError):
            shown = (
                f"{type(shown).__name__} {shown.reason} after={getattr(shown, 'after', None)}: {shown.message[:200]}"
            )
        return f"{self.call.name}, request {self.first + 1} of {self.usual} ({', '.join(self.transports)}): {shown!r}"

    @property
    def last(self) -> bool:
        """Whether it was the last request, the one that the call is about."""
        return self.first == self.usual - 1


def problem(met: Met, secrets: Sequence[str]) -> str | None:
    """What is wrong with how a call ended; None where it is as it must be."""
    error = met.result
    if not met.transports:
        return "no request met the fault"
    if not isinstance(error, VectorwrightError):
        return "it did not raise one of our errors"
    if met.late:
        return "it took too long"
    shown = "".join(traceback.format_exception(error)) + repr(error) + error.message
    if any(secret in shown for secret in secrets):
        return "it shows a credential"
    if len(error.message) > LONGEST:
        return f"its message has {len(error.message)} characters"
    return None if _is_right(met, error) else "it raised another kind of error"


def _is_right(met: Met, error: VectorwrightError) -> bool:  # noqa: PLR0911 - one line a fault
    transport = met.transports[0]
    match met.fault:
        case "timeout":
            return isinstance(error, Retryable) and error.reason == "Timeout"
        case "reset":
            # On a busy machine gRPC notices one reset in some hundreds by the deadline of the call alone.
            noticed = {"Unreachable", "Timeout"} if transport == "grpc" else {"Unreachable"}
            return isinstance(error, Retryable) and error.reason in noticed
        case "401" | "403":
            return (
                isinstance(error, Terminal) and not isinstance(error, BatchRejected) and error.reason == "AccessDenied"
            )
        case "404":
            # "The database is not there" is the store's way to say that the index is not.
            missing = isinstance(error, NotFound) or (type(error) is Terminal and error.reason.endswith("NotFound"))
            return missing or not met.call.on_index
        case "404 of a proxy":
            return isinstance(error, Retryable) or (transport == "grpc" and type(error) is Terminal)
        case "409":
            return isinstance(error, Conflict | Retryable)
        case "413":
            if met.call.name == "upsert" and met.last:
                return isinstance(error, BatchRejected if transport == "postgres" else BatchTooLarge)
            return isinstance(error, Terminal)
        case "429":
            return _waits(error, transport)
        case _:
            return isinstance(error, Retryable)


def _waits(error: VectorwrightError, transport: str) -> bool:
    if not isinstance(error, Retryable):
        return False
    if transport == "postgres":
        return True
    # Not every gRPC client tells what came in the trailers.
    return error.reason == "Throttled" and error.after in (
        {RETRY_AFTER} if transport == "http" else {None, RETRY_AFTER}
    )
