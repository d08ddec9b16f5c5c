"""The four kinds of error, named by what can be done about them.

::

    VectorwrightError
    ├── Terminal     the spec, or what it refers to, must change           → Stalled
    ├── Retryable    the outside is busy or down; try again                → Reconciling, backoff
    ├── NotFound     what was asked for is absent; the plan decides
    └── Conflict     it exists and is not ours, or two resources claim it  → Stalled

Foreign errors (of an SDK, an HTTP client, a driver) are translated into one of these at the edge, in the module that
makes the call. ``message`` reaches status, events and logs, so it is built only from allow-listed fields of the foreign
error: never a URL with user information, a header or a credential.
"""

from __future__ import annotations


class VectorwrightError(Exception):
    """Base of all errors that Vectorwright raises on purpose.

    ``reason`` is CamelCase, stable, and becomes the reason of a condition. ``message`` says what is wrong, where, and
    what to do.
    """

    default_reason = "Error"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason


class Terminal(VectorwrightError):  # noqa: N818 - named by recovery, not by "Error"
    """Trying again cannot help until the spec, a Secret or the store changes."""

    default_reason = "InvalidSpec"


class Retryable(VectorwrightError):  # noqa: N818
    """The outside is busy, slow or down. ``after`` is the least delay in seconds that it asked for, if it did."""

    default_reason = "Unavailable"

    def __init__(self, message: str, *, reason: str | None = None, after: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.after = after


class NotFound(VectorwrightError):  # noqa: N818
    """What was asked for does not exist."""

    default_reason = "NotFound"


class Conflict(VectorwrightError):  # noqa: N818
    """It exists and belongs to somebody else, or its vectors are another model's. Nothing was touched."""

    default_reason = "Conflict"


class BatchRejected(Terminal):
    """A store refused a write because of what is in it (400, 422): bisecting finds the items to blame.

    Never raised for authentication, rate limits, server errors or time-outs: those say nothing about the items.
    """

    default_reason = "RecordRejected"


class BatchTooLarge(BatchRejected):
    """A store refused a write because of its size (413): halving it may help."""

    default_reason = "BatchTooLarge"
