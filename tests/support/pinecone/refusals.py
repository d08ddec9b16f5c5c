"""Refusals of the service: the control plane and the data plane say them in different forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CONTROL = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
}
_DATA = {400: 3, 404: 5, 409: 6, 403: 7, 429: 8, 401: 16}
"""gRPC codes."""


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An answer that is no success."""

    def __init__(self, status: int, message: str, *, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})

    def of_control_plane(self) -> dict[str, Any]:
        """The body of the control plane."""
        code = self.code or _CONTROL.get(self.status, "UNKNOWN")
        return {"error": {"code": code, "message": self.message}, "status": self.status}

    def of_data_plane(self) -> dict[str, Any]:
        """The body of the data plane."""
        return {"code": _DATA.get(self.status, 2), "message": self.message, "details": []}

    def of_token_endpoint(self) -> dict[str, Any]:
        """The body of the endpoint that gives out tokens."""
        error = {400: "invalid_request", 401: "access_denied", 403: "access_denied"}.get(self.status, "server_error")
        return {"error": error, "error_description": self.message}
