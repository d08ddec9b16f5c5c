"""Make ``.venv`` hold exactly what uv.lock says. Standard library only; called by bootstrap.sh.

Safe to run several times at once in one checkout, and done in milliseconds when nothing has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

UV_VERSION = "0.13.8"
"""The uv that wrote uv.lock: another one may read it differently."""

CHECKOUT = Path(__file__).resolve().parents[1]
VENV = CHECKOUT / ".venv"
STAMP = VENV / ".bootstrapped"
_BEGUN = time.monotonic()


def say(message: str) -> None:
    print(f"[{time.monotonic() - _BEGUN:5.1f}s] {message}", flush=True)


def fail(message: str) -> None:
    print(f"bootstrap: {message}", file=sys.stderr, flush=True)
    sys.exit(1)


def cache_directory() -> Path:
    """``${XDG_CACHE_HOME:-$HOME/.cache}/vectorwright``, or a place in the checkout for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():
        return Path(base) / "vectorwright"
    home = os.environ.get("HOME", "")
    return (Path(home) if home else CHECKOUT) / ".cache" / "vectorwright"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is setting up; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def fingerprint() -> str:
    """What the content of .venv depends on."""
    digest = hashlib.sha256(f"{UV_VERSION} {sys.version} {CHECKOUT}".encode())
    for name in ("pyproject.toml", "uv.lock"):
        digest.update((CHECKOUT / name).read_bytes())
    return digest.hexdigest()


def up_to_date() -> bool:
    if not (VENV / "bin" / "python").exists():
        return False
    try:
        return STAMP.read_text() == fingerprint()
    except FileNotFoundError:
        return False


def run(command: list[str | Path], **environment: str) -> None:
    done = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **environment}, check=False)
    if done.returncode != 0:
        fail(f"'{' '.join(str(part) for part in command)}' ended with status {done.returncode} (its output is above)")


def ensure_venv_works() -> None:
    """Debian ships Python without what makes a virtual environment; add it where that can be done."""
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        fail(f"{sys.executable} cannot make virtual environments: as root, 'apt-get install {package}'")
    say(f"installing {package}, which {sys.executable} lacks")
    run(["apt-get", "update", "-qq"])
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], DEBIAN_FRONTEND="noninteractive")


def ensure_uv(cache: Path) -> Path:
    """uv in a virtual environment of its own: never in the user's site-packages."""
    home = cache / "tools" / f"uv-{UV_VERSION}"
    uv = home / "bin" / "uv"
    with locked(cache / "tools.lock"):
        if works(uv):
            return uv
        ensure_venv_works()
        say(f"installing uv {UV_VERSION} into {home}")
        run([sys.executable, "-m", "venv", "--clear", home])
        run(
            [
                home / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                f"uv=={UV_VERSION}",
            ]
        )
        if not works(uv):
            fail(f"{uv} does not run")
    return uv


def works(uv: Path) -> bool:
    try:
        return subprocess.run([uv, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def system_trusts_something() -> bool:
    """Whether the system has a certificate store (a minimal container has none, and uv brings its own)."""
    paths = ssl.get_default_verify_paths()
    bundles = [paths.cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]
    return sys.platform == "darwin" or any(bundle and Path(bundle).exists() for bundle in bundles)


def sync(cache: Path) -> None:
    uv = ensure_uv(cache)
    say("installing the locked dependencies into .venv")
    environment = {"UV_PYTHON_DOWNLOADS": "never", "UV_PROJECT_ENVIRONMENT": str(VENV)}
    environment["UV_CACHE_DIR"] = os.environ.get("UV_CACHE_DIR") or str(cache / "uv")
    if system_trusts_something():
        # As git, go and pip do: behind a company's proxy only the system's store knows the proxy's authority.
        environment["UV_SYSTEM_CERTS"] = os.environ.get("UV_SYSTEM_CERTS") or "true"
    STAMP.unlink(missing_ok=True)
    run([uv, "sync", "--quiet", "--frozen", "--all-extras", "--python", sys.executable], **environment)
    STAMP.write_text(fingerprint())


def main() -> None:
    if up_to_date():
        return
    with locked(CHECKOUT / ".cache" / "bootstrap.lock"):
        if not up_to_date():
            sync(cache_directory())
            say("the tools are ready")


if __name__ == "__main__":
    main()
