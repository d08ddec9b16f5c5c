"""``vectorwright rotate``: have a key replaced now, and allow the revocation of the one before."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from vectorwright.api.v1alpha1 import APIKeyRotation
from vectorwright.api.v1alpha1.apikeyrotation import KeyStatus, RotationRecord, confirmation
from vectorwright.api.v1alpha1.common import (
    ANNOTATION_CONFIRM_REVOKE,
    ANNOTATION_PAUSED,
    ANNOTATION_RECONCILE,
    ANNOTATION_ROTATE,
)
from vectorwright.errors import NotFound, Retryable, Terminal, VectorwrightError
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
        help="allow the revocation of the key that is in use now; when a rotation waits for such a word already, that "
        "one goes on and no other one is begun",
    )
    add_cluster_flags(parser, "namespace of the APIKeyRotation")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1")
    return float(text)


def run(args: argparse.Namespace) -> int:
    """Run the command. Exit status 1 when the key was not replaced (yet), 130 when it was interrupted."""
    try:
        print(asyncio.run(_rotate(args)))
    except VectorwrightError as error:
        print(f"vectorwright rotate: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vectorwright rotate: no longer followed; the rotation goes on", file=sys.stderr)
        return 130
    return 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the operator was asked for."""

    mark: str
    """Value of the annotation by which the operator tells that it has seen all this."""
    request: str | None = None
    """Of a new rotation; None: one that waits for a word goes on."""
    revoked: KeyStatus | None = None
    """The key whose revocation was allowed."""


async def _rotate(args: argparse.Namespace) -> str:
    async with connected(args) as cluster:
        rotation = await _get(cluster, args.name)
        status, now = rotation.status, datetime.now(UTC).isoformat(timespec="microseconds")
        waits = status.step in ("Grace", "Revoke") and status.previous is not None
        if args.confirm and waits:
            asked = _Asked(now, revoked=status.previous)
        else:
            asked = _Asked(now, now, status.current if args.confirm else None)
        wanted = {
            ANNOTATION_RECONCILE: asked.mark,
            ANNOTATION_ROTATE: asked.request,
            ANNOTATION_CONFIRM_REVOKE: _word(asked.revoked),
        }
        await _annotate(cluster, args.name, {name: value for name, value in wanted.items() if value})
        if rotation.paused:
            raise Terminal(
                f"{args.name} is paused: what was asked for is done once the annotation {ANNOTATION_PAUSED} is removed"
            )
        if args.wait:
            return await _follow(cluster, args, asked)
        done = ["asked for a new key"] if asked.request else []
        done += [f"the revocation of key {asked.revoked.id} is allowed"] if asked.revoked else []
        return f"{args.name}: {'; '.join(done)}"


async def _follow(cluster: Cluster, args: argparse.Namespace, asked: _Asked) -> str:
    """Tell each step, until what was asked for is through. Raises NotFound, Terminal, Retryable."""
    deadline = time.monotonic() + args.timeout
    told = ""
    while time.monotonic() < deadline:
        try:
            rotation = await _get(cluster, args.name)
            if _is_through(rotation, asked):
                return _result(args.name, rotation)
            if args.confirm and rotation.status.step == "Revoke":
                await _confirm(cluster, rotation)
            line = _line(rotation, asked)
        except Retryable as error:
            line = error.message  # the API server is away for a moment; the rotation goes on
        if line != told:
            print(line, file=sys.stderr, flush=True)
            told = line
        await asyncio.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
    raise Retryable(f"{args.name}: not through after {args.timeout:.0f} s; it goes on ({told})")


def _is_through(rotation: APIKeyRotation, asked: _Asked) -> bool:
    """Whether what was asked for is done. Raises Terminal where somebody has to act first."""
    status = rotation.status
    if asked.request is None:
        if _word(status.previous) != _word(asked.revoked):
            return True
    else:
        # Somebody may have asked once more meanwhile: then theirs is the one that is acted on.
        request = rotation.metadata.annotations.get(ANNOTATION_ROTATE, asked.request)
        if status.handled_request in (asked.request, request) and status.step == "Idle":
            return True
    stalled = next((item for item in status.conditions or () if item.type == "Stalled"), None)
    if stalled is not None and _is_seen(rotation, asked):
        raise Terminal(f"{rotation.metadata.name}: {stalled.reason}: {stalled.message}")
    return False


def _is_seen(rotation: APIKeyRotation, asked: _Asked) -> bool:
    """Whether the status is of a time after the question."""
    mark = rotation.metadata.annotations.get(ANNOTATION_RECONCILE, asked.mark)
    return rotation.status.last_handled_reconcile_at in (asked.mark, mark)


def _line(rotation: APIKeyRotation, asked: _Asked) -> str:
    """Where it stands."""
    status = rotation.status
    step = status.step or "Pending"
    if not _is_seen(rotation, asked):
        return "waiting for the operator"
    if status.blocked_by:
        return f"{step}: {status.blocked_by}"
    waiting = next((item for item in status.conditions or () if item.type == "Reconciling"), None)
    if not status.step and waiting is not None:
        return f"{step}: {waiting.message}"
    issuing = next((item for item in status.conditions or () if item.type == "Issuing"), None)
    if status.failed_attempts and issuing is not None:
        return f"{step}: {issuing.message}"
    return step


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
    word = _word(rotation.status.previous)
    if word is not None and word != rotation.metadata.annotations.get(ANNOTATION_CONFIRM_REVOKE):
        await _annotate(cluster, rotation.metadata.name, {ANNOTATION_CONFIRM_REVOKE: word})


def _word(key: KeyStatus | None) -> str | None:
    """What allows the revocation of that key, and of none that has its id at another time."""
    return confirmation(key.id, key.revision or 0) if key is not None and key.id else None


async def _get(cluster: Cluster, name: str) -> APIKeyRotation:
    try:
        body = await cluster.client.get(resources.API_KEY_ROTATIONS, name, cluster.namespace)
    except NotFound:
        raise NotFound(f"APIKeyRotation {name} does not exist in namespace {cluster.namespace}") from None
    return APIKeyRotation.model_validate(body)


async def _annotate(cluster: Cluster, name: str, annotations: dict[str, str]) -> None:
    body = {"metadata": {"annotations": annotations}}
    await cluster.client.patch(resources.API_KEY_ROTATIONS, name, cluster.namespace, body)
