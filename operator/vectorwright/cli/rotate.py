"""``vectorwright rotate``: have a key replaced now, and allow the revocation of the one before."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime

from vectorwright.api.v1alpha1 import APIKeyRotation
from vectorwright.api.v1alpha1.apikeyrotation import RotationRecord
from vectorwright.api.v1alpha1.common import ANNOTATION_CONFIRM_REVOKE, ANNOTATION_ROTATE
from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.kube import resources

from .connecting import Cluster, add_cluster_flags, connected

_DESCRIPTION = (
    "Ask the operator to replace the key of an APIKeyRotation now. With --wait, follow it until the key before is "
    "proved to be refused. With --confirm, say the word that the revocation of the key before waits for."
)
POLL_SECONDS = 0.5


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("rotate", help="have a key replaced now", description=_DESCRIPTION)
    parser.add_argument("name", help="name of the APIKeyRotation")
    parser.add_argument("--wait", action="store_true", help="follow the rotation until it is through")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="give up waiting after so long; 600 if not said",
    )
    parser.add_argument(
        "--confirm",
        action="store_true",
        help="allow the revocation of the key before; when a rotation waits for that, no other one is begun",
    )
    add_cluster_flags(parser, "namespace of the APIKeyRotation")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1")
    return float(text)


def run(args: argparse.Namespace) -> int:
    """Run the command. Exit status 1 when the key was not replaced, 130 when it was interrupted."""
    try:
        print(asyncio.run(_rotate(args)))
    except VectorwrightError as error:
        print(f"vectorwright rotate: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vectorwright rotate: no longer followed; the rotation goes on", file=sys.stderr)
        return 130
    return 0


async def _rotate(args: argparse.Namespace) -> str:
    async with connected(args) as cluster:
        rotation = await _get(cluster, args.name)
        waiting = rotation.status.step in ("Grace", "Revoke") and rotation.status.previous is not None
        if args.confirm and waiting:
            request = rotation.status.handled_request or ""
            await _confirm(cluster, rotation)
        else:
            request = datetime.now(UTC).isoformat(timespec="microseconds")
            await _annotate(cluster, args.name, ANNOTATION_ROTATE, request)
        if not args.wait:
            return f"{args.name}: " + (
                "the revocation is allowed" if args.confirm and waiting else "asked for a new key"
            )
        return await _follow(cluster, args, request, rotation.status.revision or 0)


async def _follow(cluster: Cluster, args: argparse.Namespace, request: str, revision: int) -> str:
    """Tell each step, until the rotation that was asked for is through. Raises Terminal, Retryable."""
    deadline = time.monotonic() + args.timeout
    told = ""
    while time.monotonic() < deadline:
        rotation = await _get(cluster, args.name)
        status = rotation.status
        if status.handled_request == request:
            if status.step == "Idle" and (status.revision or 0) >= revision:
                return _result(args.name, rotation)
            stalled = next((item for item in status.conditions or () if item.type == "Stalled"), None)
            if stalled is not None:
                raise Terminal(f"{args.name}: {stalled.reason}: {stalled.message}")
            if args.confirm and status.step == "Revoke":
                await _confirm(cluster, rotation)
        line = f"{status.step or 'Pending'}: {status.blocked_by}" if status.blocked_by else status.step or "Pending"
        if line != told:
            print(line, file=sys.stderr, flush=True)
            told = line
        await asyncio.sleep(POLL_SECONDS)
    raise Retryable(f"{args.name}: not through after {args.timeout:.0f} s; it goes on ({told})")


def _result(name: str, rotation: APIKeyRotation) -> str:
    status = rotation.status
    last: RotationRecord | None = status.history[0] if status.history else None
    current = status.current.id if status.current is not None else "?"
    if last is None or last.revoked_key_id is None:
        return f"{name}: key {current} is published"
    proof = f"refused since {last.refused_at:%H:%M:%S} UTC" if last.refused_at is not None else "revoked, not provable"
    return f"{name}: key {current} is published; key {last.revoked_key_id} is {proof}"


async def _confirm(cluster: Cluster, rotation: APIKeyRotation) -> None:
    """Allow the revocation of the very key that the status names. Raises Terminal, Retryable."""
    previous = rotation.status.previous
    annotated = rotation.metadata.annotations.get(ANNOTATION_CONFIRM_REVOKE)
    if previous is not None and previous.id and annotated != previous.id:
        await _annotate(cluster, rotation.metadata.name, ANNOTATION_CONFIRM_REVOKE, previous.id)


async def _get(cluster: Cluster, name: str) -> APIKeyRotation:
    return APIKeyRotation.model_validate(await cluster.client.get(resources.API_KEY_ROTATIONS, name, cluster.namespace))


async def _annotate(cluster: Cluster, name: str, annotation: str, value: str) -> None:
    body = {"metadata": {"annotations": {annotation: value}}}
    await cluster.client.patch(resources.API_KEY_ROTATIONS, name, cluster.namespace, body)
