"""Images on their way to a node: one is written here, others come as archives."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path

from deploy.devcluster.errors import ClusterError
from deploy.devcluster.gobuild import Progress
from deploy.devcluster.node import programs
from deploy.devcluster.node.machine import entering, environment


def load_image(node: Path, archive: Path, progress: Progress) -> None:
    """Give the images of ``archive`` to the node in the directory ``node``, which another run may have started."""
    pid = int((node / "pid").read_text())
    import_image(pid, programs.ensure_built(progress).ctr, archive)


def import_image(pid: int, ctr: Path, archive: Path) -> None:
    """Give containerd the images of an archive, in the format of ``docker save``. Raises ClusterError."""
    command = entering(pid, ctr, "-n", "k8s.io", "images", "import", "-")
    # What the archive is called may be hidden from the node: it is read from here.
    with archive.open("rb") as content:
        done = subprocess.run(
            command, env=environment(), stdin=content, capture_output=True, text=True, timeout=600, check=False
        )
    if done.returncode != 0:
        raise ClusterError(f"containerd refused the image {archive}: {(done.stderr or done.stdout).strip()}")


def write_image(archive: Path, name: str, program: Path) -> None:
    """Write an image that holds one static program and runs it, in the format of ``docker save``."""
    layer = _tar({program.name: (program.read_bytes(), 0o755)})
    config = json.dumps(
        {
            "architecture": "amd64" if _is_amd64(program) else "arm64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer).hexdigest()}"]},
        }
    ).encode()
    config_name = f"{sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {config_name: config, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    archive.write_bytes(_tar({path: (content, 0o644) for path, content in files.items()}))


def _is_amd64(program: Path) -> bool:
    """By the machine in the ELF header: 62 is x86-64."""
    return program.read_bytes()[18:20] == bytes((62, 0))


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
