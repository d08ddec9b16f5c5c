"""Shares of what a store and an embedder may be asked for, handed to the workers that run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.runs import run_spec

from vectorwright.api.v1alpha1 import EmbeddingModelSpec
from vectorwright.ingest.runspec import EmbedderTarget, RunSpec
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.run_budget import share
from vectorwright.reconcile.runner_base import WorkerBudget


def key(name: str) -> Key:
    return Key("IngestionJob", "team-a", name)


def embedder(fingerprint: str = "p1", **limits: int) -> EmbedderTarget:
    spec = EmbeddingModelSpec.model_validate(
        {"openAI": {"baseUrl": "http://x", "model": "m"}, **({"limits": limits} if limits else {})}
    )
    return EmbedderTarget(spec=spec, fingerprint=fingerprint)


def run(requests: float | None = None, volume: int | None = None, model: EmbedderTarget | None = None) -> RunSpec:
    spec = run_spec()
    store = spec.store.model_copy(update={"requests_per_second": requests, "bytes_per_second": volume})
    return spec.model_copy(update={"store": store, "embedder": model})


def context(**runs: tuple[str, RunSpec]) -> Context:
    return cast("Context", SimpleNamespace(runs={key(name): value for name, value in runs.items()}))


def test_a_worker_alone_gets_everything() -> None:
    alone = context(a=("b1", run(10.0, 4096, embedder(requestsPerMinute=60, tokensPerMinute=1000))))
    assert share(alone, key("a")) == WorkerBudget(10.0, 4096.0, 60.0, 1000.0)


def test_a_run_that_this_process_does_not_know_gets_no_share() -> None:
    assert share(context(), key("a")) is None


def test_what_is_not_limited_stays_so() -> None:
    assert share(context(a=("b1", run())), key("a")) == WorkerBudget()
    assert share(context(a=("b1", run(model=embedder()))), key("a")) == WorkerBudget()


def test_workers_on_one_backend_share_whatever_object_names_it() -> None:
    both = context(a=("b1", run(10.0)), b=("b1", run(4.0)), c=("b2", run(10.0)))
    assert share(both, key("a")) == share(both, key("b")) == WorkerBudget(2.0)
    assert share(both, key("c")) == WorkerBudget(10.0)


def test_one_that_has_no_limit_of_its_own_takes_its_share_of_the_others() -> None:
    """Two VectorStores for one server: a limit on one of them is a limit of the server."""
    both = context(a=("b1", run(10.0)), b=("b1", run()))
    assert share(both, key("b")) == WorkerBudget(5.0)


def test_workers_of_one_model_share_its_limits_and_the_lowest_holds() -> None:
    both = context(
        a=("b1", run(model=embedder(requestsPerMinute=60))),
        b=("b2", run(model=embedder(requestsPerMinute=20, tokensPerMinute=100))),
        c=("b3", run(model=embedder("p2", requestsPerMinute=60))),
        d=("b4", run()),
    )
    expected = WorkerBudget(embed_requests_per_minute=10.0, embed_tokens_per_minute=50.0)
    assert share(both, key("a")) == share(both, key("b")) == expected
    assert share(both, key("c")) == WorkerBudget(embed_requests_per_minute=60.0)
    assert share(both, key("d")) == WorkerBudget()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["b1", "b2"]), st.none() | st.floats(0.1, 1000), st.none() | st.integers(1024, 10**9)
        ),
        min_size=1,
        max_size=8,
    )
)
def test_all_shares_together_never_exceed_the_lowest_limit(stores: list[tuple[str, Any, Any]]) -> None:
    runs = {str(number): (backend, run(rate, volume)) for number, (backend, rate, volume) in enumerate(stores)}
    shared = {name: share(context(**runs), key(name)) for name in runs}
    for backend in ("b1", "b2"):
        mine = [name for name, (where, _) in runs.items() if where == backend]
        for limit, part in (
            ([runs[name][1].store.requests_per_second for name in mine], "requests_per_second"),
            ([runs[name][1].store.bytes_per_second for name in mine], "bytes_per_second"),
        ):
            set_limits = [float(value) for value in limit if value]
            given_out = [getattr(shared[name], part) for name in mine]
            if not set_limits:
                assert given_out == [None] * len(mine)
            else:
                assert sum(given_out) == pytest.approx(min(set_limits))
