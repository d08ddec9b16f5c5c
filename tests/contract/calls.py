"""Every call of the protocol, on an index ``docs`` of three records, for checks that go through all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from tests.contract.data import MARK, batch, definition, record_id, scrolled, vectors
from tests.contract.providers.base import Provider

from vectorwright.stores.base import Capabilities, FieldDefinition, OwnershipMark, Store
from vectorwright.stores.filters import Eq
from vectorwright.stores.registry import open_store

OTHER = OwnershipMark("install-2", "team-b", "other")
TEAM = "team_a"


@dataclass(frozen=True, slots=True)
class Call:
    """One method with its arguments."""

    name: str
    run: Callable[[Store], Awaitable[object]]
    on_index: bool = True
    """Whether it is about an index that exists: then a store's own "not found" is about that index."""
    changes: bool = False
    """Whether it leaves something else behind than it found."""
    capability: str | None = None
    """The capability without which it is refused."""


CALLS = (
    Call("probe", lambda store: store.probe(), on_index=False),
    Call("list_indexes", lambda store: store.list_indexes(), on_index=False),
    Call("describe_index", lambda store: store.describe_index("docs")),
    Call("create_index", lambda store: store.create_index(definition("made")), on_index=False, changes=True),
    Call(
        "update_index",
        lambda store: store.update_index("docs", {}, [FieldDefinition("later", "keyword")]),
        changes=True,
    ),
    Call("set_mark", lambda store: store.set_mark("docs", OTHER, "fp-2"), changes=True),
    Call("delete_index", lambda store: store.delete_index("docs"), changes=True),
    Call("statistics", lambda store: store.statistics("docs")),
    Call("count", lambda store: store.count("docs")),
    Call("count by filter", lambda store: store.count("docs", Eq("word", "w1"))),
    Call("upsert", lambda store: store.upsert("docs", batch(3, seed=2)), changes=True),
    Call("fetch", lambda store: store.fetch("docs", [record_id(0)], vectors=True)),
    Call("query", lambda store: store.query("docs", vectors(1)[0], 3)),
    Call("delete", lambda store: store.delete("docs", [record_id(0)]), changes=True),
    Call("delete_where", lambda store: store.delete_where("docs", Eq("word", "w1")), changes=True),
    Call("scroll", lambda store: scrolled(store, page=2)),
    Call("aliases", lambda store: store.aliases(), on_index=False, capability="aliases"),
    Call("set_alias", lambda store: store.set_alias("second", "docs"), changes=True, capability="aliases"),
    Call("delete_alias", lambda store: store.delete_alias("live"), changes=True, capability="aliases"),
    Call(
        "delete_namespace",
        lambda store: store.delete_namespace("divided", TEAM),
        changes=True,
        capability="namespaces",
    ),
)


def calls_of(capabilities: Capabilities) -> list[Call]:
    """The calls that a store of these capabilities answers."""
    return [call for call in CALLS if call.capability is None or getattr(capabilities, call.capability)]


async def prepare(store: Store, provider: Provider) -> None:
    """Make what the calls are about, where it is not there: they may have been made before."""
    present = {index.name for index in await store.list_indexes()}
    if "made" in present:
        await store.delete_index("made")
    if "docs" not in present:
        await store.create_index(definition())
    else:
        await store.set_mark("docs", MARK, "fp-1")
    await store.upsert("docs", batch(3))
    if store.capabilities.aliases:
        aliases = await store.aliases()
        if "second" in aliases:
            await store.delete_alias("second")
        if aliases.get("live") != "docs":
            await store.set_alias("live", "docs")
    if store.capabilities.namespaces:
        if "divided" not in present:
            await store.create_index(replace(definition("divided"), settings=provider.namespaced))
        async with open_store(replace(provider.connection(), namespace=TEAM)) as team:
            await team.upsert("divided", batch(2))
