"""The worker's port: progress out, budget in."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from vectorwright.errors import Terminal
from vectorwright.ingest.control_server import Address, ControlServer, serving
from vectorwright.ingest.limits import Limits, Share
from vectorwright.ingest.progress import Progress
from vectorwright.ingest.runspec import RunState


def make() -> tuple[ControlServer, Progress, Limits]:
    progress, limits = Progress("run-7"), Limits(Share(requests_per_second=5))
    return ControlServer(progress.state, limits), progress, limits


async def test_progress_is_told_and_a_budget_taken() -> None:
    server, progress, limits = make()
    progress.wrote(42)
    async with (
        serving(server, Address("127.0.0.1", 0)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        state = RunState.model_validate_json((await client.get("/progress")).content)
        assert (state.run_id, state.counts.vectors_written) == ("run-7", 42)
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.post("/budget", json={"requestsPerSecond": 2.5})).status_code == 204
        assert limits.requests.rate == 2.5
        for body in (b"[]", b"{", b'{"requestsPerSecond": -1}', b'{"nonsense": 1}'):
            assert (await client.post("/budget", content=body)).status_code == 400
        assert (await client.post("/budget", content=b"x" * 5000)).status_code == 413
        assert limits.requests.rate == 2.5


async def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    server, _, _ = make()
    path = tmp_path / "s"
    async with serving(server, Address(unix=path)):
        assert path.stat().st_mode & 0o777 == 0o600
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://w") as client:
            assert (await client.get("/progress")).status_code == 200
    assert not path.exists()


async def test_a_port_that_is_taken() -> None:
    server, _, _ = make()
    async with serving(server, Address("127.0.0.1", 0)) as port:
        with pytest.raises(Terminal) as error:
            async with serving(server, Address("127.0.0.1", port)):
                pass
    assert error.value.reason == "ListenFailed"


@pytest.mark.parametrize(
    ("text", "address"),
    [("0.0.0.0:80", Address("0.0.0.0", 80)), ("[::1]:8080", Address("::1", 8080)), (":9000", Address(None, 9000))],
)
def test_addresses(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["", "8080", "host:", "host:x", "host:70000"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"0\.0\.0\.0:8080"):
        Address.parse(text)
