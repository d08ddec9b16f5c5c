"""The plan of a VectorIndex, as a table: what is wanted and what was found → a refusal, actions, or differences shown.

What is checked: each check's reason and words, and the order of the checks; whose an index is; absent, lost, replaced,
moved; shape and model; classes of change against ceilings; aliases; a vector index that was put off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.support.index_plans import CAN, CEILINGS, ELSEWHERE, MINE, SETTINGS, THEIRS, desired, found, known, observed

from vectorwright.api.v1alpha1.vectorindex import AdoptionPolicy, OnLost, UpdatePolicy
from vectorwright.reconcile.index_plan import (
    CHECKS,
    AdoptIndex,
    BuildIndex,
    CreateIndex,
    DesiredIndex,
    Plan,
    PointAlias,
    RestoreMark,
    UpdateSettings,
    Verdict,
    plan,
)
from vectorwright.stores.base import ChangeClass, FieldDefinition, OwnershipMark


def refused(result: Plan) -> tuple[Verdict, str, str]:
    assert result.refusal is not None
    assert result.actions == ()
    return result.refusal.verdict, result.refusal.reason, result.refusal.message


# -- what the store can hold --
@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (desired(dimension=2001), "dimension 2001 is more than this store's 2000"),
        (desired(metric="dotproduct"), "metric dotproduct is not one of this store's: cosine, euclidean"),
        (
            desired(physical="Docs_1"),
            "index name 'Docs_1' is not one that this store takes (^[a-z][a-z0-9-]{0,20}$): set spec.indexName",
        ),
        (
            desired(fields=(FieldDefinition("year", "integer"), FieldDefinition("at", "datetime"))),
            "metadata field at: this store has no type datetime, only integer, keyword",
        ),
    ],
)
def test_what_the_store_cannot_hold_is_refused_before_any_call(wanted: DesiredIndex, message: str) -> None:
    assert refused(plan(wanted, observed())) == (Verdict.TERMINAL, "UnsupportedByStore", message)


def test_the_largest_that_the_store_takes_is_not_refused() -> None:
    assert plan(desired(dimension=2000, physical="d" * 21), observed()).refusal is None


# -- absent --
def test_an_absent_index_is_made() -> None:
    assert plan(desired(), observed()).actions == (CreateIndex(desired().definition),)


def test_an_absent_index_is_made_with_its_alias_where_the_store_has_aliases() -> None:
    wanted = desired(physical="docs-g1")
    assert plan(wanted, observed(capabilities=replace(CAN, aliases=True))).actions == (
        CreateIndex(wanted.definition),
        PointAlias("docs", "docs-g1"),
    )
    assert plan(wanted, observed()).actions == (CreateIndex(wanted.definition),), "no alias where there are none"


@pytest.mark.parametrize("wanted", [desired(manages=False), desired(read_only=True)])
def test_who_only_looks_makes_nothing(wanted: DesiredIndex) -> None:
    assert plan(wanted, observed()) == Plan(missing=True)


# -- lost --
def test_a_lost_index_is_reported() -> None:
    assert refused(plan(desired(), known())) == (
        Verdict.TERMINAL,
        "IndexLost",
        (
            "index docs is gone from the store, with its vectors: restore it there, or set spec.onLost: Recreate to "
            "make an empty one"
        ),
    )


def test_a_lost_index_is_made_again_where_the_spec_says_so() -> None:
    wanted = desired(on_lost=OnLost.RECREATE)
    assert plan(wanted, known()).actions == (CreateIndex(wanted.definition, recreate=True),)


@pytest.mark.parametrize("change", [{"manages": False}, {"read_only": True}])
def test_who_only_looks_reports_a_loss_whatever_the_policy(change: dict[str, bool]) -> None:
    assert refused(plan(desired(on_lost=OnLost.RECREATE, **change), known()))[1] == "IndexLost"


# -- another backend --
def test_another_backend_is_not_an_empty_new_world() -> None:
    for description in (None, found(incarnation="i2", mark=None)):
        assert refused(plan(desired(on_lost=OnLost.RECREATE), known(description, backend_id="b2"))) == (
            Verdict.TERMINAL,
            "BackendChanged",
            (
                "the VectorStore now points at another backend (b2, before b1), where index docs is not: point it "
                "back, or make a new VectorIndex"
            ),
        )


def test_the_very_same_index_on_a_backend_of_another_name_is_the_same() -> None:
    assert plan(desired(), known(found(), backend_id="b2")) == Plan()


def test_a_store_that_keeps_nothing_over_a_restart_only_loses_its_indexes() -> None:
    volatile = replace(CAN, durable=False)
    assert refused(plan(desired(), known(backend_id="b2", capabilities=volatile)))[1] == "IndexLost"
    again = plan(desired(on_lost=OnLost.RECREATE), known(backend_id="b2", capabilities=volatile))
    assert [type(action) for action in again.actions] == [CreateIndex]


# -- whose it is --
def test_ours_by_its_mark_even_when_nothing_is_remembered() -> None:
    """A rebuilt cluster: status is gone, the mark in the store is not."""
    assert plan(desired(), observed(found(incarnation="i9"))) == Plan()


def test_ours_because_it_is_the_very_one_gets_its_mark_back() -> None:
    assert plan(desired(), known(found(mark=None))).actions == (RestoreMark(MINE, None),)


def test_one_that_was_only_observed_is_not_ours() -> None:
    watched = known(found(mark=None), known_owned=False)
    assert refused(plan(desired(), watched))[1] == "AlreadyExists"
    assert plan(desired(adoption_policy=AdoptionPolicy.IF_MATCHING), watched).actions == (AdoptIndex(MINE, None),)


@pytest.mark.parametrize("policy", list(AdoptionPolicy))
@pytest.mark.parametrize(
    ("mark", "owner"), [(THEIRS, "team-b/docs"), (ELSEWHERE, "team-a/docs of installation elsewhere")]
)
def test_somebody_elses_is_never_touched(policy: AdoptionPolicy, mark: OwnershipMark, owner: str) -> None:
    assert refused(plan(desired(adoption_policy=policy), observed(found(mark=mark)))) == (
        Verdict.CONFLICT,
        "OwnedByAnother",
        f"index docs belongs to VectorIndex {owner}: nothing was touched",
    )


def test_somebody_elses_mark_on_the_very_one_we_made_is_respected() -> None:
    assert refused(plan(desired(), known(found(mark=THEIRS))))[1] == "OwnedByAnother"


def test_an_unmarked_one_is_refused_by_default() -> None:
    assert refused(plan(desired(), observed(found(mark=None)))) == (
        Verdict.CONFLICT,
        "AlreadyExists",
        (
            "index docs exists in the store (dimension 4, cosine) and was not made by this resource: set "
            "spec.adoptionPolicy: IfMatching to take it over, or another spec.indexName"
        ),
    )
    vague = found(mark=None, dimension=None, metric=None)
    assert "(dimension unknown, unknown)" in refused(plan(desired(), observed(vague)))[2]


def test_an_unmarked_one_is_adopted_where_the_spec_says_so_with_what_is_recorded_of_its_model() -> None:
    wanted = desired(adoption_policy=AdoptionPolicy.IF_MATCHING)
    assert plan(wanted, observed(found(mark=None))).actions == (AdoptIndex(MINE, None),)
    assert plan(wanted, observed(found(mark=None, model_fingerprint="p1"))).actions == (AdoptIndex(MINE, "p1"),)
    modelled = desired(adoption_policy=AdoptionPolicy.IF_MATCHING, model_fingerprint="p1")
    assert plan(modelled, observed(found(mark=None))).actions == (AdoptIndex(MINE, "p1"),)


def test_one_that_took_the_place_of_ours_is_not_taken_for_it() -> None:
    replaced = known(found(mark=None, incarnation="i2"))
    assert refused(plan(desired(), replaced)) == (
        Verdict.CONFLICT,
        "IndexReplaced",
        (
            "index docs was replaced in the store by another one of the same name: nothing was touched; set "
            "spec.adoptionPolicy: IfMatching to take it over"
        ),
    )
    assert plan(desired(adoption_policy=AdoptionPolicy.IF_MATCHING), replaced).actions == (AdoptIndex(MINE, None),)


def test_two_resources_do_not_share_an_index() -> None:
    assert refused(plan(desired(), observed(claimant="VectorIndex team-b/notes"))) == (
        Verdict.CONFLICT,
        "ClaimedByAnother",
        (
            "index docs is already claimed by VectorIndex team-b/notes: delete one of the two, or change its "
            "spec.indexName"
        ),
    )


def test_one_that_observes_looks_at_anybodys_index() -> None:
    for mark in (None, THEIRS, ELSEWHERE):
        assert plan(desired(manages=False), observed(found(mark=mark))) == Plan()


# -- shape and model --
def test_another_dimension_is_a_conflict() -> None:
    for wanted in (desired(), desired(adoption_policy=AdoptionPolicy.IF_MATCHING), desired(manages=False)):
        assert refused(plan(wanted, observed(found(dimension=8)))) == (
            Verdict.CONFLICT,
            "DimensionMismatch",
            (
                "index docs has dimension 8, the spec wants 4: nothing was touched; use another spec.indexName, or the "
                "dimension that it has"
            ),
        )


def test_another_metric_is_a_conflict() -> None:
    assert refused(plan(desired(), observed(found(metric="euclidean")))) == (
        Verdict.CONFLICT,
        "MetricMismatch",
        (
            "index docs compares by euclidean, the spec wants cosine: nothing was touched; use another spec.indexName, "
            "or the metric that it has"
        ),
    )


def test_what_a_store_does_not_tell_is_no_mismatch() -> None:
    assert plan(desired(), observed(found(dimension=None, metric=None))) == Plan()


@pytest.mark.parametrize("change", [{"count": 7}, {"count": None}, {"count": 0, "count_exact": False}])
def test_vectors_of_another_model_are_never_mixed_in(change: dict[str, Any]) -> None:
    """Also where the store cannot say for certain that there are none."""
    assert refused(plan(desired(model_fingerprint="p2"), observed(found(model_fingerprint="p1", **change)))) == (
        Verdict.CONFLICT,
        "ModelMismatch",
        (
            "index docs holds vectors of another embedding model (fingerprint p1, the spec's is p2): they cannot be "
            "mixed; use the model that made them, or a new VectorIndex"
        ),
    )


def test_an_empty_index_takes_the_new_models_fingerprint() -> None:
    empty = observed(found(model_fingerprint="p1", count=0))
    assert plan(desired(model_fingerprint="p2"), empty).actions == (RestoreMark(MINE, "p2"),)


def test_an_index_without_a_recorded_model_records_the_specs() -> None:
    assert plan(desired(model_fingerprint="p1"), observed(found())).actions == (RestoreMark(MINE, "p1"),)


def test_a_spec_without_a_model_leaves_the_recorded_one() -> None:
    assert plan(desired(), observed(found(model_fingerprint="p1"))) == Plan()
    assert plan(desired(), known(found(model_fingerprint="p1", mark=None))).actions == (RestoreMark(MINE, "p1"),)


def test_the_first_objection_is_the_one_that_is_told() -> None:
    """All at once: in the order in which a person would want to hear of them."""
    world: dict[str, Any] = {"claimant": "x", "known_backend_id": "b0", "known_incarnation": "i0", "known_owned": True}
    wanted = desired(dimension=9999, model_fingerprint="p2")
    description = found(mark=THEIRS, dimension=8, metric="euclidean", model_fingerprint="p1")
    state = observed(description, **world)
    reasons: list[str] = []
    mends: tuple[Callable[[Any, Any], tuple[Any, Any]], ...] = (
        lambda w, o: (replace(w, definition=replace(w.definition, dimension=4)), o),
        lambda w, o: (w, replace(o, claimant=None)),
        lambda w, o: (w, replace(o, known_backend_id="b1")),
        lambda w, o: (w, replace(o, description=replace(o.description, mark=MINE))),
        lambda w, o: (w, replace(o, description=replace(o.description, dimension=4))),
        lambda w, o: (w, replace(o, description=replace(o.description, metric="cosine"))),
        lambda w, o: (w, replace(o, description=replace(o.description, model_fingerprint="p2"))),
    )
    for mend in mends:
        reasons.append(refused(plan(wanted, state))[1])
        wanted, state = mend(wanted, state)
    assert reasons == [
        "UnsupportedByStore",
        "ClaimedByAnother",
        "BackendChanged",
        "OwnedByAnother",
        "DimensionMismatch",
        "MetricMismatch",
        "ModelMismatch",
    ]
    assert plan(wanted, state) == Plan()
    assert len(CHECKS) == 7


# -- drift --
@pytest.mark.parametrize("policy", list(UpdatePolicy))
@pytest.mark.parametrize(("setting", "change_class"), [*SETTINGS.items(), ("fixed.one", ChangeClass.IMMUTABLE)])
def test_a_change_is_made_up_to_the_ceiling_and_shown_above_it(
    policy: UpdatePolicy, setting: str, change_class: ChangeClass
) -> None:
    result = plan(desired(settings={setting: 9}, update_policy=policy), observed(found(settings={setting: 3})))
    mended = change_class is not ChangeClass.IMMUTABLE and change_class.rank <= CEILINGS[policy]
    (drift,) = result.drift
    assert (drift.field, drift.desired, drift.observed) == (f"tuning.{setting}", "9", "3")
    assert (drift.change_class, drift.mended) == (change_class, mended)
    assert result.actions == ((UpdateSettings({setting: 9}, (), change_class),) if mended else ())


def test_an_action_has_the_class_of_its_dearest_part() -> None:
    wanted = desired(
        settings={"safe.one": 1, "costly.one": 1, "disruptive.one": 1},
        fields=(FieldDefinition("lang", "keyword"),),
        update_policy=UpdatePolicy.COSTLY,
    )
    result = plan(wanted, observed(found()))
    assert result.actions == (
        UpdateSettings({"safe.one": 1, "costly.one": 1}, (FieldDefinition("lang", "keyword"),), ChangeClass.COSTLY),
    )
    assert [(item.field, item.mended) for item in result.drift] == [
        ("tuning.costly.one", True),
        ("tuning.disruptive.one", False),
        ("tuning.safe.one", True),
        ("metadataFields[lang]", True),
    ]


def test_a_setting_that_is_not_set_in_the_store_differs() -> None:
    result = plan(desired(settings={"safe.one": False}), observed(found()))
    assert [(item.desired, item.observed) for item in result.drift] == [("False", "unset")]
    assert plan(desired(settings={"safe.one": 0}), observed(found(settings={"safe.one": 0}))) == Plan()


def test_a_new_field_is_added_by_its_class_and_a_changed_type_is_fixed_for_ever() -> None:
    wanted = desired(fields=(FieldDefinition("year", "integer"),), update_policy=UpdatePolicy.DISRUPTIVE)
    assert plan(wanted, observed(found())).actions == (
        UpdateSettings({}, (FieldDefinition("year", "integer"),), ChangeClass.SAFE),
    )
    retyped = plan(wanted, observed(found(fields=(FieldDefinition("year", "keyword"),))))
    assert retyped.actions == ()
    assert [(item.observed, item.change_class) for item in retyped.drift] == [("keyword", ChangeClass.IMMUTABLE)]
    dear = replace(CAN, mutable_settings={"metadata_fields": ChangeClass.COSTLY})
    safe = replace(wanted, update_policy=UpdatePolicy.SAFE)
    shown = plan(safe, observed(found(), capabilities=dear))
    assert (shown.actions, shown.drift[0].change_class) == ((), ChangeClass.COSTLY)


def test_a_store_that_does_not_tell_its_fields_has_no_drift_in_them() -> None:
    wanted = desired(fields=(FieldDefinition("year", "integer"),))
    assert plan(wanted, observed(found(fields=None))) == Plan()


# -- aliases --
def test_an_alias_that_leads_elsewhere_is_put_back_and_only_by_who_manages() -> None:
    can = replace(CAN, aliases=True)
    wanted = desired(physical="docs-g1")
    there = found(name="docs-g1")
    assert plan(wanted, observed(there, capabilities=can, alias_target="docs-g1")) == Plan()
    for target in (None, "other"):
        moved = observed(there, capabilities=can, alias_target=target)
        assert plan(wanted, moved).actions == (PointAlias("docs", "docs-g1"),)
        assert plan(replace(wanted, manages=False), moved).actions == ()
        assert plan(replace(wanted, read_only=True), moved).actions == ()


def test_an_adopted_index_keeps_its_name_and_gets_no_alias() -> None:
    can = replace(CAN, aliases=True)
    wanted = desired(adoption_policy=AdoptionPolicy.IF_MATCHING)
    assert plan(wanted, observed(found(mark=None), capabilities=can)).actions == (AdoptIndex(MINE, None),)


# -- a vector index that was put off --
def test_a_vector_index_that_was_put_off_is_built_unless_a_run_goes_on() -> None:
    ready = found(unbuilt=True, count=20_000)
    assert plan(desired(), known(ready)) == Plan(actions=(BuildIndex(),))
    assert plan(desired(), known(ready, filling=True)) == Plan()
    assert plan(desired(manages=False), known(ready)) == Plan()
    assert plan(desired(read_only=True), known(ready)) == Plan()
