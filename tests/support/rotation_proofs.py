"""What must hold after a rotation, however often it was interrupted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.rotation.steps import becomes
from tests.support.rotation_kills import Scene

from vectorwright.rotation.state import MOST_RECORDS, KeyRecord, RotationState

UNTIL_EXPIRY = 90.0
"""Seconds for which a key that cannot be revoked lives in these tests at most."""


@dataclass(frozen=True)
class Before:
    """A scene between two rotations."""

    scene: Scene
    state: RotationState
    inventory: set[str]
    """Names of keys at the store that are not this resource's."""
    generation: int

    @classmethod
    def of(cls, scene: Scene) -> Before:
        """As it is now."""
        state = scene.state()
        assert state.current is not None
        found = asyncio.run(scene.case.inventory())
        others = found if scene.case.in_place else found - {state.current.name}
        return cls(scene, state, others, scene.generation())

    @property
    def current(self) -> KeyRecord:
        """The key that was published."""
        assert self.state.current is not None
        return self.state.current

    def check_one_rotation(self) -> None:
        """One rotation took place, one restart, and nothing else."""
        state = self.scene.state()
        assert state.revision == self.state.revision + 1, self.scene.told()
        assert [record.revision for record in state.history] == [
            state.revision,
            *(record.revision for record in self.state.history),
        ][:MOST_RECORDS], self.scene.told()
        assert (state.pending, state.previous, state.record) == (None, None, None)
        assert self.scene.generation() == self.generation + 1, self.scene.told()
        asyncio.run(self._check_keys(state))

    def check_healed(self, what: str, since: int | None = None) -> None:
        """However it came about, a valid key is published and no other one of this resource is left.

        ``since`` is the revision that was published, if not the one before: numbers of keys that nobody got may be
        forgotten. At most one rotation more than was asked for took place.
        """
        state, first = self.scene.state(), self.current.revision if since is None else since
        assert first <= state.revision <= self.state.revision + 2, (what, self.scene.told())
        assert (state.pending, state.previous) == (None, None), (what, self.scene.told())
        asyncio.run(self._check_keys(state))

    async def _check_keys(self, state: RotationState) -> None:
        case, current = self.scene.case, state.current
        assert current is not None
        material, old = self.scene.published(), self.current.material
        assert material == current.material
        await case.published(material)
        await becomes(True, lambda: case.use(material), case.acceptance_seconds)
        if old is not None and old != material:
            # One that cannot be revoked dies by itself; nobody waits for that where it was forgotten.
            patience = case.refusal_seconds if case.traits.revocable else UNTIL_EXPIRY
            await becomes(False, lambda: case.use(old), patience)
        await becomes(self._expected(current), case.inventory, case.refusal_seconds)
        if self.scene.by_hand is not None:
            assert await case.use(self.scene.by_hand)

    def _expected(self, current: KeyRecord) -> set[str]:
        case = self.scene.case
        if not self.inventory and "live" not in case.calls:
            return set()
        return self.inventory if case.in_place else self.inventory | {current.name}
