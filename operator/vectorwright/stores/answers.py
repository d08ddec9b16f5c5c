"""Answers to callers whose changes were made together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from vectorwright.errors import Retryable, VectorwrightError

_log = logging.getLogger(__name__)


async def answer(index: str, call: Callable[[], Awaitable[Any]], futures: Sequence[asyncio.Future[Any]]) -> None:
    """Make a change of an index and give its result, or its error, to all who wait for it.

    What nobody foresaw is logged, told to the callers as Retryable (``CommitFailed``), and raised.
    """
    try:
        result = await call()
    except VectorwrightError as error:
        for future in futures:
            if not future.done():
                future.set_exception(_copy_of(error))
    except asyncio.CancelledError:
        raise
    except BaseException:
        _log.critical("index %s: a change ended in an error that nobody foresaw", index, exc_info=True)
        for future in futures:
            if not future.done():
                future.set_exception(Retryable(f"index {index}: its change broke off", reason="CommitFailed"))
        raise
    else:
        for future in futures:
            if not future.done():
                future.set_result(result)


def abandon(index: str, futures: Sequence[asyncio.Future[Any]]) -> None:
    """Tell those who still wait that their changes will not be made."""
    for future in futures:
        if not future.done():
            future.set_exception(Retryable(f"index {index}: its store stopped", reason="Stopping"))


def _copy_of(error: VectorwrightError) -> VectorwrightError:
    """One exception object a caller: a traceback grows with every place that raises the same object."""
    if isinstance(error, Retryable):
        return type(error)(error.message, reason=error.reason, after=error.after)
    return type(error)(error.message, reason=error.reason)
