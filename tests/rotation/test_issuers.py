"""What every issuer of keys promises, on its real server or double.

- a key that was made is accepted, by our call and by a consumer's own client; one that was not is refused
- names of keys are those of the resource and the revision alone
- a key whose value was lost is made again, under the same name: one key is left, and the lost value is refused
- the key that is published survives whatever is made beside it, unless keys are asked for in place
- resources do not see each other's keys, nor those made by hand, and revoke neither
- a revoked key is refused in time while the new one is accepted by the same call; revoking again is fine
"""

from __future__ import annotations

import pytest
from tests.rotation.cases import IssuerCase, OpenIssuer, key_request, owner
from tests.rotation.issuers import over
from tests.rotation.steps import becomes, begin, is_accepted, is_refused, make, names_live, revoke

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.errors import Conflict
from vectorwright.observability.logs import redact
from vectorwright.rotation import registry
from vectorwright.rotation.base import KeyMaterial, LiveKey

pytestmark = pytest.mark.server


@over()
async def test_the_issuer_is_as_the_case_says(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    issuer = open_issuer()
    assert issuer.traits == case.traits
    assert case.strategy in registry.KINDS[case.identity].modules
    await issuer.close()  # twice is fine: the fixture closes it, too
    await registry.open_issuer(case.identity, case.strategy, case.assignment()).close()


@over()
async def test_a_key_that_was_made_is_accepted(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    issuer = open_issuer()
    await issuer.check()
    request = key_request(issuer, 1)
    assert (request.draft is not None) == case.traits.generates
    made = await make(issuer, request)
    if case.traits.generates:
        assert made.material == request.draft
    assert (made.not_after is not None) == case.traits.expires
    await case.published(made.material)
    await is_accepted(case, issuer, made.material)
    await is_refused(case, issuer, case.other(made.material))
    if "live" in case.calls:
        (live,) = await issuer.live()
        assert (live.id, live.name) == (made.id, request.name)
        assert live.revision in (None, 1)
        assert request.name in await case.inventory()


@over()
async def test_names_are_of_the_resource_and_the_revision(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    issuer, again = open_issuer(), open_issuer()
    other = open_issuer(case.assignment("other"))
    for revision in (1, 2, 3, 1_000_000):
        name = issuer.name_of(revision)
        assert name == again.name_of(revision)
        assert (name == other.name_of(revision)) == case.in_place
    first, second, third = (issuer.name_of(revision) for revision in (1, 2, 3))
    assert (first == second) == case.in_place
    assert (first == third) == (case.in_place or case.strategy is Strategy.DUAL_IDENTITY)


@over(lambda case: case.traits.generates)
async def test_drafts_are_random_and_registered(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    issuer = open_issuer()
    drafts = [issuer.draft(key_request(issuer, 1)) for _ in range(20)]
    values = {draft.password or draft.token for draft in drafts if draft is not None}
    if case.strategy is not Strategy.TOKEN:  # tokens of one second may be the same
        assert len(values) == 20
    assert all(len(value or "") >= 16 and redact(f"in a log: {value}") == "in a log: ***" for value in values)


@over(lambda case: "create" in case.calls)
async def test_a_key_whose_value_was_lost_is_made_again(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    lost = await make(open_issuer(), key_request(open_issuer(), 1))
    issuer = open_issuer()
    made = await begin(case, issuer)
    assert made.material != lost.material
    if case.traits.revocable:
        await is_refused(case, issuer, lost.material)
    if "live" in case.calls:
        assert [(key.id, key.name) for key in await issuer.live()] == [(made.id, issuer.name_of(1))]
        assert [name for name in await case.inventory() if name == issuer.name_of(1)] == [issuer.name_of(1)]


@over(lambda case: case.traits.generates)
async def test_a_draft_may_be_made_twice(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    first, second = open_issuer(), open_issuer()
    request = key_request(first, 1)
    made = await make(first, request)
    again = await make(second, request)
    assert again == made
    await case.published(made.material)
    await is_accepted(case, second, made.material)


@over(lambda case: case.traits.overlaps)
async def test_the_published_key_survives_the_next_one(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    current = await begin(case, open_issuer())
    for _ in range(2):  # the second time as after a lost value
        issuer = open_issuer()
        made = await begin(case, issuer, 2, current)
        await is_accepted(case, issuer, current.material)
        if "live" in case.calls:
            assert {key.id for key in await issuer.live()} == {current.id, made.id}


@over(lambda case: case.strategy is Strategy.DUAL_IDENTITY)
async def test_the_published_identity_is_never_made_anew(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    issuer = open_issuer()
    current = await begin(case, issuer)
    assert current.material.username is not None
    with pytest.raises(Conflict):
        await issuer.create(key_request(issuer, 3, current.material))
    await is_accepted(case, issuer, current.material)
    assert await names_live(issuer) == {issuer.name_of(1)}


@over(lambda case: not case.traits.overlaps)
async def test_in_place_the_key_before_ends_with_the_next_one(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    issuer = open_issuer()
    assert await issuer.live() == []  # nothing to sweep: the identity was made by people
    current = await begin(case, issuer)
    made = await begin(case, issuer, 2, current)
    await is_refused(case, issuer, current.material)
    await is_accepted(case, issuer, made.material)
    assert await names_live(issuer) <= {issuer.name_of(2)}


@over(lambda case: not case.traits.overlaps and case.traits.revocable)
async def test_in_place_the_last_key_can_be_revoked(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    issuer = open_issuer()
    made = await begin(case, issuer)
    for _ in range(2):
        await revoke(open_issuer(), made, 1)
        await is_refused(case, issuer, made.material)
    await begin(case, open_issuer(), 2)


@over(lambda case: case.traits.overlaps and case.traits.revocable)
async def test_a_revoked_key_is_refused_and_the_new_one_is_not(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    issuer = open_issuer()
    old = await begin(case, issuer)
    new = await begin(case, issuer, 2, old)
    for _ in range(2):  # gone already is fine
        await revoke(open_issuer(), old, 1)
        await case.published(new.material)
        await is_refused(case, issuer, old.material)
        await is_accepted(case, issuer, new.material)
    if "live" in case.calls:
        assert await names_live(issuer) == {issuer.name_of(2)}
        assert issuer.name_of(1) not in await case.inventory()


@over(lambda case: case.traits.overlaps and case.traits.revocable)
async def test_keys_take_turns_for_long(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    issuer = open_issuer()
    current, ended = await begin(case, issuer), list[KeyMaterial]()
    for revision in range(2, 6):
        made = await begin(case, issuer, revision, current)
        await revoke(issuer, current, revision - 1)
        await case.published(made.material)
        ended.append(current.material)
        current = made
        for material in ended:  # also those of an identity that has another value now
            await is_refused(case, issuer, material)
        await is_accepted(case, issuer, current.material)
    if "live" in case.calls:
        assert await names_live(issuer) == {issuer.name_of(5)}


@over(lambda case: case.traits.overlaps and "live" in case.calls)
async def test_resources_do_not_see_each_others_keys(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    mine, others = open_issuer(), open_issuer(case.assignment("search-2"))
    made, foreign = await begin(case, mine), await begin(case, others)
    by_hand = await case.make_by_hand()
    await becomes(True, lambda: case.use(by_hand), case.acceptance_seconds)
    before = await case.inventory()
    assert await names_live(mine) == {mine.name_of(1)}
    assert await names_live(others) == {others.name_of(1)}
    await revoke(mine, made, 1)
    await becomes(before - {mine.name_of(1)}, case.inventory, case.refusal_seconds)
    assert await mine.live() == []
    assert [key.id for key in await others.live()] == [foreign.id]
    await is_accepted(case, others, foreign.material)
    assert await case.use(by_hand)


@over(lambda case: case.has("changed_identity"))
async def test_keys_of_the_identity_before_are_listed_and_revoked(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    old = await begin(case, open_issuer())
    name = open_issuer().name_of(1)
    issuer = open_issuer(case.assignment(**case.changed_identity()))
    new = await begin(case, issuer, 2, old)
    assert await names_live(issuer) == {name, issuer.name_of(2)}
    for _ in range(2):
        await issuer.revoke(LiveKey(old.id, name, 1))
    await is_refused(case, issuer, old.material)
    await is_accepted(case, issuer, new.material)
    assert await names_live(issuer) == {issuer.name_of(2)}


@over(lambda case: case.has("predecessor_named"))
async def test_a_key_that_is_handed_over_is_the_predecessor(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    assignment, material = await case.predecessor_named()
    before = await open_issuer(assignment).predecessor()
    assert before is not None
    assert before.material == material


@over(lambda case: not case.has("predecessor_named"))
async def test_no_key_is_taken_for_the_predecessor(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    await case.make_by_hand()
    assert await open_issuer().predecessor() is None


@over()
def test_the_owner_of_an_assignment_is_the_resource(case: IssuerCase) -> None:
    mark = case.assignment("one").owner
    assert mark == owner("one", mark.installation)
    assert case.assignment("one").connection.timeout <= 10
