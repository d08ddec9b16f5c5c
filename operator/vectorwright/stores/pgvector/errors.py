"""PostgreSQL's errors as ours, by SQLSTATE; those of connecting, which carry none, by what the server says."""

from __future__ import annotations

import re
from collections.abc import Iterable

import psycopg

from vectorwright.errors import BatchRejected, Conflict, NotFound, Retryable, Terminal, VectorwrightError

from ..safe_text import safe_text
from ..tls import VERIFICATION_FAILED

_RETRYABLE_CLASSES = {"08", "40", "53", "55", "57", "58", "XX"}
"""Connection, rollback (deadlock), resources, object in use or lock not had, intervention, system, internal error.
Appendix A of PostgreSQL's manual."""
_READ_ONLY = "25006"
"""A standby answers, as while a failover is under way."""
_CANCELED = "57014"
_DATA_CLASSES = {"22", "23", "54"}
"""Data exception, constraint violation, program limit exceeded (a value too long for an index)."""


def statement_error(
    error: psycopg.Error, endpoint: str, *, writes: bool = False, secrets: Iterable[str | None] = ()
) -> VectorwrightError:
    """What a failed statement means. Data that is refused is BatchRejected only when the statement ``writes`` records.

    Only the primary message is shown: detail and context quote rows.
    """
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.DataError):  # the driver itself refused a value
            return _data_error(endpoint, safe_text(str(error), secrets), writes=writes)
        return Retryable(f"{endpoint} broke off the connection ({type(error).__name__})", reason="Unreachable")
    said = safe_text(error.diag.message_primary or type(error).__name__, secrets)
    return _by_state(state, endpoint, said, writes=writes)


def _by_state(state: str, endpoint: str, said: str, *, writes: bool) -> VectorwrightError:
    kind = state[:2]
    found: VectorwrightError
    if state in {"42P07", "42710"} or (state == "23505" and not writes):
        # Of two that make one name at once, the loser meets the system catalog's own unique index (23505).
        found = Conflict(f"{endpoint}: {said}", reason="AlreadyExists")
    elif kind in _DATA_CLASSES:
        found = _data_error(endpoint, said, writes=writes)
    elif state == _CANCELED:
        found = Retryable(f"{endpoint} did not answer in time: {said}", reason="Timeout")
    elif kind in _RETRYABLE_CLASSES or state == _READ_ONLY:
        found = Retryable(f"{endpoint} cannot do it now (SQLSTATE {state}): {said}")
    elif kind == "28" or state == "42501":
        found = Terminal(
            f"{endpoint} refused access: {said}: check the Secret and what its role may do", reason="AccessDenied"
        )
    elif state == "3D000":
        found = Terminal(
            f"{endpoint}: {said}: make the database, or correct spec.pgvector.database", reason="DatabaseNotFound"
        )
    elif state == "3F000":
        found = Terminal(
            f"{endpoint}: {said}: make the schema, or correct spec.pgvector.schema", reason="SchemaNotFound"
        )
    elif state == "42P01":
        found = NotFound(f"{endpoint}: {said}")
    else:
        found = Terminal(f"{endpoint} refused the request (SQLSTATE {state}): {said}", reason="RequestRefused")
    return found


def _data_error(endpoint: str, said: str, *, writes: bool) -> VectorwrightError:
    if writes:
        return BatchRejected(f"{endpoint} refused a record: {said}")
    return Terminal(f"{endpoint} refused a value: {said}", reason="InvalidRequest")


_BUSY = re.compile(
    r"too many (clients|connections)|connection slots|starting up|shutting down|not yet accepting|recovery"
)
_DENIED = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|role .* does not exist"
    r"|not permitted to log in|permission denied"
)
_NO_DATABASE = re.compile(r"database .* does not exist")
_UNTRUSTED = re.compile(r"certificate verify failed|does not match host name|server certificate")
_NO_TLS = re.compile(r"server does not support SSL")


def connection_error(error: psycopg.Error, endpoint: str, secrets: Iterable[str | None] = ()) -> VectorwrightError:
    """What a connection that did not come about means.

    libpq gives no SQLSTATE here, and servers may speak other languages than English: what is not recognised is a
    refused login where a password was sent and a fatal error came back, and otherwise worth another try.
    """
    text = safe_text(str(error).split("failed: ", 1)[-1], secrets)
    connection = error.pgconn
    sent_password = connection is not None and bool(connection.used_password)
    if _BUSY.search(text):
        return Retryable(f"{endpoint} takes no connection now: {text}")
    if _NO_DATABASE.search(text):
        return _by_state("3D000", endpoint, text, writes=False)
    if _UNTRUSTED.search(text):
        return Terminal(
            f"the certificate of {endpoint} is not trusted ({text}): set the CA bundle or the server name in spec.tls",
            reason=VERIFICATION_FAILED,
        )
    if _NO_TLS.search(text):
        return Terminal(
            f"{endpoint} speaks no TLS: turn it on there, or set spec.pgvector.sslMode: disable where the network is "
            "trusted",
            reason="TLSNotSupported",
        )
    if _DENIED.search(text) or (sent_password and "FATAL" in text):
        return _by_state("28000", endpoint, text, writes=False)
    return Retryable(f"{endpoint} cannot be reached: {text}", reason="Unreachable")
