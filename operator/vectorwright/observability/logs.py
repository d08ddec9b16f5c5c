"""Logs: one line an event, JSON or text, with the resource and a correlation id, and no credential in any of them.

Standard library only. Lines go to stderr. Everything is redacted on its way out, whatever wrote it: that is the last
line of defence, not the first.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

LogFormat = Literal["json", "text"]

_MAX_LINE = 32_768
"""Characters of one message or traceback; a store that answers with megabytes must not flood the log."""
_SHORTEST_SECRET = 6
"""Shorter values are not replaced: masking every "a" would hide the logs and protect nothing."""
_MOST_SECRETS = 4096


@dataclass(frozen=True, slots=True)
class LogContext:
    """What a line is about."""

    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    correlation_id: str | None = None


_context: ContextVar[LogContext] = ContextVar("vectorwright_log_context", default=LogContext())  # noqa: B039 - frozen


@contextmanager
def log_context(
    *,
    kind: str | None = None,
    namespace: str | None = None,
    name: str | None = None,
    correlation_id: str | None = None,
) -> Iterator[None]:
    """Put the resource and the correlation id on every line logged inside, in this task and those it starts.

    What is left out is inherited from the context around it.
    """
    given = {"kind": kind, "namespace": namespace, "name": name, "correlation_id": correlation_id}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    token = _context.set(replace(_context.get(), **changes))
    try:
        yield
    finally:
        _context.reset(token)


_secrets: OrderedDict[str, None] = OrderedDict()
_names: OrderedDict[str, None] = OrderedDict()
_secrets_lock = threading.Lock()

_QUOTED = r"['\"]?\s*[:=]\s*(?:b?['\"])?"
_PATTERNS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), "***"),
    # User information of a URL: scheme://user:password@host
    (re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://)[^/\s@'\"]+@"), r"\1***@"),
    (
        re.compile(rf"(?i)(\b(?:proxy-)?authorization{_QUOTED})(?:(?:bearer|basic|apikey|token)\s+)?[^\s'\",}}]+"),
        r"\1***",
    ),
    (re.compile(rf"(?i)(\b(?:x-)?api[-_]?key{_QUOTED})[^\s'\",}}]+"), r"\1***"),
    (re.compile(rf"(?i)(\b(?:password|passwd|pwd){_QUOTED})[^\s'\",}}&]+"), r"\1***"),
    # JSON web tokens, wherever they turn up.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*"), "***"),
)


def register_secret(value: str | bytes) -> None:
    """Have ``value`` replaced by ``***`` in every line from now on. Values under six characters are left alone.

    The 4,096 values registered last are kept.
    """
    text = value.decode("utf-8", "ignore") if isinstance(value, bytes) else value
    text = text.strip()
    if len(text) < _SHORTEST_SECRET:
        return
    with _secrets_lock:
        if text not in _names:
            _keep(_secrets, text)


def register_name(value: str) -> None:
    """Have ``value`` shown, though a Secret holds it: the name of a user, by which lines tell whose key they are about.

    The 4,096 names registered last are kept.
    """
    with _secrets_lock:
        _secrets.pop(value, None)
        _keep(_names, value)


def _keep(known: OrderedDict[str, None], value: str) -> None:
    known[value] = None
    known.move_to_end(value)
    while len(known) > _MOST_SECRETS:
        known.popitem(last=False)


def redact(text: str) -> str:
    """``text`` without registered secrets, Authorization headers, API keys, passwords and user information of URLs."""
    with _secrets_lock:
        known = tuple(_secrets)
    for secret in known:
        if secret in text:
            text = text.replace(secret, "***")
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_LINE else f"{text[:_MAX_LINE]}… ({len(text) - _MAX_LINE} characters more)"


class _Formatter(logging.Formatter):
    """What both formats share: the record's parts, redacted."""

    def parts(self, record: logging.LogRecord) -> dict[str, Any]:
        """The record's fields in their order, without those that are absent."""
        context = _context.get()
        # kopf's own lines name the object they are about in this attribute.
        ref = getattr(record, "k8s_ref", None)
        ref = ref if isinstance(ref, dict) else {}
        fields: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": redact(_cut(record.getMessage())),
            "kind": context.kind or ref.get("kind"),
            "namespace": context.namespace or ref.get("namespace"),
            "name": context.name or ref.get("name"),
            "correlation_id": context.correlation_id,
        }
        extra = getattr(record, "fields", None)
        if isinstance(extra, dict):
            for key, value in extra.items():
                plain = value if isinstance(value, int | float | bool) else redact(_cut(str(value)))
                fields.setdefault(str(key), plain)
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = redact(_cut(self.formatException(record.exc_info)))
        if record.stack_info:
            fields["stack"] = redact(_cut(record.stack_info))
        return {key: value for key, value in fields.items() if value is not None}


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        return json.dumps(self.parts(record), ensure_ascii=False)


class TextFormatter(_Formatter):
    """For people: time, level, resource, message, then what else is known; tracebacks follow on their own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; line breaks inside a message are shown as ``\\n`` so that nobody can forge a line."""
        parts = self.parts(record)
        trace = "\n".join(parts.pop(key) for key in ("exception", "stack") if key in parts)
        kind, namespace, name = (parts.pop(key, None) for key in ("kind", "namespace", "name"))
        resource = "/".join(part for part in (kind, namespace, name) if part)
        head = [parts.pop("ts"), parts.pop("level").upper().ljust(7), parts.pop("logger").removeprefix("vectorwright.")]
        message = str(parts.pop("msg")).replace("\r", "\\r").replace("\n", "\\n")
        line = " ".join(head) + (f" [{resource}] " if resource else " ") + message
        line += "".join(f" {key}={value}" for key, value in parts.items())
        return f"{line}\n{trace}" if trace else line


def configure_logging(log_format: LogFormat = "json", level: str = "info", stream: TextIO | None = None) -> None:
    """Route every logger of the process, ``warnings`` and uncaught exceptions through one redacting handler.

    ``level`` is one of debug, info, warning, error. Safe to call again: the last call counts.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Libraries that install handlers of their own would write past the redaction.
    for name in ("kopf", "asyncio", "aiohttp", "httpx", "httpcore", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # They tell each request at info, and every wait at debug: that is tracing, not operating.
    for name in ("httpx", "httpcore", "asyncio", "aiohttp.access", "grpc"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("vectorwright").critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is None or issubclass(arguments.exc_type, SystemExit):
        return
    name = arguments.thread.name if arguments.thread is not None else "?"
    logging.getLogger("vectorwright").critical(
        "uncaught exception in thread %s",
        name,
        exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
    )
