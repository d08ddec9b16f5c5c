"""What a worker is given: the directory that :mod:`.runspec` describes."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from vectorwright.errors import Terminal
from vectorwright.observability.logs import register_secret
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings

from .runspec import RunSpec

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
    if (spec.embedder is None) == (spec.precomputed_field is None):
        message = f"{path} names {'no origin' if spec.embedder is None else 'two origins'} of the vectors"
        raise Terminal(message, reason="InvalidRun")
    return spec


def read_secret(directory: Path, use: str) -> StoreCredentials:
    """The credentials for ``use`` (store, embedder or source). What is absent is None; nothing of it is ever logged."""
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
    """How the run's store is reached."""
    return Connection(
        provider=spec.store.provider,
        settings=spec.store.settings,
        credentials=read_secret(directory, "store"),
        tls=TlsSettings(read_ca(directory, "store"), spec.store.server_name, spec.store.insecure_skip_verify),
        timeout=spec.store.timeout,
        max_concurrency=(spec.batch.workers or 4) + 2,
    )
