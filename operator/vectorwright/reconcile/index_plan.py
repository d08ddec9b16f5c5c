"""The plan of a VectorIndex: a pure function from what is wanted and what was observed to what is to be done.

Checks run in a fixed order; the first that objects ends the plan. Nothing here has effects: the same plan is what
Observe mode shows as drift and what :mod:`vectorwright.reconcile.vectorindex` applies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from vectorwright.api.v1alpha1.vectorindex import AdoptionPolicy, OnLost, UpdatePolicy
from vectorwright.stores.base import (
    Capabilities,
    ChangeClass,
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    OwnershipMark,
    Setting,
)


@dataclass(frozen=True, slots=True)
class DesiredIndex:
    """What the spec says, with references resolved."""

    name: str
    """Name that clients use: an alias where the store has aliases."""
    definition: IndexDefinition
    """Its ``name`` is the physical one."""
    manages: bool = True
    update_policy: UpdatePolicy = UpdatePolicy.SAFE
    adoption_policy: AdoptionPolicy = AdoptionPolicy.NEVER
    on_lost: OnLost = OnLost.REPORT
    read_only: bool = False
    """The whole installation only watches."""

    @property
    def may_change(self) -> bool:
        """Whether the store may be changed for this index."""
        return self.manages and not self.read_only


@dataclass(frozen=True, slots=True)
class ObservedIndex:
    """What was found."""

    capabilities: Capabilities
    backend_id: str
    description: IndexDescription | None = None
    """The index as the store has it; None when there is none."""
    known_incarnation: str | None = None
    """The incarnation that status or an earlier pass recorded."""
    known_backend_id: str | None = None
    known_owned: bool = False
    """Whether that incarnation was made or adopted by this resource. One that was only observed is nobody's proof."""
    claimant: str | None = None
    """Another resource with an older claim on the same index, as a person would name it."""
    alias_target: str | None = None
    """What the alias points at, where the store has aliases."""
    filling: bool = False
    """Whether a run writes to the index now."""


class Verdict(Enum):
    """What a refusal means for the resource."""

    TERMINAL = "Terminal"
    CONFLICT = "Conflict"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is done until somebody changes something."""

    verdict: Verdict
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CreateIndex:
    """Make the index."""

    definition: IndexDefinition
    recreate: bool = False
    change_class: ChangeClass = ChangeClass.SAFE


@dataclass(frozen=True, slots=True)
class AdoptIndex:
    """Write our mark on an index that exists already."""

    mark: OwnershipMark
    model_fingerprint: str | None
    change_class: ChangeClass = ChangeClass.SAFE


@dataclass(frozen=True, slots=True)
class RestoreMark:
    """Write our mark or the model's fingerprint again: it was removed, or the index is empty and changes its model."""

    mark: OwnershipMark
    model_fingerprint: str | None
    change_class: ChangeClass = ChangeClass.SAFE


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """Change settings and add metadata fields."""

    settings: Mapping[str, Setting]
    new_fields: tuple[FieldDefinition, ...]
    change_class: ChangeClass


@dataclass(frozen=True, slots=True)
class PointAlias:
    """Point the name that clients use at the physical index."""

    alias: str
    index: str
    change_class: ChangeClass = ChangeClass.SAFE


@dataclass(frozen=True, slots=True)
class BuildIndex:
    """Build the vector index that was put off until there were enough vectors."""

    change_class: ChangeClass = ChangeClass.SAFE


Action = CreateIndex | AdoptIndex | RestoreMark | UpdateSettings | BuildIndex | PointAlias


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between spec and store."""

    field: str
    desired: str
    observed: str
    change_class: ChangeClass
    mended: bool
    """Whether the plan's actions remove it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: a refusal, or actions in order, and the differences found."""

    refusal: Refusal | None = None
    actions: tuple[Action, ...] = ()
    drift: tuple[Drift, ...] = ()
    missing: bool = False
    """The index does not exist and the plan does not make it."""


@dataclass(slots=True)
class _Differences:
    settings: dict[str, Setting] = field(default_factory=dict)
    new_fields: list[FieldDefinition] = field(default_factory=list)
    classes: list[ChangeClass] = field(default_factory=list)
    drift: list[Drift] = field(default_factory=list)


Check = Callable[[DesiredIndex, ObservedIndex], Refusal | None]


def _terminal(reason: str, message: str) -> Refusal:
    return Refusal(Verdict.TERMINAL, reason, message)


def _conflict(reason: str, message: str) -> Refusal:
    return Refusal(Verdict.CONFLICT, reason, message)


def check_capabilities(desired: DesiredIndex, observed: ObservedIndex) -> Refusal | None:
    """The store can hold such an index."""
    can, want = observed.capabilities, desired.definition
    if want.dimension > can.max_dimension:
        return _terminal(
            "UnsupportedByStore",
            f"dimension {want.dimension} is more than this store's {can.max_dimension}",
        )
    if want.metric not in can.metrics:
        return _terminal(
            "UnsupportedByStore",
            f"metric {want.metric} is not one of this store's: {', '.join(sorted(can.metrics))}",
        )
    if not re.fullmatch(can.name_pattern, want.name):
        return _terminal(
            "UnsupportedByStore",
            f"index name {want.name!r} is not one that this store takes ({can.name_pattern}): set spec.indexName",
        )
    for wanted in want.fields:
        if wanted.type not in can.field_types:
            return _terminal(
                "UnsupportedByStore",
                f"metadata field {wanted.name}: this store has no type {wanted.type}, only "
                f"{', '.join(sorted(can.field_types))}",
            )
    return None


def check_backend(desired: DesiredIndex, observed: ObservedIndex) -> Refusal | None:
    """The store is still the one that holds this index."""
    if observed.known_backend_id in (None, observed.backend_id) or not observed.capabilities.durable:
        return None
    if observed.description is not None and observed.description.incarnation == observed.known_incarnation:
        return None  # the very same index: the backend only changed its address
    return _terminal(
        "BackendChanged",
        f"the VectorStore now points at another backend ({observed.backend_id}, before {observed.known_backend_id}), "
        f"where index {desired.name} is not: point it back, or make a new VectorIndex",
    )


def check_claims(desired: DesiredIndex, observed: ObservedIndex) -> Refusal | None:
    """No other resource claimed this index first."""
    if observed.claimant is None:
        return None
    return _conflict(
        "ClaimedByAnother",
        f"index {desired.name} is already claimed by {observed.claimant}: delete one of the two, or change its "
        "spec.indexName",
    )


def check_lost(desired: DesiredIndex, observed: ObservedIndex) -> Refusal | None:
    """An index that was there is still there, or may be made again."""
    if observed.description is not None or observed.known_incarnation is None:
        return None
    if desired.on_lost is OnLost.RECREATE and desired.may_change:
        return None
    return _terminal(
        "IndexLost",
        f"index {desired.definition.name} is gone from the store, with its vectors: restore it there, or set "
        "spec.onLost: Recreate to make an empty one",
    )


def _ours(desired: DesiredIndex, observed: ObservedIndex) -> bool:
    """Whether the index that was found is ours: by its mark, or because it is the very one we made or adopted."""
    found = observed.description
    if found is None:
        return False
    return found.mark == desired.definition.mark or (
        found.mark is None and observed.known_owned and found.incarnation == observed.known_incarnation
    )


def check_owner(desired: DesiredIndex, observed: ObservedIndex) -> Refusal | None:
    """An index that exists is ours, or may be adopted, or is only observed."""
    found = observed.description
    if found is None or not desired.manages or _ours(desired, observed):
        return None
    if found.mark is not None:
        owner, mine = found.mark, desired.definition.mark
        where = "" if mine and owner.installation == mine.installation else f" of installation {owner.installation}"
        return _conflict(
            "OwnedByAnother",
            f"index {found.name} belongs to VectorIndex {owner.namespace}/{owner.name}{where}: nothing was touched",
        )
    if desired.adoption_policy is AdoptionPolicy.IF_MATCHING:
        return None
    if observed.known_incarnation not in (None, found.incarnation):
        return _conflict(
            "IndexReplaced",
            f"index {found.name} was replaced in the store by another one of the same name: nothing was touched; set "
            "spec.adoptionPolicy: IfMatching to take it over",
        )
    return _conflict(
        "AlreadyExists",
        f"index {found.name} exists in the store (dimension {found.dimension or 'unknown'}, "
        f"{found.metric or 'unknown'}) and was not made by this resource: set spec.adoptionPolicy: IfMatching to take "
        "it over, or another spec.indexName",
    )


def check_shape(desired: DesiredIndex, observed: ObservedIndex) -> Refusal | None:
    """An index that exists has the dimension and metric of the spec."""
    found, want = observed.description, desired.definition
    if found is None:
        return None
    if found.dimension is not None and found.dimension != want.dimension:
        return _conflict(
            "DimensionMismatch",
            f"index {found.name} has dimension {found.dimension}, the spec wants {want.dimension}: nothing was "
            "touched; use another spec.indexName, or the dimension that it has",
        )
    if found.metric is not None and found.metric != want.metric:
        return _conflict(
            "MetricMismatch",
            f"index {found.name} compares by {found.metric}, the spec wants {want.metric}: nothing was touched; use "
            "another spec.indexName, or the metric that it has",
        )
    return None


def check_model(desired: DesiredIndex, observed: ObservedIndex) -> Refusal | None:
    """The vectors that are there were made by the spec's embedding model."""
    found, want = observed.description, desired.definition.model_fingerprint
    if found is None or want is None or found.model_fingerprint in (None, want):
        return None
    if found.count == 0 and found.count_exact:
        return None
    return _conflict(
        "ModelMismatch",
        f"index {found.name} holds vectors of another embedding model (fingerprint {found.model_fingerprint}, the "
        f"spec's is {want}): they cannot be mixed; use the model that made them, or a new VectorIndex",
    )


CHECKS: tuple[Check, ...] = (
    check_capabilities,
    check_claims,
    check_backend,
    check_lost,
    check_owner,
    check_shape,
    check_model,
)
"""In the order in which a person would want to hear of them."""


def _differences(desired: DesiredIndex, observed: ObservedIndex, found: IndexDescription) -> _Differences:
    """Settings and fields that the spec names and the store has otherwise. What the spec leaves out is not compared."""
    result = _Differences()
    mutable = observed.capabilities.mutable_settings

    def note(path: str, want: str, have: str, change_class: ChangeClass) -> bool:
        mended = desired.may_change and change_class.rank <= ChangeClass(desired.update_policy.value).rank
        result.drift.append(Drift(path, want, have, change_class, mended))
        if mended:
            result.classes.append(change_class)
        return mended

    for name, value in sorted(desired.definition.settings.items()):
        have = found.settings.get(name)
        if have != value and note(
            f"tuning.{name}",
            str(value),
            "unset" if have is None else str(have),
            mutable.get(name, ChangeClass.IMMUTABLE),
        ):
            result.settings[name] = value
    present = {item.name: item.type for item in found.fields or ()}
    for wanted in desired.definition.fields if found.fields is not None else ():
        have_type = present.get(wanted.name)
        if have_type == wanted.type:
            continue
        change_class = ChangeClass.IMMUTABLE if have_type else mutable.get("metadata_fields", ChangeClass.SAFE)
        if note(f"metadataFields[{wanted.name}]", wanted.type, have_type or "absent", change_class):
            result.new_fields.append(wanted)
    return result


def _marking(desired: DesiredIndex, observed: ObservedIndex, found: IndexDescription) -> Iterable[Action]:
    want = desired.definition
    if want.mark is None or not observed.capabilities.marks:
        return
    fingerprint = want.model_fingerprint or found.model_fingerprint
    if not _ours(desired, observed):
        yield AdoptIndex(want.mark, fingerprint)
    elif found.mark != want.mark or found.model_fingerprint != fingerprint:
        yield RestoreMark(want.mark, fingerprint)


def plan(desired: DesiredIndex, observed: ObservedIndex) -> Plan:
    """What is to be done, with reasons. Pure: no call, no clock."""
    for check in CHECKS:
        if refusal := check(desired, observed):
            return Plan(refusal=refusal)
    found = observed.description
    uses_alias = observed.capabilities.aliases and desired.name != desired.definition.name
    alias = PointAlias(desired.name, desired.definition.name)
    if found is None:
        if not desired.may_change:
            return Plan(missing=True)
        create = CreateIndex(desired.definition, recreate=observed.known_incarnation is not None)
        return Plan(actions=(create, alias) if uses_alias else (create,))
    differences = _differences(desired, observed, found)
    actions: list[Action] = list(_marking(desired, observed, found)) if desired.may_change else []
    if differences.settings or differences.new_fields:
        actions.append(
            UpdateSettings(
                differences.settings,
                tuple(differences.new_fields),
                max(differences.classes, key=lambda change_class: change_class.rank),
            )
        )
    if found.unbuilt and desired.may_change and not observed.filling:
        actions.append(BuildIndex())
    if uses_alias and observed.alias_target != desired.definition.name and desired.may_change:
        actions.append(alias)
    return Plan(actions=tuple(actions), drift=tuple(differences.drift))
