"""What is remembered between the steps of a rotation, and the names and values of keys.

- Every state comes back from the fields of its Secret as it was, whatever it holds; values are in fields of their own.
- What is damaged, missing or of a newer version is told as nothing, and never raises.
- No value shows in a repr or in the JSON.
- Names are the same for the same resource for ever, different for different ones, and within the stores' limits.
- Passwords need no quoting, and are of the classes that stores ask for.
"""

from __future__ import annotations

import json
import string
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorwright.errors import Terminal
from vectorwright.rotation import names
from vectorwright.rotation.base import KeyMaterial
from vectorwright.rotation.passwords import random_password, random_token
from vectorwright.rotation.state import (
    STATE_FIELD,
    KeyRecord,
    Record,
    RotationState,
    Step,
    Verification,
    from_data,
    to_data,
)
from vectorwright.stores.base import OwnershipMark

OWNER = OwnershipMark("cluster-1", "team-a", "search")
moments = st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
texts = st.text(min_size=1, max_size=40)
materials = st.builds(KeyMaterial, st.none() | texts, st.none() | texts, st.none() | texts).filter(
    lambda key: key.parts
)
keys = st.builds(
    KeyRecord,
    st.integers(0, 10**6),
    texts,
    texts,
    moments,
    st.none() | moments,
    st.none() | materials,
    st.booleans(),
)
records = st.builds(Record, st.integers(0, 99), texts, texts, moments, st.none() | moments, st.none() | texts)
states = st.builds(
    RotationState,
    step=st.sampled_from(Step),
    revision=st.integers(0, 10**6),
    pending=st.none() | keys,
    current=st.none() | keys,
    previous=st.none() | keys,
    identity=texts,
    drafted_for=texts,
    handled_request=st.none() | texts,
    revocations=st.integers(0, 99),
    published=st.booleans(),
    step_since=st.none() | moments,
    record=st.none() | records,
    history=st.lists(records, max_size=3).map(tuple),
    verification=st.none() | st.builds(Verification, moments, texts, st.sampled_from(["Accepted", "Refused"])),
)


@given(states)
def test_a_state_comes_back_as_it_was(state: RotationState) -> None:
    data = {name: value.encode() for name, value in to_data(state).items()}
    assert from_data(data) == state


def test_values_are_in_fields_of_their_own_and_show_nowhere_else() -> None:
    current = KeyRecord(1, "id", "name", datetime.now(UTC), material=KeyMaterial(username="u", password="hush-hush-1"))
    state = RotationState(current=current)
    data = to_data(state)
    assert data["current.password"] == "hush-hush-1"
    assert "hush-hush-1" not in data[STATE_FIELD]
    assert "hush-hush-1" not in repr(state)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"no json",
        b"[]",
        b"null",
        b"{}",
        b'{"format": 1}',
        b'{"format": 1, "step": "Dance"}',
        b"\xff\xfe",
    ],
    ids=["absent", "empty", "no JSON", "a list", "null", "no format", "nothing in it", "no step", "no text"],
)
def test_what_cannot_be_read_is_nothing(content: bytes | None) -> None:
    assert from_data({} if content is None else {STATE_FIELD: content}) is None


def test_a_field_that_a_later_version_added_is_done_without() -> None:
    plain = json.loads(to_data(RotationState(revision=4))[STATE_FIELD]) | {"other": 1}
    assert from_data({STATE_FIELD: json.dumps(plain).encode()}) == RotationState(revision=4)


def test_what_a_newer_version_wrote_is_not_taken_for_damaged() -> None:
    plain = json.loads(to_data(RotationState())[STATE_FIELD]) | {"format": 2}
    with pytest.raises(Terminal) as caught:
        from_data({STATE_FIELD: json.dumps(plain).encode()})
    assert caught.value.reason == "StateTooNew"


def test_a_key_whose_value_vanished_from_its_field_is_one_of_unknown_value() -> None:
    current = KeyRecord(1, "id", "name", datetime.now(UTC), material=KeyMaterial(token="hush-hush-2"))
    data = {name: value.encode() for name, value in to_data(RotationState(current=current)).items()}
    del data["current.token"]
    state = from_data(data)
    assert state is not None
    assert state.current is not None
    assert state.current.material is None


def test_names_belong_to_one_resource() -> None:
    assert names.numbered(OWNER, 7) == names.numbered(OwnershipMark("cluster-1", "team-a", "search"), 7)
    others = [
        OwnershipMark("cluster-2", "team-a", "search"),
        OwnershipMark("cluster-1", "team-b", "search"),
        OwnershipMark("cluster-1", "team-a", "search2"),
    ]
    for other in others:
        assert names.numbered(other, 7) != names.numbered(OWNER, 7)
        assert names.revision_of(OWNER, names.numbered(other, 7)) is None
        assert names.slotted(other, "app", "a") != names.slotted(OWNER, "app", "a")


@given(st.integers(1, 10**9), st.integers(40, 128))
def test_a_name_tells_its_revision_and_keeps_its_length(revision: int, most: int) -> None:
    owner = OwnershipMark("cluster-1", "n" * 63, "x" * 253)
    name = names.numbered(owner, revision, most=most)
    assert len(name) <= most
    assert names.revision_of(owner, name) == revision


@pytest.mark.parametrize("name", ["", "vw-r7", "by-hand", "vw-team-a-search-00000000-r7", "vw-team-a-search-r7x"])
def test_other_names_tell_no_revision(name: str) -> None:
    assert names.revision_of(OWNER, name) is None


def test_identities_take_turns() -> None:
    assert [names.slot_of(revision) for revision in (1, 2, 3, 4)] == ["a", "b", "a", "b"]


def test_passwords_need_no_quoting_and_are_of_three_classes() -> None:
    seen = {random_password() for _ in range(200)}
    assert len(seen) == 200
    for password in seen:
        assert len(password) == 40
        assert set(password) <= set(string.ascii_letters + string.digits)
        assert any(map(str.islower, password))
        assert any(map(str.isupper, password))
        assert any(map(str.isdigit, password))


def test_tokens_begin_with_their_prefix() -> None:
    token = random_token(32, "vw_")
    assert token.startswith("vw_")
    assert len(token) == len("vw_") + 43
