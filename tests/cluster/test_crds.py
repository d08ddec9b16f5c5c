"""The resource definitions on a real API server.

What is checked: accepted and established; ``kubectl explain`` down to deep fields; every rule, refused with its words
and accepted where it holds; fields that cannot change, cannot be added and cannot be taken away; unknown fields; the
status subresource, conditions as a map, columns, short names and the category.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from deploy.devcluster import Cluster, KubectlError
from tests.support.cluster import new_namespace

from vectorwright.api.v1alpha1.vectorstore import PROVIDERS

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crds")]

Body = dict[str, Any]


def resource(kind: str, spec: Body, name: str = "x") -> Body:
    return {"apiVersion": "vectorwright.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def index(**changes: Any) -> Body:
    spec: Body = {"storeRef": {"name": "vectors"}, "dimension": 4, **changes}
    return resource("VectorIndex", {name: value for name, value in spec.items() if value is not None})


def job(source: Body | None = None, **changes: Any) -> Body:
    given = {"inline": {"documents": [{"id": "a.md", "text": "words"}]}} if source is None else source
    return resource("IngestionJob", {"indexRef": {"name": "docs"}, "source": given, **changes})


def model(**spec: Any) -> Body:
    return resource("EmbeddingModel", spec or {"local": {"model": "wordllama"}})


def store(**spec: Any) -> Body:
    return resource("VectorStore", spec or {"memory": {"server": "http://vectors:8080"}})


@pytest.fixture(scope="module")
def place(devcluster: Cluster) -> Iterator[str]:
    """Nothing is stored here: every request is a trial."""
    with new_namespace(devcluster) as name:
        yield name


@pytest.fixture(scope="module")
def trial(devcluster: Cluster, place: str) -> Callable[[Body], str]:
    """Offer an object to the API server; what it objects to, or an empty text."""

    def offer(body: Body, *flags: str) -> str:
        try:
            devcluster.kubectl_run("create", "--dry-run=server", "-n", place, *flags, "-f", "-", input=json.dumps(body))
        except KubectlError as error:
            return str(error)
        return ""

    return offer


# -- what is accepted --
TEXT = {"chroma": {"url": "http://chroma:8000"}}
ACCEPTED = {
    "store: chroma": store(chroma={"url": "https://chroma.example.com/base", "authHeader": "X-Chroma-Token"}),
    "store: pgvector": store(pgvector={"host": "db", "database": "vectors", "schema": "rag", "sslMode": "require"}),
    "store: lance server": store(lance={"server": "http://lance:8080"}),
    "store: lance path": store(lance={"path": "team/docs"}),
    "store: memory": store(),
    "store: memory local": store(memory={"local": True}),
    "store: all of the rest": store(
        **TEXT,
        controlCredentials={"name": "admin", "tokenKey": "key"},
        dataCredentials={"name": "data"},
        tls={"caConfigMap": {"name": "ca", "key": "bundle.pem"}, "serverName": "chroma.internal"},
        limits={"requestsPerSecond": 0.5, "bytesPerSecond": 1024, "maxConcurrency": 1, "timeout": "1h30m"},
        probeInterval="500ms",
        countInterval="1d",
    ),
    "model: local": model(),
    "model: openAI": model(
        openAI={"baseURL": None, "baseUrl": "https://api.openai.com/v1", "model": "text-embedding-3-small"},
        revision="2026-01",
        normalize=True,
        dimension=1536,
        credentials={"name": "openai"},
        limits={"requestsPerMinute": 3000, "tokensPerMinute": 1000000},
        price={"perMillionTokens": "0.02", "currency": "USD"},
    ),
    "index: dimension": index(),
    "index: model": index(dimension=None, embeddingModelRef={"name": "small"}),
    "index: bounds": index(dimension=65535, metric="dotproduct", indexName="a" * 128),
    "index: retained under observation": index(managementPolicy="Observe", deletionPolicy="Retain"),
    "index: deletion": index(managementPolicy="Manage", deletionPolicy="Delete"),
    "index: hnsw": index(tuning={"pgvector": {"hnsw": {"m": 16, "efConstruction": 64}}}),
    "index: ivfflat": index(tuning={"pgvector": {"ivfflat": {"lists": 100}}}),
    "index: fields": index(metadataFields=[{"name": "lang", "type": "keyword"}, {"name": "VW", "type": "integer"}]),
    "job: inline": job(),
    "job: git": job({"git": {"url": "https://git.example.com/a/b.git", "ref": "main", "include": ["docs/**/*.md"]}}),
    "job: http": job({"http": {"urls": ["https://example.com/a.html"]}}),
    "job: configMap": job({"configMap": {"name": "texts", "keys": ["a.md"]}}),
    "job: inline, the largest": job({"inline": {"documents": [{"id": str(n), "text": "x" * 8192} for n in range(8)]}}),
    "job: overlap below the size": job(chunk={"size": 100, "overlap": 99}),
    "job: overlap below the default size": job(chunk={"overlap": 1499}),
    "job: overlap below the default size in tokens": job(chunk={"overlap": 399, "unit": "tokens"}),
    "job: all of the rest": job(
        sourceName="team/docs",
        parse={"type": "jsonLines", "idField": "id", "textFields": ["title", "body"], "timeout": "10s"},
        embedding={"precomputed": {"field": "vector"}},
        batch={"maxRecords": 100, "maxBytes": 1048576, "workers": 4, "attempts": 3},
        sync={"mode": "Sync", "maxDeletePercent": 0},
        budget={"maxDocuments": 1, "maxVectors": 1, "maxTokens": 1},
        maxDeadLetters=0,
        state={"index": {}},
        runner={"type": "Job", "resources": {"limits": {"memory": "2Gi"}}, "nodeSelector": {"a": "b"}},
        schedule={"cron": "*/5 * * * *", "timeZone": "Europe/Berlin", "startingDeadline": "10m"},
        suspend=True,
    ),
}
del ACCEPTED["model: openAI"]["spec"]["openAI"]["baseURL"]


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_right_is_accepted(trial: Callable[..., str], name: str) -> None:
    assert trial(ACCEPTED[name], "--validate=strict") == ""


# -- what is refused, with the words that say so --
NOT_ONE_PROVIDER = f"spec: exactly one of {', '.join(PROVIDERS)} must be set"
NOT_ONE_EMBEDDER = "spec: exactly one of openAI, local must be set"
NOT_ONE_SOURCE = "spec.source: exactly one of git, http, configMap, inline, vectorIndex must be set"
REFUSED = {
    "no provider": (store(probeInterval="1m"), NOT_ONE_PROVIDER),
    "two providers": (store(**TEXT, memory={"local": True}), NOT_ONE_PROVIDER),
    "lance at two places": (
        store(lance={"server": "http://x", "path": "y"}),
        "spec.lance: exactly one of server, path, s3, gcs, azure must be set",
    ),
    "memory nowhere": (store(memory={}), "spec.memory: exactly one of server, local must be set"),
    "a password in an address": (store(chroma={"url": "http://me:secret@chroma"}), "spec.chroma.url"),
    "an address of another scheme": (store(chroma={"url": "ftp://chroma"}), "spec.chroma.url"),
    "a path that climbs": (store(lance={"path": "a/../../b"}), "spec.lance.path"),
    "a path that is hidden": (store(lance={"path": ".memory"}), "spec.lance.path"),
    "a path from the root": (store(lance={"path": "/etc"}), "spec.lance.path"),
    "two certificate authorities": (
        store(**TEXT, tls={"caSecret": {"name": "a"}, "caConfigMap": {"name": "b"}}),
        "tls: set caSecret or caConfigMap, not both",
    ),
    "a duration of nothing": (store(**TEXT, probeInterval="soon"), "spec.probeInterval"),
    "no requests a second": (
        store(**TEXT, limits={"requestsPerSecond": 0}),
        "spec.limits.requestsPerSecond: Invalid value: 0: spec.limits.requestsPerSecond in body should be greater",
    ),
    "no embedder": (model(normalize=True), NOT_ONE_EMBEDDER),
    "two embedders": (
        model(local={"model": "wordllama"}, openAI={"baseUrl": "http://x", "model": "m"}),
        NOT_ONE_EMBEDDER,
    ),
    "a local model that does not exist": (model(local={"model": "bert"}), 'supported values: "wordllama"'),
    "a price in words": (
        model(local={"model": "wordllama"}, price={"perMillionTokens": "cheap", "currency": "USD"}),
        "spec.price.perMillionTokens",
    ),
    "dimension 0": (
        index(dimension=0),
        (
            'The VectorIndex "x" is invalid: spec.dimension: Invalid value: 0: spec.dimension in body should be '
            "greater than or equal to 1"
        ),
    ),
    "dimension 70000": (
        index(dimension=70000),
        (
            'The VectorIndex "x" is invalid: spec.dimension: Invalid value: 70000: spec.dimension in body should be '
            "less than or equal to 65535"
        ),
    ),
    "neither dimension nor model": (
        index(dimension=None),
        "spec: set dimension, or embeddingModelRef to take the model's",
    ),
    "a metric that is none": (
        index(metric="manhattan"),
        'spec.metric: Unsupported value: "manhattan": supported values: "cosine", "dotproduct", "euclidean"',
    ),
    "deletion under observation": (
        index(managementPolicy="Observe", deletionPolicy="Delete"),
        (
            "spec: deletionPolicy Delete cannot go with managementPolicy Observe: an index that is only observed is "
            "never deleted"
        ),
    ),
    "a reserved field": (
        index(metadataFields=[{"name": "vw_source", "type": "keyword"}]),
        "spec.metadataFields: names that begin with vw_ are Vectorwright's own",
    ),
    "a field twice": (
        index(metadataFields=[{"name": "a", "type": "keyword"}, {"name": "a", "type": "integer"}]),
        "Duplicate value",
    ),
    "two tuning blocks": (
        index(tuning={"chroma": {"hnsw": {"efSearch": 10}}, "pgvector": {"hnsw": {"m": 16}}}),
        "spec.tuning: at most one block, that of the store's provider",
    ),
    "two kinds of index": (
        index(tuning={"pgvector": {"hnsw": {"m": 16}, "ivfflat": {"lists": 10}}}),
        "spec.tuning.pgvector: set hnsw or ivfflat, not both",
    ),
    "a store of another kind": (index(storeRef={"kind": "Secret", "name": "x"}), 'supported values: "VectorStore"'),
    "no source": (job({}), NOT_ONE_SOURCE),
    "two sources": (
        job({"http": {"urls": ["http://x"]}, "configMap": {"name": "c"}}),
        NOT_ONE_SOURCE,
    ),
    "a git transport that runs commands": (job({"git": {"url": "ext::sh -c id"}}), "spec.source.git.url"),
    "a local git path": (job({"git": {"url": "file:///etc"}}), "spec.source.git.url"),
    "a ref that is an option": (job({"git": {"url": "https://x/y", "ref": "--upload-pack=id"}}), "spec.source.git.ref"),
    "an inline source over 64 KiB": (
        job({"inline": {"documents": [{"id": str(n), "text": "x" * 8193} for n in range(8)]}}),
        (
            "spec.source.inline: documents hold more than 64 KiB: put them into a ConfigMap, a repository or behind an "
            "address"
        ),
    ),
    "an overlap of the size": (job(chunk={"size": 100, "overlap": 100}), "spec.chunk: overlap must be less than size"),
    "an overlap of the default size": (job(chunk={"overlap": 1500}), "spec.chunk: overlap must be less than size"),
    "an overlap of the default size in tokens": (
        job(chunk={"overlap": 400, "unit": "tokens"}),
        "spec.chunk: overlap must be less than size",
    ),
    "a percentage over 100": (job(sync={"maxDeletePercent": 101}), "spec.sync.maxDeletePercent"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_in_words(trial: Callable[..., str], name: str) -> None:
    body, words = REFUSED[name]
    assert words in trial(body)


# -- unknown fields --
def test_an_unknown_provider_is_named_by_strict_validation_and_refused_without_it(trial: Callable[..., str]) -> None:
    unknown = store(elsewhere={"index": "x"})
    assert 'unknown field "spec.elsewhere"' in trial(unknown)
    assert NOT_ONE_PROVIDER in trial(unknown, "--validate=false")


def test_an_unknown_field_deep_down_is_named(trial: Callable[..., str]) -> None:
    told = trial(job(chunk={"size": 100, "overlapp": 10}))
    assert 'unknown field "spec.chunk.overlapp"' in told


# -- what cannot change --
MOVE = "make a new VectorIndex and fill it, then delete this one"
FIXED_INDEX: dict[str, Any] = {"dimension": 8, "metric": "euclidean", "indexName": "other"}


@pytest.fixture
def change(devcluster: Cluster, namespace: str) -> Callable[[Body, Body], str]:
    """Store the first object and offer the second in its place; what the API server objects to, or an empty text."""

    def offer(first: Body, second: Body) -> str:
        devcluster.kubectl_run("create", "-n", namespace, "-f", "-", input=json.dumps(first))
        try:
            devcluster.kubectl_run("replace", "-n", namespace, "-f", "-", input=json.dumps(second))
        except KubectlError as error:
            return str(error)
        return ""

    return offer


@pytest.mark.parametrize("how", ["changed", "added", "removed"])
@pytest.mark.parametrize("field", FIXED_INDEX)
def test_a_fixed_field_of_an_index_is_not(change: Callable[[Body, Body], str], field: str, how: str) -> None:
    without = index(embeddingModelRef={"name": "m"}, dimension=None)
    with_it, other = copy.deepcopy(without), copy.deepcopy(without)
    with_it["spec"][field] = FIXED_INDEX[field]
    other["spec"][field] = {"dimension": 16, "metric": "cosine", "indexName": "another"}[field]
    first, second = {"changed": (with_it, other), "added": (without, with_it), "removed": (with_it, without)}[how]
    assert f"spec.{field} is immutable: {MOVE}" in change(first, second)


def test_the_store_of_an_index_is_fixed(change: Callable[[Body, Body], str]) -> None:
    assert f"spec.storeRef is immutable: {MOVE}" in change(index(), index(storeRef={"name": "other"}))


def test_to_write_out_the_kind_of_a_reference_is_no_change(change: Callable[[Body, Body], str]) -> None:
    assert change(index(), index(storeRef={"kind": "VectorStore", "name": "vectors"})) == ""


def test_to_write_out_the_kind_of_a_jobs_index_is_no_change(change: Callable[[Body, Body], str]) -> None:
    assert change(job(), job(indexRef={"kind": "VectorIndex", "name": "docs"})) == ""


def test_the_index_of_a_job_is_fixed(change: Callable[[Body, Body], str]) -> None:
    told = change(job(), job(indexRef={"name": "other"}))
    assert "spec.indexRef is immutable: make a new IngestionJob" in told


@pytest.mark.parametrize(("first", "second"), [("a", "b"), (None, "b"), ("a", None)])
def test_the_source_name_of_a_job_is_fixed(
    change: Callable[[Body, Body], str], first: str | None, second: str | None
) -> None:
    given: list[Body] = [{"sourceName": name} if name else {} for name in (first, second)]
    bodies = [job(**changes) for changes in given]
    assert "spec.sourceName is immutable: its documents would be left behind; make a new IngestionJob" in change(
        bodies[0], bodies[1]
    )


def test_the_rest_of_a_spec_changes(change: Callable[[Body, Body], str]) -> None:
    assert change(index(), index(updatePolicy="Costly", embeddingModelRef={"name": "m"}, onLost="Recreate")) == ""


# -- status, columns, names --
CONDITIONS = [
    {
        "type": "Ready", "status": "True", "reason": "Ready", "message": "3 vectors",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
    }
]  # fmt: skip


def patch_status(devcluster: Cluster, namespace: str, plural: str, status: Body) -> None:
    devcluster.kubectl_run(
        "patch",
        plural,
        "x",
        "-n",
        namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": status}),
    )


def test_status_is_a_subresource(devcluster: Cluster, namespace: str) -> None:
    body = index()
    body["status"] = {"vectors": 5}
    devcluster.kubectl_run("create", "-n", namespace, "-f", "-", input=json.dumps(body))
    made = json.loads(devcluster.kubectl_run("get", "vix", "x", "-n", namespace, "-o", "json"))
    assert "status" not in made
    patch_status(devcluster, namespace, "vix", {"vectors": 7})
    patch = json.dumps({"spec": {"updatePolicy": "Costly"}, "status": {"vectors": 9}})
    devcluster.kubectl_run("patch", "vix", "x", "-n", namespace, "--type=merge", "-p", patch)
    changed = json.loads(devcluster.kubectl_run("get", "vix", "x", "-n", namespace, "-o", "json"))
    assert changed["status"] == {"vectors": 7}
    assert (made["metadata"]["generation"], changed["metadata"]["generation"]) == (1, 2)


def test_a_condition_is_there_once(devcluster: Cluster, namespace: str) -> None:
    devcluster.kubectl_run("create", "-n", namespace, "-f", "-", input=json.dumps(index()))
    with pytest.raises(KubectlError, match="Duplicate value"):
        patch_status(devcluster, namespace, "vix", {"conditions": CONDITIONS * 2})
    with pytest.raises(KubectlError, match=r"conditions.*status.*Unsupported value"):
        patch_status(devcluster, namespace, "vix", {"conditions": [{**CONDITIONS[0], "status": "Maybe"}]})
    patch_status(devcluster, namespace, "vix", {"conditions": CONDITIONS})


COLUMNS = {
    "vst": ["NAME", "READY", "REASON", "PROVIDER", "VERSION", "INDEXES", "THROTTLED", "AGE"],
    "vem": ["NAME", "READY", "REASON", "MODEL", "DIM", "AGE"],
    "vix": ["NAME", "READY", "REASON", "STORE", "MODEL", "DIM", "VECTORS", "FRESH", "DRIFT", "AGE"],
    "vij": ["NAME", "PHASE", "INDEX", "DONE", "FAILED", "RATE", "ETA", "LASTSUCCESS", "AGE"],
}
WIDE = {"vst": ["ENDPOINT"], "vem": [], "vix": ["METRIC", "INDEX", "MESSAGE"], "vij": ["TOKENS", "NEXTRUN"]}


def header(text: str) -> list[str]:
    return text.splitlines()[0].split()


def test_columns_are_those_that_the_conventions_name(devcluster: Cluster, namespace: str) -> None:
    for body in (store(), model(), index(), job()):
        devcluster.kubectl_run("create", "-n", namespace, "-f", "-", input=json.dumps(body))
    for short, columns in COLUMNS.items():
        assert header(devcluster.kubectl_run("get", short, "-n", namespace)) == columns
        wide = header(devcluster.kubectl_run("get", short, "-n", namespace, "-o", "wide"))
        assert sorted(wide) == sorted(columns + WIDE[short])
        assert wide[-1] == "AGE"


def test_columns_show_what_the_status_says(devcluster: Cluster, namespace: str) -> None:
    devcluster.kubectl_run("create", "-n", namespace, "-f", "-", input=json.dumps(index()))
    patch_status(
        devcluster,
        namespace,
        "vix",
        {"conditions": CONDITIONS, "vectors": 12345, "dimension": 4, "driftedFields": 2, "metric": "cosine"},
    )
    row = devcluster.kubectl_run("get", "vix", "-n", namespace).splitlines()[1].split()
    assert row[:7] == ["x", "True", "Ready", "vectors", "4", "12345", "2"]


def test_the_category_lists_every_kind(devcluster: Cluster, namespace: str) -> None:
    for body in (store(), model(), index(), job()):
        devcluster.kubectl_run("create", "-n", namespace, "-f", "-", input=json.dumps(body))
    listed = devcluster.kubectl_run("get", "vectorwright", "-n", namespace, "-o", "name").split()
    assert listed == [
        "embeddingmodel.vectorwright.dev/x",
        "ingestionjob.vectorwright.dev/x",
        "vectorindex.vectorwright.dev/x",
        "vectorstore.vectorwright.dev/x",
    ]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("vst", "How to reach one vector store."),
        ("vst.spec.pgvector.sslMode", "`verify-full` when left out"),
        ("vst.spec.tls.caSecret.key", "which one is used when this is left out"),
        ("vem.spec.openAI.batchSize", "64 when left out"),
        ("vix.spec.tuning.chroma.hnsw.efSearch", "Changed in place (Safe)"),
        ("vix.spec.metadataFields.name", "Names that begin with `vw_` are Vectorwright's own"),
        ("vix.status.drift.class", "Immutable where only a new index can have it"),
        ("vix.status.conditions.lastTransitionTime", "When the status last changed"),
        ("vij.spec.source.git.include", "Globs of paths to take"),
        ("vij.spec.runner.resources.limits", "memory: 2Gi"),
        ("vij.spec.schedule.startingDeadline", "of several only the last does"),
        ("vij.status.lastRuns.phase", "How it ended"),
    ],
)
def test_kubectl_explain_is_the_reference(devcluster: Cluster, path: str, words: str) -> None:
    told = " ".join(devcluster.kubectl_run("explain", path).split())
    assert words in told


def test_the_rules_stay_within_the_budget_that_the_api_server_gives_them(devcluster: Cluster) -> None:
    """Applying them anew is when it checks: a rule over an unbounded list is refused."""
    names = ("vectorstores", "embeddingmodels", "vectorindexes", "ingestionjobs")
    for name in names:
        body = json.loads(devcluster.kubectl_run("get", "crd", f"{name}.vectorwright.dev", "-o", "json"))
        conditions = {item["type"]: item["status"] for item in body["status"]["conditions"]}
        assert conditions["Established"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"
        assert conditions["NamesAccepted"] == "True"
