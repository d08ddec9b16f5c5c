"""A Qdrant binary of the tests, which ``QDRANT_BIN`` names, is run as tests need it.

What is checked, with a program in its place that reads the same variables: it gets its addresses and keys from its
environment, none of the test's own settings, and other keys when it is started again; it stops. Where a binary is
named: that the two keys, tokens and their refusals are in it as the double has them.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from tests.rotation.issuers.qdrant_tokens import lets_in
from tests.support.qdrant import jwt
from tests.support.qdrant_binary import BINARY, QdrantBinary, qdrant_server, service

pytestmark = pytest.mark.server

FIRST, SECOND = "the-first-key-of-a-qdrant-binary", "the-second-key-of-a-qdrant-binary"
STAND_IN = """#!{python}
import os, signal, sys, threading
sys.path[:0] = {path!r}
from tests.support.loopback_http import LoopbackHttp
from tests.support.qdrant.access import AccessKeys, ServiceKeys
from tests.support.qdrant.double import QdrantDouble
from tests.support.qdrant import double

class StandIn(QdrantDouble):
    def start(self):
        self.port, self.grpc_port = (int(os.environ["QDRANT__SERVICE__" + name]) for name in ("HTTP_PORT", "GRPC_PORT"))
        super().start()

ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
assert "QDRANT__SERVICE__OF_THE_TEST" not in os.environ
running = StandIn(environment=lambda: os.environ)
ended.wait()
running.close()
"""


@pytest.fixture
def program(tmp_path: Path) -> str:
    """The binary, or what stands in for it."""
    if BINARY:
        return BINARY
    path = tmp_path / "qdrant-stand-in"
    path.write_text(STAND_IN.format(python=sys.executable, path=sys.path))
    path.chmod(0o755)
    return str(path)


async def test_keys_are_read_at_each_start(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "QDRANT__SERVICE__OF_THE_TEST", "1")
    keys = service(FIRST)
    with qdrant_server(tmp_path / "data", lambda: keys, binary=program) as server:
        assert isinstance(server, QdrantBinary)
        assert [await lets_in(server, key) for key in (FIRST, SECOND, None)] == [True, False, False]
        port = server.port
        server.stop()
        keys.update(service(FIRST, SECOND))
        server.start()
        assert server.port == port
        assert [await lets_in(server, key) for key in (FIRST, SECOND, None)] == [True, True, False]
        until = int(time.time()) + 60
        assert [await lets_in(server, jwt(key, exp=until, access="r")) for key in (FIRST, SECOND, "?")] == [
            True,
            True,
            False,
        ]
        process = server.process
    assert process.poll() is not None
