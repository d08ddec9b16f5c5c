"""The messages of Qdrant's gRPC API, which its SDK ships, without the SDK.

``import qdrant_client`` brings a second client, REST models and what they need: 35 MiB that an operator would carry for
nothing. So the package of messages in it is loaded by itself, under a name of ours; where the SDK is imported already,
its own is used. The message classes are the same either way.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdrant_client import grpc

__all__ = ["grpc"]

_SDK = "qdrant_client"
_NAME = "vectorwright.stores.qdrant.sdk_messages"


def _load() -> Any:
    """The module ``qdrant_client.grpc``. Raises ModuleNotFoundError where the SDK is not installed."""
    if _SDK in sys.modules:
        return importlib.import_module(f"{_SDK}.grpc")
    found = importlib.util.find_spec(_SDK)  # runs nothing of it
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {_SDK!r}", name=_SDK)
    folder = Path(found.submodule_search_locations[0]) / "grpc"
    spec = importlib.util.spec_from_file_location(
        _NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        return importlib.import_module(f"{_SDK}.grpc")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)
    return module


if not TYPE_CHECKING:
    grpc = _load()
