"""APIKeyRotations of tests, beside an operator: one that needs no store, and how far one has come."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any

from tests.support.vectorwright import Body, Resources, condition

KIND = "APIKeyRotation"


def status_of(body: Body) -> Body:
    """The status, empty before there is one."""
    return body.get("status") or {}


class Rotation:
    """One APIKeyRotation, its Secret and its state."""

    _requests = itertools.count(1)

    def __init__(self, resources: Resources, name: str = "rotation", secret: str = "published") -> None:
        self.resources, self.name, self.secret = resources, name, secret

    def make(self, **changes: Any) -> Body:
        """A rotation that goes on by itself; a random token, unless ``changes`` say otherwise."""
        spec = {
            "storeRef": {"name": "store"},
            "identity": {"generated": {"prefix": "vw_"}},
            "secret": {"name": self.secret},
            "overlap": "0s",
            "revokePolicy": "Automatic",
            **changes,
        }
        return self.resources.create(
            KIND, self.name, {name: value for name, value in spec.items() if value is not None}
        )

    def get(self) -> Body:
        """As it is now."""
        return self.resources.get(KIND, self.name)

    @property
    def status(self) -> Body:
        """Its status now."""
        return status_of(self.get())

    def change(self, **spec: Any) -> None:
        """Change its spec."""
        self.resources.patch(KIND, self.name, {"spec": spec})

    def annotate(self, **annotations: str) -> None:
        """As :meth:`.Resources.annotate`."""
        self.resources.annotate(KIND, self.name, **annotations)

    def request(self) -> str:
        """Ask for a rotation; the request."""
        asked = f"request-{next(self._requests)}"
        self.annotate(rotate_requested_at=asked)
        return asked

    def nudge(self) -> str:
        """Ask for a look at it now; the request."""
        asked = f"nudge-{next(self._requests)}"
        self.annotate(reconcile_requested_at=asked)
        return asked

    def looked_at(self) -> Body:
        """The status after the next look at it."""
        asked = self.nudge()
        return self.wait(lambda status: status.get("lastHandledReconcileAt") == asked)

    def wait(self, done: Callable[[Body], object], timeout: float = 60.0) -> Body:
        """The status once ``done`` holds of it."""
        return status_of(self.resources.wait(KIND, self.name, lambda body: done(status_of(body)), timeout))

    def idle(self, revision: int = 1, timeout: float = 60.0) -> Body:
        """The status once the key of a revision is published and nothing goes on."""
        return self.at("Idle", revision, timeout)

    def step(self, *steps: str, timeout: float = 60.0) -> Body:
        """The status at one of these steps."""
        return self.wait(lambda status: status.get("step") in steps, timeout)

    def at(self, step: str, revision: int, timeout: float = 60.0) -> Body:
        """The status at a step, once the key of a revision is published."""
        return self.wait(lambda status: (status.get("step"), status.get("revision")) == (step, revision), timeout)

    def blocked(self, words: str, timeout: float = 60.0) -> str:
        """What it waits for, once that has these words."""
        return str(self.wait(lambda status: words in status.get("blockedBy", ""), timeout)["blockedBy"])

    def stalled(self, reason: str, timeout: float = 60.0) -> str:
        """The message of Stalled once it has this reason."""
        return self.resources.wait_condition(KIND, self.name, "Stalled", "True", reason, timeout)

    def condition(self, kind: str) -> Body:
        """A condition now."""
        return condition(self.get(), kind)

    def delete(self) -> None:
        """Delete it, and wait until it is gone."""
        self.resources.delete(KIND, self.name)
        self.resources.wait_gone(KIND, self.name)

    def reasons(self) -> list[str]:
        """Reasons of its events."""
        return [reason for reason, _ in self.resources.events(self.name)]

    def there(self, name: str | None = None) -> bool:
        """Whether its Secret, or the one of another name, is there."""
        found = self.resources.core.list_namespaced_secret(
            self.resources.namespace, field_selector=f"metadata.name={name or self.secret}"
        )
        return bool(found.items)

    @property
    def remembered(self) -> bool:
        """Whether its private Secret is there."""
        return self.there(f"{self.name}.key-rotation")

    @property
    def values(self) -> dict[str, str]:
        """What its Secret holds."""
        found: Any = self.resources.core.read_namespaced_secret(self.secret, self.resources.namespace)
        return {name: base64.b64decode(value).decode() for name, value in (found.data or {}).items()}


def make_anywhere(resources: Resources) -> None:
    """An address for rotations that need no store: nobody answers there."""
    resources.create("VectorStore", "store", {"chroma": {"url": "http://chroma.example:8000"}})
    # Rotations that come later find it: they are told of by another watch.
    resources.wait("VectorStore", "store", lambda body: (body.get("status") or {}).get("conditions"))
