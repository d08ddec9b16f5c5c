"""The cache of watched objects never goes back, never brings back what is gone, and knows our own writes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vectorwright.reconcile import cache as module
from vectorwright.reconcile.cache import Key, ObjectCache

KEY = Key("VectorIndex", "team-a", "docs")


def body(version: int | str, *, uid: str = "u1", name: str = "docs", namespace: str = "team-a", **more: Any) -> Any:
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(version)},
        **more,
    }


def version(cache: ObjectCache) -> str | None:
    found = cache.get(*KEY)
    return None if found is None else found["metadata"]["resourceVersion"]


def test_it_drops_managed_fields_and_leaves_the_given_object_alone() -> None:
    cache = ObjectCache()
    given = body(1)
    given["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    assert cache.put("VectorIndex", given)
    found = cache.get(*KEY)
    assert found is not None
    assert "managedFields" not in found["metadata"]
    assert "managedFields" in given["metadata"]


def test_an_older_event_does_not_undo_a_newer_write() -> None:
    cache = ObjectCache()
    cache.put("VectorIndex", body(12, status={"new": True}), written=True)
    assert not cache.put("VectorIndex", body(11))
    assert cache.get(*KEY) == body(12, status={"new": True})
    assert cache.put("VectorIndex", body(12)), "the same version is no older one"


def test_versions_are_numbers() -> None:
    cache = ObjectCache()
    cache.put("VectorIndex", body(99))
    assert cache.put("VectorIndex", body(100))
    assert not cache.put("VectorIndex", body(99))


def test_an_object_made_again_replaces_its_predecessor_and_not_the_other_way_round() -> None:
    cache = ObjectCache()
    cache.put("VectorIndex", body(10, uid="old"))
    assert cache.put("VectorIndex", body(20, uid="new"))
    assert not cache.put("VectorIndex", body(15, uid="old"))
    cache.drop(KEY, "old")
    assert version(cache) == "20"
    cache.drop(KEY, "new")
    assert cache.get(*KEY) is None


def test_the_late_answer_to_a_write_does_not_bring_back_what_is_gone() -> None:
    cache = ObjectCache()
    cache.put("VectorIndex", body(10))
    cache.drop(KEY, "u1")
    assert not cache.put("VectorIndex", body(11), written=True)
    assert cache.get(*KEY) is None
    assert not cache.was_written(KEY, "11")
    assert cache.put("VectorIndex", body(12, uid="u2"))


def test_what_is_remembered_of_the_gone_is_bounded() -> None:
    cache = ObjectCache()
    for number in range(module._GONE_REMEMBERED + 10):
        cache.drop(KEY, f"uid-{number}")
    assert len(cache._gone) == module._GONE_REMEMBERED
    assert not cache.put("VectorIndex", body(1, uid=f"uid-{module._GONE_REMEMBERED + 9}"))


def test_our_own_writes_are_known_by_their_version() -> None:
    cache = ObjectCache()
    cache.put("VectorIndex", body(1))
    cache.put("VectorIndex", body(2), written=True)
    cache.put("VectorIndex", body(3), written=True)
    assert [cache.was_written(KEY, text) for text in ("1", "2", "3")] == [False, True, True]
    assert not cache.was_written(KEY._replace(name="other"), "2")
    for number in range(4, 30):
        cache.put("VectorIndex", body(number), written=True)
    assert len(cache._written[KEY]) == module._WRITES_REMEMBERED
    cache.drop(KEY, "u1")
    assert not cache._written


def test_objects_are_listed_by_namespace_or_all() -> None:
    cache = ObjectCache()
    for number, (namespace, name) in enumerate([("a", "x"), ("a", "y"), ("b", "x")]):
        cache.put("VectorIndex", body(number, uid=f"{namespace}{name}", name=name, namespace=namespace))
    assert len(list(cache.all("VectorIndex"))) == 3
    assert [item["metadata"]["name"] for item in cache.all("VectorIndex", "a")] == ["x", "y"]
    assert list(cache.all("VectorStore")) == []
    assert cache.get("VectorIndex", "c", "x") is None


@given(
    st.lists(st.tuples(st.sampled_from(["event", "write", "drop"]), st.integers(1, 20), st.sampled_from(["u1", "u2"])))
)
def test_versions_only_grow_and_the_gone_stay_gone(steps: list[tuple[str, int, str]]) -> None:
    cache = ObjectCache()
    gone: set[str] = set()
    for what, number, uid in steps:
        before = cache.get(*KEY)
        if what == "drop":
            cache.drop(KEY, uid)
            gone.add(uid)
        else:
            cache.put("VectorIndex", body(number, uid=uid), written=what == "write")
        after = cache.get(*KEY)
        if after is not None:
            assert after["metadata"]["uid"] not in gone
            if before is not None:
                assert int(after["metadata"]["resourceVersion"]) >= int(before["metadata"]["resourceVersion"])


def test_objects_share_their_keys_and_short_strings() -> None:
    cache = ObjectCache()
    for name in ("a", "b"):
        text = json.dumps(
            {"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "status": {"reason": "Ready"}}
        )
        assert cache.put("VectorIndex", json.loads(text))
    first, second = (cache.get("VectorIndex", "", name) for name in ("a", "b"))
    assert first is not None
    assert second is not None
    assert first["status"] == second["status"] == {"reason": "Ready"}
    assert first["status"]["reason"] is second["status"]["reason"]
    assert next(iter(first["status"])) is next(iter(second["status"]))
