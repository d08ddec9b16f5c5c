"""What a worker is given: the directory that :mod:`.runspec` describes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from vectorwright.errors import Terminal
from vectorwright.observability.logs import register_secret
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings

from .runspec import RunSpec, StoreOrigin, StorePlace

T = TypeVar("T")

CURRENT = "..data"
"""Link to the directory that holds the files of now, as in a pod's projected volume: the kubelet (AtomicWriter) and the
operator's own child runner replace all files at once by replacing it."""
_FILES = ("token", "username", "password")
_SETTLING = 2.0
"""Seconds for which files are read anew that were replaced while they were read: a kubelet does it once a minute."""


def read_run(directory: Path) -> RunSpec:
    """The run. Raises Terminal (``InvalidRun``) when ``run.json`` is absent or not what this version understands."""
    path = directory / "run.json"
    try:
        spec = RunSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        raise Terminal(f"{path} cannot be read: {error.strerror}", reason="InvalidRun") from None
    except ValidationError as error:
        # Only places and kinds of errors are told: values are nobody's business.
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['type']}" for one in error.errors()[:5])
        message = (
            f"{path} is not a run that this version understands ({wrong}): do operator and worker differ in version?"
        )
        raise Terminal(message, reason="InvalidRun") from None
    origins = [origin for origin in (spec.embedder, spec.precomputed_field, spec.source_store) if origin is not None]
    if len(origins) != 1:
        message = f"{path} names {'two origins' if origins else 'no origin'} of the vectors"
        raise Terminal(message, reason="InvalidRun")
    return spec


def at_one_moment(directory: Path, read: Callable[[Path], T]) -> T:
    """What ``read`` finds in files that may be replaced meanwhile: a user name and a password that belong together.

    ``read`` is called with the directory that the files are in.
    """
    link = directory / CURRENT
    ends = time.monotonic() + _SETTLING
    while link.is_symlink() and time.monotonic() < ends:
        place = link.resolve()
        found = read(place)
        if link.resolve() == place:
            return found
    return read(directory)


def read_secret(directory: Path, use: str) -> StoreCredentials:
    """The credentials for ``use``: store, source_store, embedder or source.

    What is absent is None; nothing of it is ever logged.
    """
    values: dict[str, str] = {}
    for name in _FILES:
        path = directory / "credentials" / use / name
        if (text := _text(path)) is not None:
            # Secrets made from files carry a line end.
            values[name] = text.strip("\r\n")
    for name in ("token", "password"):
        if values.get(name):
            register_secret(values[name])
    return StoreCredentials(**values)


def read_ca(directory: Path, use: str) -> str | None:
    """The certificate authorities for ``use``, PEM; None: the system's."""
    return _text(directory / "tls" / use / "ca.crt")


def _text(path: Path) -> str | None:
    """None where there is no such file; it may vanish at any moment."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def store_connection(spec: RunSpec, directory: Path) -> Connection:
    """How the store that the run writes to is reached."""
    return _connection(spec.store, "store", directory, (spec.batch.workers or 4) + 2)


def origin_connection(spec: RunSpec, origin: StoreOrigin, directory: Path) -> Connection:
    """How the store that a copy reads from is reached."""
    return _connection(origin, "source_store", directory, (spec.batch.workers or 4) + 2)


def _connection(place: StorePlace, use: str, directory: Path, concurrency: int) -> Connection:
    return Connection(
        provider=place.provider,
        settings=place.settings,
        credentials=read_secret(directory, use),
        tls=TlsSettings(read_ca(directory, use), place.server_name, place.insecure_skip_verify),
        timeout=place.timeout,
        max_concurrency=concurrency,
        namespace=place.namespace,
    )
