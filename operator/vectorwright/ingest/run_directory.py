"""What a worker is given: the directory that :mod:`.runspec` describes."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from vectorwright.errors import Terminal
from vectorwright.observability.logs import register_secret
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings

from .runspec import RunSpec, StoreOrigin, StorePlace

_FILES = ("token", "username", "password")


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


def read_secret(directory: Path, use: str) -> StoreCredentials:
    """The credentials for ``use``: store, source_store, embedder or source.

    What is absent is None; nothing of it is ever logged.
    """
    values: dict[str, str] = {}
    for name in _FILES:
        path = directory / "credentials" / use / name
        if path.is_file():
            # Secrets made from files carry a line end.
            values[name] = path.read_text(encoding="utf-8", errors="replace").strip("\r\n")
    for name in ("token", "password"):
        if values.get(name):
            register_secret(values[name])
    return StoreCredentials(**values)


def read_ca(directory: Path, use: str) -> str | None:
    """The certificate authorities for ``use``, PEM; None: the system's."""
    path = directory / "tls" / use / "ca.crt"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


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
