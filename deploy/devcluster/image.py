"""The image of the checkout, built from its Dockerfile once for each state of what goes into it, and kept outside.

Docker builds it where an engine answers. Elsewhere buildah does, as root, on a base that debootstrap makes: nothing is
pulled. How this machine reaches packages (mirrors, proxies) is passed through while the image is built, and is not in
it; authorities that were added to the machine's certificates are in it, as they are in the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from deploy.devcluster import kind
from deploy.devcluster.errors import ClusterError
from deploy.devcluster.gobuild import Progress
from deploy.devcluster.node import requirements
from deploy.devcluster.package_sources import CERTIFICATES, PackageSources
from deploy.devcluster.paths import CHECKOUT, cache_directory, locked
from deploy.devcluster.processes import ManagedProcess, log_tail

IMAGE = "vectorwright:0.1.0"
"""What the image is called in ``deploy/kustomize``."""

_BASE = "localhost/vectorwright-base"
_BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
_KEPT = 2
"""Archives that stay in the cache, the newest: each has a gigabyte."""


def context_files(checkout: Path = CHECKOUT) -> list[Path]:
    """The files that go into the image: what ``.dockerignore`` lets through, and the two files that say how. Sorted."""
    allowed = [line[1:] for line in (checkout / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    found = [checkout / "Dockerfile", checkout / ".dockerignore"]
    for name in allowed:
        path = checkout / name
        members = path.rglob("*") if path.is_dir() else [path]
        found += [one for one in members if one.is_file() and "__pycache__" not in one.parts and one.suffix != ".pyc"]
    return sorted(found)


def digest(checkout: Path = CHECKOUT) -> str:
    """What the image depends on, as 20 hexadecimal digits."""
    found = hashlib.sha256(f"{IMAGE} {platform.machine()} {' '.join(_BASE_PACKAGES)}".encode())
    for path in context_files(checkout):
        content = path.read_bytes()
        found.update(f"{path.relative_to(checkout)} {len(content)} ".encode() + content)
    return found.hexdigest()[:20]


def ensure_image(progress: Progress) -> Path:
    """The image as an archive, in the format of ``docker save``; built first when it is not in the cache.

    Raises ClusterError with what to do where it cannot be built, or with the end of what the build wrote.
    """
    home = cache_directory() / "image"
    archive = home / f"{digest()}.tar"

    def waiting(seconds: float) -> None:
        if int(seconds) % 5 == 0:
            progress(f"another run is building the image; waiting for it ({seconds:.0f} s)")

    with locked(home / "lock", waiting):
        if archive.exists():
            os.utime(archive)
            return archive
        begun = time.monotonic()
        _build(home, archive, progress)
        progress(f"built the image in {time.monotonic() - begun:.0f} s: {archive}")
        for old in sorted(home.glob("*.tar"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            old.unlink()
    return archive


def _build(home: Path, archive: Path, progress: Progress) -> None:
    with _workplace(home) as place:
        partial = place / "image.tar"
        if kind.docker_answers():
            progress("building the image with Docker; about 3 minutes")
            _run(["docker", "build", "--tag", IMAGE, str(CHECKOUT)], place)
            _run(["docker", "save", "--output", str(partial), IMAGE], place)
        else:
            if platform.system() != "Linux" or os.geteuid() != 0:
                raise ClusterError("the image cannot be built: be root on Linux, or start Docker")
            requirements.ensure_packages(requirements.IMAGE_TOOLS, progress)
            _build_with_buildah(home, place, partial, progress)
        partial.replace(archive)


def _build_with_buildah(home: Path, place: Path, archive: Path, progress: Progress) -> None:
    sources = PackageSources.of_this_machine()
    base = _base(home, place, sources, progress)
    progress("building the image with buildah; about 2 minutes")
    # The machine's own storage of images, and its drivers, are left alone. This isolation needs no runtime.
    environment = {**os.environ, "PATH": requirements.SEARCHED, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    buildah = ["buildah", "--root", str(place / "storage"), "--runroot", str(place / "run")]
    container = _run([*buildah, "from", "--name", "base", "scratch"], place, environment).strip().splitlines()[-1]
    _run([*buildah, "add", "--quiet", container, str(base), "/"], place, environment)
    _run([*buildah, "commit", "--quiet", "--rm", container, _BASE], place, environment)
    mounts = [word for mount in sources.mounts(place) for word in ("--volume", mount)]
    build = ["bud", "--format", "docker", "--build-arg", f"BASE={_BASE}", *mounts, "--tag", IMAGE, str(CHECKOUT)]
    _run([*buildah, *build], place, environment)
    _run([*buildah, "push", IMAGE, f"docker-archive:{archive}:docker.io/library/{IMAGE}"], place, environment)


def _base(home: Path, place: Path, sources: PackageSources, progress: Progress) -> Path:
    """A tar of a small system with Python, of this machine's own distribution and release."""
    key = hashlib.sha256(f"{sources.suite} {sources.mirror} {platform.machine()} {' '.join(_BASE_PACKAGES)}".encode())
    authorities = sorted(CERTIFICATES.glob("**/*.crt"))
    for authority in authorities:
        key.update(authority.read_bytes())
    archive = home / f"base-{key.hexdigest()[:20]}" / "base.tar"
    if archive.exists():
        return archive
    progress(f"making a base of {sources.suite} with debootstrap; about a minute, once")
    root = place / "base"
    # A directory for temporary files that only this machine has would be looked for in the base, too.
    environment = {**os.environ, "PATH": requirements.SEARCHED, "TMPDIR": "/tmp"}
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(_BASE_PACKAGES)}", sources.suite]
    _run([*command, str(root), sources.mirror], place, environment)
    for number, authority in enumerate(authorities):
        shutil.copyfile(authority, root / CERTIFICATES.relative_to("/") / f"machine-{number}.crt")
    _run(["chroot", str(root), "update-ca-certificates"], place, environment)
    shutil.rmtree(root / "var" / "cache" / "apt")
    shutil.rmtree(root / "var" / "lib" / "apt" / "lists")
    archive.parent.mkdir(exist_ok=True)
    _run(["tar", "-C", str(root), "-cf", str(place / "base.tar"), "."], place)
    (place / "base.tar").replace(archive)
    return archive


@contextlib.contextmanager
def _workplace(home: Path) -> Iterator[Path]:
    """A directory beside the archives; what a killed build left there is removed first."""
    for abandoned in home.glob("build-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix="build-", dir=home))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _run(command: list[str], place: Path, environment: dict[str, str] | None = None) -> str:
    """Run a command that ends with this process; what it wrote. Raises ClusterError with the end of that."""
    log = place / "build.log"
    log.unlink(missing_ok=True)
    with ManagedProcess.start(command, log=log, env=environment) as process:
        status = process.wait()
    if status != 0:
        raise ClusterError(f"the image could not be built: '{' '.join(command[:6])} …' failed:\n{log_tail(log, 30)}")
    return log.read_text(errors="replace")
