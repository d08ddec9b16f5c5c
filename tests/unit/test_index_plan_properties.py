"""The plan of a VectorIndex, as properties that hold whatever is wanted and whatever was found.

What is checked: doing what the plan says and planning again leaves nothing to do; nothing that the spec leaves out is
ever touched; Observe and read-only never act, and see the same drift; nothing of others is touched, and nothing is done
above the ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.index_plans import CAN, CEILINGS, ELSEWHERE, MINE, SETTINGS, THEIRS, desired, found, observed

from vectorwright.api.v1alpha1.vectorindex import AdoptionPolicy, OnLost, UpdatePolicy
from vectorwright.reconcile.index_plan import (
    AdoptIndex,
    CreateIndex,
    DesiredIndex,
    ObservedIndex,
    PointAlias,
    RestoreMark,
    UpdateSettings,
    plan,
)
from vectorwright.stores.base import ChangeClass, FieldDefinition

_setting_values = st.sampled_from([1, 2, 3, True, "ivf", 0.5])
_settings = st.dictionaries(
    st.sampled_from(["safe.one", "safe.two", "costly.one", "disruptive.one", "fixed.one"]), _setting_values
)
_fields = st.dictionaries(st.sampled_from(["lang", "year", "team"]), st.sampled_from(["keyword", "integer"])).map(
    lambda found: tuple(FieldDefinition(name, kind) for name, kind in found.items())
)
_marks = st.sampled_from([None, MINE, THEIRS, ELSEWHERE])
_prints = st.sampled_from([None, "p1", "p2"])
_capabilities = st.builds(
    lambda aliases, volatile: replace(
        CAN, aliases=aliases, durable=not volatile, mutable_settings={**SETTINGS, "safe.two": ChangeClass.SAFE}
    ),
    st.booleans(),
    st.booleans(),
)
_desired = st.builds(
    desired,
    physical=st.sampled_from(["docs", "docs-g1"]),
    dimension=st.sampled_from([4, 8]),
    fields=_fields,
    settings=_settings,
    model_fingerprint=_prints,
    manages=st.booleans(),
    read_only=st.booleans(),
    update_policy=st.sampled_from(UpdatePolicy),
    adoption_policy=st.sampled_from(AdoptionPolicy),
    on_lost=st.sampled_from(OnLost),
)
_found = st.none() | st.builds(
    found,
    incarnation=st.sampled_from(["i1", "i2"]),
    mark=_marks,
    fields=st.none() | _fields,
    settings=_settings,
    model_fingerprint=_prints,
    count=st.sampled_from([None, 0, 7]),
    count_exact=st.booleans(),
    dimension=st.sampled_from([4, 8, None]),
)
_observed = st.builds(
    observed,
    _found,
    capabilities=_capabilities,
    backend_id=st.sampled_from(["b1", "b2"]),
    known_incarnation=st.sampled_from([None, "i1"]),
    known_backend_id=st.sampled_from([None, "b1"]),
    known_owned=st.booleans(),
    claimant=st.sampled_from([None, None, None, "VectorIndex team-b/x"]),
    alias_target=st.sampled_from([None, "docs", "docs-g1", "else"]),
)


def at(wanted: DesiredIndex, state: ObservedIndex) -> ObservedIndex:
    """The index that is found has the physical name that is wanted: that is how it was looked for."""
    if state.description is None:
        return state
    return replace(state, description=replace(state.description, name=wanted.definition.name))


def apply(actions: Sequence[Any], state: ObservedIndex) -> ObservedIndex:
    """What the store and the status hold once the actions were done."""
    for action in actions:
        there = state.description
        match action:
            case CreateIndex(definition):
                made = found(
                    name=definition.name,
                    dimension=definition.dimension,
                    incarnation="i-new",
                    mark=definition.mark,
                    fields=definition.fields,
                    settings=dict(definition.settings),
                    model_fingerprint=definition.model_fingerprint,
                    count=0,
                )
                state = replace(state, description=made)
            case AdoptIndex(mark, fingerprint) | RestoreMark(mark, fingerprint):
                assert there is not None
                state = replace(state, description=replace(there, mark=mark, model_fingerprint=fingerprint))
            case UpdateSettings(settings, new_fields):
                assert there is not None
                state = replace(
                    state,
                    description=replace(
                        there,
                        settings={**there.settings, **settings},
                        fields=None if there.fields is None else (*there.fields, *new_fields),
                    ),
                )
            case PointAlias(_, target):
                state = replace(state, alias_target=target)
    there = state.description
    recorded = there.incarnation if there is not None else state.known_incarnation
    return replace(state, known_incarnation=recorded, known_backend_id=state.backend_id, known_owned=True)


@settings(max_examples=300)
@given(_desired, _observed)
def test_planning_again_after_doing_it_leaves_nothing_to_do(wanted: DesiredIndex, state: ObservedIndex) -> None:
    state = at(wanted, state)
    first = plan(wanted, state)
    if first.refusal is not None or first.missing:
        return
    after = apply(first.actions, state)
    second = plan(wanted, after)
    assert second.refusal is None
    assert second.actions == ()
    assert [item for item in second.drift if item.mended] == []
    assert [item.field for item in second.drift] == [item.field for item in first.drift if not item.mended]


@settings(max_examples=150)
@given(_desired, _observed)
def test_what_the_spec_leaves_out_is_never_touched(wanted: DesiredIndex, state: ObservedIndex) -> None:
    result = plan(wanted, at(wanted, state))
    named = {item.name for item in wanted.definition.fields}
    for action in result.actions:
        if isinstance(action, UpdateSettings):
            assert action.settings.items() <= wanted.definition.settings.items()
            assert {item.name for item in action.new_fields} <= named
    for item in result.drift:
        path = item.field
        assert path.removeprefix("tuning.") in wanted.definition.settings or path[15:-1] in named


@settings(max_examples=150)
@given(_desired, _observed)
def test_who_only_looks_never_acts_and_sees_the_same_drift(wanted: DesiredIndex, state: ObservedIndex) -> None:
    state = at(wanted, state)
    for looking in (replace(wanted, manages=False), replace(wanted, read_only=True)):
        result = plan(looking, state)
        assert result.actions == ()
        assert not any(item.mended for item in result.drift)
    acting = plan(replace(wanted, manages=True, read_only=False), state)
    if acting.refusal is None and state.description is not None:
        assert [item.field for item in plan(replace(wanted, manages=False), state).drift] == [
            item.field for item in acting.drift
        ]


@settings(max_examples=150)
@given(_desired, _observed)
def test_nothing_of_others_is_touched_and_nothing_is_above_the_ceiling(
    wanted: DesiredIndex, state: ObservedIndex
) -> None:
    state = at(wanted, state)
    result = plan(wanted, state)
    there = state.description
    ceiling = CEILINGS[wanted.update_policy]
    assert all(action.change_class.rank <= ceiling for action in result.actions)
    if not result.actions:
        return
    assert result.refusal is None
    assert wanted.manages
    assert not wanted.read_only
    assert state.claimant is None
    if there is None:
        return
    assert not any(isinstance(action, CreateIndex) for action in result.actions)
    assert there.mark in (None, MINE)
    assert there.dimension in (None, wanted.definition.dimension)
    if there.mark is None:
        ours = state.known_owned and there.incarnation == state.known_incarnation
        assert ours or wanted.adoption_policy is AdoptionPolicy.IF_MATCHING
    if there.model_fingerprint is not None and wanted.definition.model_fingerprint not in (
        None,
        there.model_fingerprint,
    ):
        assert there.count == 0
        assert there.count_exact
