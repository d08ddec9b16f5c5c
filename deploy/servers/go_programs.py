"""Servers that come as Go modules: each is built once from the pins in the folder of its name."""

from __future__ import annotations

from pathlib import Path

from deploy.devcluster.gobuild import GoProgram

_PINS = Path(__file__).parent


def weaviate_program() -> GoProgram:
    """The Weaviate server. Build it with ``ensure_built(program, progress)`` of :mod:`deploy.devcluster.gobuild`."""
    return GoProgram(
        name="weaviate-server",
        label="the Weaviate server",
        source=_PINS / "weaviate",
        package="github.com/weaviate/weaviate/cmd/weaviate-server",
        duration="3 minutes",
        without_go="the Weaviate server cannot be built: no Go toolchain was found",
        instead=", or leave out what needs Weaviate",
    )


def versitygw_program() -> GoProgram:
    """versitygw: an S3 server over a folder."""
    return GoProgram(
        name="versitygw",
        label="the S3 server versitygw",
        source=_PINS / "versitygw",
        package="github.com/versity/versitygw/cmd/versitygw",
        duration="1 minute",
        without_go="the S3 server versitygw cannot be built: no Go toolchain was found",
        instead=", or leave out what needs S3",
    )
