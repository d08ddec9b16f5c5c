"""A real Weaviate server on loopback."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from deploy.servers.weaviate_server import WeaviateServer, start_weaviate_server

__all__ = ["API_KEY", "WeaviateServer", "clear_weaviate"]

API_KEY = "s3cret-that-never-shows"


@pytest.fixture(scope="session")
def weaviate_server(request: pytest.FixtureRequest) -> Iterator[WeaviateServer]:
    """One server for the whole session, which asks for :data:`API_KEY`: its place is this process's own.

    Its program is built first, which takes some minutes, where that was never done.
    """
    base = Path(tempfile.mkdtemp(prefix="vectorwright-weaviate-"))
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def tell(message: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{message}", flush=True)  # noqa: T201

    server = start_weaviate_server(base / "data", api_key=API_KEY, remove=base, progress=tell)
    yield server
    server.stop()
    shutil.rmtree(base)


def clear_weaviate(server: WeaviateServer) -> None:
    """Delete everything that the server holds."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=f"{server.url}/v1", headers=headers, timeout=60, trust_env=False) as client:
        for alias in client.get("/aliases").raise_for_status().json()["aliases"] or ():
            client.delete(f"/aliases/{alias['alias']}")
        for collection in client.get("/schema").raise_for_status().json()["classes"] or ():
            client.delete(f"/schema/{collection['class']}").raise_for_status()
