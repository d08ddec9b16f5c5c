"""Errors of the launcher; each message says what is wrong and what to do."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """A cluster could not be chosen, built, started or reached."""


class KubectlError(ClusterError):
    """kubectl answered with an error; the message is what it wrote to stderr."""

    def __init__(self, arguments: tuple[str, ...], status: int, stderr: str) -> None:
        super().__init__(stderr.strip() or f"kubectl ended with status {status}")
        self.arguments = arguments
        self.status = status
        self.stderr = stderr
