"""The messages of Milvus' API, out of pymilvus, without pymilvus itself.

The generated modules are imported from pymilvus' folder under a package of our own name, so that the package's
``__init__`` is not run: that imports pandas, and takes 136 MiB where the messages take 47 (pymilvus 3.0.2). Its client
repeats calls 75 times on its own, and packs vectors value by value; a channel and the messages are all that is needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = f"{__package__}._generated"


def _module(name: str) -> Any:
    if _PACKAGE not in sys.modules:
        found = importlib.util.find_spec("pymilvus")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'pymilvus'", name="pymilvus")
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(Path(found.submodule_search_locations[0]) / "grpc_gen")]
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.{name}")


common_pb2 = _module("common_pb2")
schema_pb2 = _module("schema_pb2")
milvus_pb2 = _module("milvus_pb2")


def pairs(values: dict[str, str]) -> list[Any]:
    """Keys and values as Milvus takes parameters."""
    return [common_pb2.KeyValuePair(key=key, value=value) for key, value in values.items()]
