"""One image can hold all SDKs, and the operator imports none of them.

- all of them live in one process, whichever comes first, and a handle of every store opens beside the others
- importing the operator's commands and controllers imports no SDK
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.store_samples import SAMPLES

from vectorwright.stores.registry import MODULES

ROOT = Path(__file__).resolve().parents[2]
SDKS = (
    "pinecone",
    "qdrant_client",
    "weaviate",
    "pymilvus",
    "psycopg",
    "lancedb",
    "faiss",
    "obstore",
    "cryptography",
)
_OPEN_ALL = """
import asyncio
from scripts.store_samples import SAMPLES
from vectorwright.stores.registry import open_store

async def main():
    stores = [open_store(connection) for connection in SAMPLES.values()]
    assert all(store.capabilities.metrics for store in stores)
    for store in stores:
        await store.close()

asyncio.run(main())
print("opened", len(SAMPLES))
"""
_TELL_LOADED = "import sys; print('loaded', *sorted({name.partition('.')[0] for name in sys.modules}))"


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    path = os.pathsep.join((str(ROOT / "operator"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("order", ["as they are listed", "the other way round"])
def test_all_sdks_live_in_one_process_with_a_handle_of_every_store(order: str) -> None:
    names = SDKS if order == "as they are listed" else SDKS[::-1]
    assert run(f"import {', '.join(names)}\n{_OPEN_ALL}").split() == ["opened", str(len(SAMPLES))]


def test_there_is_a_handle_of_every_provider() -> None:
    assert {connection.provider for connection in SAMPLES.values()} == set(MODULES)


@pytest.mark.parametrize(
    "module",
    [
        "vectorwright.cli",
        "vectorwright.cli.operate",
        "vectorwright.controllers.runtime",
        "vectorwright.stores.registry",
        "vectorwright.api.crdgen",
    ],
)
def test_importing_the_operator_imports_no_sdk(module: str) -> None:
    loaded = run(f"import {module}\n{_TELL_LOADED}").split()
    assert "vectorwright" in loaded
    assert not {*SDKS, "grpc", "pyarrow", "numpy", "google"} & set(loaded)
