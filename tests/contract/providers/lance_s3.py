"""Lance on S3: a bucket of its own a test, on one server."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar
from xml.sax.saxutils import escape

import pytest
from tests.contract.providers.base import SECRET, Provider
from tests.support.loopback_http import Response
from tests.support.s3 import VersitygwServer, s3_bucket, s3_connection

from vectorwright.stores.registry import Connection, StoreCredentials

_CODES = {
    400: "InvalidRequest",
    401: "InvalidToken",
    403: "AccessDenied",
    404: "NoSuchKey",
    409: "OperationAborted",
    413: "EntityTooLarge",
    422: "InvalidRequest",
    429: "SlowDown",
    500: "InternalError",
    502: "BadGateway",
    503: "ServiceUnavailable",
}


class LanceS3(Provider):
    """Over the S3 API."""

    name = "lance-s3"
    speaks_http = True
    checks_credentials = True
    cannot: ClassVar = {
        "http alone": "its libraries send a failed request again by themselves: test_faults.py and "
        "test_lance_s3_faults.py have the same with faults that stay",
        "retry-after": "its libraries tell no header of an answer",
    }
    tuned: ClassVar = {"num_partitions": (8, 16), "versions.keep_seconds": (600, 900)}

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.server: VersitygwServer = request.getfixturevalue("s3_server")
        self.bucket = s3_bucket(self.server)

    def connection(self) -> Connection:
        return self.at(self.server.host, self.server.port)

    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        del grpc_port
        return s3_connection(self.server, self.bucket, endpoint=f"http://{host}:{port}")

    def origin(self) -> str:
        return self.server.url

    def restart(self) -> None:
        self.server.stop()
        self.server.start()

    def refusal(self, status: int, text: str) -> Response:
        code = _CODES.get(status, "InternalError")
        error = f"<Error><Code>{code}</Code><Message>{escape(text)}</Message></Error>"
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n{error}'
        return Response(body.encode(), status, {"Content-Type": "application/xml"})

    def wrong_credentials(self) -> Connection:
        credentials = StoreCredentials(username=self.server.access_key, password=f"not {SECRET}")
        return replace(self.connection(), credentials=credentials)
