"""Which identity goes with which store and strategy.

- What the registry makes for a store is what the store's capabilities tell.
- The strategy that is taken without a word is the one that the specification gives, and never InPlace.
- What does not go together is refused in words that name what would.
- Every identity of the API has a maker, and every maker a module.
"""

from __future__ import annotations

import importlib
import importlib.util

import pytest

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.api.v1alpha1.identities import IDENTITIES
from vectorwright.errors import Terminal
from vectorwright.rotation.registry import KINDS, choose

PROVIDERS = ("pinecone", "qdrant", "weaviate", "milvus", "pgvector")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_strategies_are_those_that_the_store_tells(provider: str) -> None:
    told = importlib.import_module(f"vectorwright.stores.{provider}.catalog").CAPABILITIES.rotation_strategies
    made = {strategy.value for kind in KINDS.values() if provider in kind.providers for strategy in kind.modules}
    assert made == told


def test_every_identity_has_a_maker_and_every_maker_a_module() -> None:
    assert set(KINDS) == set(IDENTITIES)
    for kind in KINDS.values():
        for module in kind.modules.values():
            assert importlib.util.find_spec(module) is not None, module


@pytest.mark.parametrize(
    ("identity", "provider", "strategy"),
    [
        ("pinecone", "pinecone", Strategy.DUAL_KEY),
        ("qdrantToken", "qdrant", Strategy.TOKEN),
        ("qdrantCloud", "qdrant", Strategy.DUAL_KEY),
        ("qdrantServer", "qdrant", Strategy.DUAL_KEY),
        ("weaviate", "weaviate", Strategy.DUAL_IDENTITY),
        ("milvus", "milvus", Strategy.DUAL_IDENTITY),
        ("postgres", "pgvector", Strategy.DUAL_IDENTITY),
        ("generated", "chroma", Strategy.GENERATE),
    ],
)
def test_the_strategy_without_a_word(identity: str, provider: str, strategy: Strategy) -> None:
    assert choose(identity, provider, None) is strategy


def test_in_place_is_taken_when_asked_for() -> None:
    assert choose("postgres", "pgvector", Strategy.IN_PLACE) is Strategy.IN_PLACE


@pytest.mark.parametrize(
    ("identity", "provider", "strategy", "words"),
    [
        ("weaviate", "pgvector", None, "set one of postgres, generated"),
        ("postgres", "pgvector", Strategy.DUAL_KEY, "which takes DualIdentity, InPlace"),
        ("pinecone", "pinecone", Strategy.IN_PLACE, "which takes DualKey"),
    ],
)
def test_what_does_not_go_together(identity: str, provider: str, strategy: Strategy | None, words: str) -> None:
    with pytest.raises(Terminal, match=words) as caught:
        choose(identity, provider, strategy)
    assert caught.value.reason == "InvalidSpec"
