"""A proxy in front of a real PostgreSQL server that reads the frontend's messages, and fails statements when told to.

A request is a connection or a statement. Faults are SQLSTATEs, silence, a reset connection, and bytes of another
protocol. ROLLBACK always passes: it is how a client recovers, on the connection that the fault left behind.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import Self

from tests.contract.fault_plan import NOISE, FaultPlan
from tests.support.tcp_listener import TcpListener, reset

SQLSTATES = {
    "401": ("28P01", "password authentication failed for user"),
    "403": ("42501", "permission denied"),
    "404": ("42P01", "relation does not exist"),
    "409": ("42P07", "relation already exists"),
    "413": ("54000", "program limit exceeded"),
    "429": ("53300", "sorry, too many clients already"),
    "500": ("XX000", "internal error"),
    "503": ("57P03", "the database system is starting up"),
}
"""Fault → SQLSTATE and what it says."""
_OF_STATEMENTS = {"404", "409", "413"}
"""Faults that no connection meets: they are about a statement."""
_ASKS_FOR_ENCRYPTION = {80877103, 80877104}
_CANCELS = 80877102
_SYNC = b"S"


class _Ended(Exception):  # noqa: N818
    """The peer is gone, or the test is over."""


@dataclass(slots=True)
class _Session:
    client: socket.socket
    server: socket.socket
    status: bytes = b"I"
    """Of the transaction, as the server last told it: I, T or E."""


class PostgresFaultProxy(TcpListener):
    """Listens in front of ``target``, with the faults of ``plan``. Use as a context manager."""

    def __init__(self, target: tuple[str, int], plan: FaultPlan) -> None:
        self._target, self._plan = target, plan
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        super().__init__("postgres-fault-proxy")

    def _accepted(self, client: socket.socket) -> None:
        self._in_thread(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(self._target, 10)
        server.settimeout(None)
        with self._guard:
            self._open |= {client, server}
        session = _Session(client, server)
        answers = threading.Thread(target=self._answers, args=(session,), name="postgres-fault-proxy-answers")
        answers.start()
        try:
            with contextlib.suppress(OSError, _Ended):
                self._begin(session)
                while True:
                    self._pass_or_fail(session)
        finally:
            for one in (server, client):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            answers.join()
            server.close()
            client.close()
            with self._guard:
                self._open -= {client, server}

    def _begin(self, session: _Session) -> None:
        while True:
            head = _read(session.client, 8)
            code = int.from_bytes(head[4:], "big")
            if code not in _ASKS_FOR_ENCRYPTION:
                break
            session.client.sendall(b"N")
        rest = _read(session.client, int.from_bytes(head[:4], "big") - 8)
        fault = None if code == _CANCELS else self._plan.next("postgres")
        if fault is not None and fault not in _OF_STATEMENTS:
            self._fail(session, fault, "FATAL")
            raise _Ended
        session.server.sendall(head + rest)

    def _pass_or_fail(self, session: _Session) -> None:
        kind, body = _message(session.client)
        statement = {b"Q": body, b"P": body.partition(b"\0")[2]}.get(kind)
        fault = None
        if statement is not None and not statement.lstrip().upper().startswith(b"ROLLBACK"):
            fault = self._plan.next("postgres")
        if fault is None:
            session.server.sendall(kind + (len(body) + 4).to_bytes(4, "big") + body)
            return
        while kind == b"P" and _message(session.client)[0] != _SYNC:
            pass  # the rest of the statement goes nowhere either
        self._fail(session, fault, "ERROR")

    def _fail(self, session: _Session, fault: str, severity: str) -> None:
        match fault:
            case "timeout":
                self._plan.over.wait(60)
                raise _Ended
            case "reset":
                reset(session.client)
                raise _Ended
            case "garbage" | "404 of a proxy":
                session.client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                raise _Ended
        state, says = SQLSTATES[fault]
        fields = {"S": severity, "V": severity, "C": state, "M": f"{says} {NOISE}", "D": f"detail {NOISE}"}
        body = b"".join(key.encode() + value.encode() + b"\0" for key, value in fields.items()) + b"\0"
        answer = b"E" + (len(body) + 4).to_bytes(4, "big") + body
        if severity == "ERROR":
            answer += b"Z\0\0\0\5" + (b"E" if session.status == b"T" else session.status)
        session.client.sendall(answer)

    def _answers(self, session: _Session) -> None:
        with contextlib.suppress(OSError, _Ended):
            while True:
                kind, body = _message(session.server)
                if kind == b"Z":
                    session.status = body
                session.client.sendall(kind + (len(body) + 4).to_bytes(4, "big") + body)
        with contextlib.suppress(OSError):
            session.client.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._plan.disarm()
        self.close()

    def _end_all(self) -> None:
        with self._guard:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


def _read(source: socket.socket, count: int) -> bytes:
    """Exactly so many bytes."""
    parts = bytearray()
    while len(parts) < count:
        data = source.recv(count - len(parts))
        if not data:
            raise _Ended
        parts += data
    return bytes(parts)


def _message(source: socket.socket) -> tuple[bytes, bytes]:
    """Type and body of the next message."""
    head = _read(source, 5)
    return head[:1], _read(source, int.from_bytes(head[1:], "big") - 4)
