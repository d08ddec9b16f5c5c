"""The parts of the Qdrant store that decide without a server.

- floats: which ones any reader of decimal text gives back, and which ones a filter must look out for
- metadata and text survive the payload exactly, whatever they are called; what another program wrote is read, too
- upserts packed by hand are what protobuf writes
- ids and names of every kind
- filters: one bound a side, integers in fields of integers, no more than the server reads
- settings: what belongs together, what is sent, and what is read back
- the address and the credentials
- the SDK is not imported for its messages, and they are the SDK's own
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import grpc

from vectorwright.errors import BatchRejected, Terminal
from vectorwright.stores.base import Metadata, Setting
from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from vectorwright.stores.qdrant import settings as tuning
from vectorwright.stores.qdrant.collection import Collection
from vectorwright.stores.qdrant.filters import MAX_CONDITIONS, MAX_DEPTH, translate
from vectorwright.stores.qdrant.floats import as_stored, confused, integers_that_round_to, is_kept
from vectorwright.stores.qdrant.names import ID_PATTERN, key_of, name_of, number_of, path_of
from vectorwright.stores.qdrant.packing import pack_upsert
from vectorwright.stores.qdrant.payload import decode, encode
from vectorwright.stores.qdrant.store import open_store
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings

finite = st.floats(allow_nan=False, allow_infinity=False)
UUID = "6f1b1e0c-3a52-4c3e-9a54-0e8f5d5a7c11"


@given(finite)
def test_a_float_that_is_kept_comes_back(value: float) -> None:
    if is_kept(value):
        assert as_stored(value) == value
    assert math.copysign(1, as_stored(value)) == math.copysign(1, value)


@pytest.mark.parametrize("value", [0.0, -0.0, 0.5, 3.14, 1 / 3, 1e-9, 1e12, 1234567.875, -0.1])
def test_ordinary_floats_are_kept(value: float) -> None:
    assert is_kept(value)


def test_floats_that_the_server_reads_as_their_neighbours() -> None:
    assert as_stored(6.097556996584416e267) == 6.097556996584417e267
    assert as_stored(9007199254740991.0) == 9007199254740990.0
    assert 9007199254740991.0 in confused(9007199254740990.0)
    assert all(as_stored(value) != value for value in confused(1e300))
    assert confused(0.5) == ()


def test_integers_that_are_one_float() -> None:
    assert integers_that_round_to(2.0**53) == [2**53, 2**53 + 1]
    assert integers_that_round_to(-(2.0**53)) == [-(2**53) - 1, -(2**53)]
    assert all(float(number) == 2.0**62 for number in integers_that_round_to(2.0**62))
    assert len(integers_that_round_to(2.0**62)) == 769
    assert integers_that_round_to(2.0**63)[-1] == 2**63 - 1
    assert integers_that_round_to(1e300) == integers_that_round_to(-1e23) == []


names = st.one_of(
    st.text(min_size=1, max_size=20), st.sampled_from(["vw_text", "vw_exact", "vw_n", 'a"b', "a=b", "%22"])
)
encodable = names.filter(lambda name: name.isascii() or not re.search("[\ud800-\udfff]", name))
values = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    finite,
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=3),
)


@given(st.dictionaries(encodable, values, max_size=6), st.one_of(st.none(), st.just(""), st.just("text")))
def test_metadata_and_text_survive_the_payload(metadata: Metadata, text: str | None) -> None:
    integers = [name for name, value in metadata.items() if isinstance(value, float) and value.is_integer()]
    held = [name for name in integers if abs(metadata[name]) < 2**63]  # type: ignore[arg-type]
    payload = encode(metadata, text, held[:1], "record 1")
    server = {key: as_stored(value) if isinstance(value, float) else value for key, value in payload.items()}
    restored, told = decode(server)
    assert restored == metadata
    assert {name: type(value) for name, value in restored.items()} == {
        name: type(value) for name, value in metadata.items()
    }
    assert told == text


def test_a_fraction_in_a_field_of_integers_is_refused_by_its_record() -> None:
    with pytest.raises(BatchRejected) as refused:
        encode({"whole": 1.5}, None, {"whole"}, "index docs, record 'x'")
    assert "record 'x'" in refused.value.message
    assert "'whole'" in refused.value.message
    assert encode({"whole": 3.0}, None, {"whole"}, "")["whole"] == 3


def test_what_another_program_wrote_is_read() -> None:
    payload = {"a": None, "nested": {"b": [1]}, "vw_exact": "no list", "n": 1.5, "vw_text": 7}
    assert decode(payload) == ({"nested": {"b": [1]}, "n": 1.5}, None)
    assert decode({"x": 2.0, "vw_exact": ["x=no number", "gone=1.5"]}) == ({"x": 2.0}, None)


@pytest.mark.parametrize("name", ["a", "a b", "a.b", 'a"b', "a\\b", "vw_own", "vw_name:x", "ключ", "[]", "a=b", "%41"])
def test_names_come_back_and_make_a_path(name: str) -> None:
    assert name_of(key_of(name)) == name
    path = path_of(key_of(name))
    assert re.fullmatch(r'[A-Za-z0-9_-]+|"[^"\\]*"', path)


@pytest.mark.parametrize(
    ("record_id", "number"), [(UUID, None), ("0", 0), ("7", 7), (str(2**64 - 1), 2**64 - 1), (str(10**19), 10**19)]
)
def test_ids_of_points(record_id: str, number: int | None) -> None:
    assert number_of(record_id) == number
    assert re.fullmatch(ID_PATTERN, record_id)


@pytest.mark.parametrize("record_id", ["", "07", "-1", str(2**64), UUID.upper(), UUID.replace("-", ""), "docs/a", "٣"])
def test_what_is_no_id_of_a_point(record_id: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        number_of(record_id)
    assert not re.fullmatch(ID_PATTERN, record_id)


@given(
    st.dictionaries(encodable, values, max_size=5),
    st.sampled_from([UUID, "0", str(2**64 - 1)]),
    st.integers(1, 70),
    st.sampled_from([None, "dense", "größe"]),
)
def test_an_upsert_packed_by_hand_is_what_protobuf_writes(
    payload: Metadata, record_id: str, dimension: int, vector_name: str | None
) -> None:
    rows = np.random.default_rng(1).standard_normal((2, dimension)).astype(np.float32)
    ids = [record_id, "12"]
    packed = pack_upsert("docs", ids, rows, [payload, {}], vector_name=vector_name, timeout=300)
    read = grpc.UpsertPoints.FromString(packed)
    assert (read.collection_name, read.wait, read.timeout, len(read.points)) == ("docs", True, 300, 2)
    point = read.points[0]
    assert (point.id.uuid or str(point.id.num)) == record_id
    vectors = point.vectors
    vector = vectors.vector if vector_name is None else vectors.vectors.vectors[vector_name]
    np.testing.assert_array_equal(np.array(vector.dense.data, np.float32), rows[0])
    assert set(point.payload) == set(payload)
    for name, value in payload.items():
        kind = point.payload[name].WhichOneof("kind")
        if isinstance(value, list):
            assert [item.string_value for item in point.payload[name].list_value.values] == value
        else:
            assert getattr(point.payload[name], str(kind)) == value
            assert type(getattr(point.payload[name], str(kind))) is type(value)
    # Nothing is said that protobuf would not say.
    assert grpc.UpsertPoints.FromString(read.SerializeToString()) == read
    assert not read.points[1].payload


TYPES = {"whole": "integer", "real": "float", "when": "datetime"}


def test_a_range_has_one_bound_a_side() -> None:
    where = translate(Range("real", gt=1, gte=1, lt=7, lte=6), {})
    assert isinstance(where, grpc.Filter)
    (only,) = where.must
    assert {field.name: value for field, value in only.field.range.ListFields()} == {"gt": 1.0, "lte": 6.0}


def test_bounds_of_integers_are_integers() -> None:
    where = translate(Range("whole", gt=0.5, lt=3), TYPES)
    assert isinstance(where, grpc.Filter)
    bounds = where.must[0].field.range
    assert (bounds.gte, bounds.lte) == (1.0, 2.0)
    assert not bounds.HasField("gt")


def test_a_uuid_is_no_number_to_an_index_of_integers() -> None:
    where = translate(Eq("whole", UUID), TYPES)
    assert isinstance(where, grpc.Filter)
    assert where.must[0].field.match.WhichOneof("match_value") == "keywords"


@pytest.mark.parametrize(
    ("where", "constant"),
    [
        (And(()), True),
        (Or(()), False),
        (Not(Or(())), True),
        (In("word", ()), False),
        (Eq("whole", 1.5), False),
        (Eq("real", math.nan), False),
        (Eq("", 1), False),
        (Exists("\ud800"), False),
        (Range("any", gt=1, lt="b"), False),
        (Not(Range("any", gt=1, lt="b")), True),
    ],
)
def test_what_is_decided_without_asking(where: Filter, constant: bool) -> None:
    assert translate(where, TYPES) is constant


@pytest.mark.parametrize(
    "where",
    [
        Range("word", gt="a"),
        Range("when", gt="2024-05-01"),
        Range("when", gt="2024-13-01T00:00:00Z"),
        Range("real", gt=2**53),
        Range("real", lt=math.inf),
        Range("real"),
        And((Or(()), Range("word", gt="a"))),
        In("real", tuple(number + 0.5 for number in range(MAX_CONDITIONS + 1))),
    ],
)
def test_what_cannot_be_said_is_refused(where: Filter) -> None:
    with pytest.raises(Terminal) as refused:
        translate(where, TYPES)
    assert refused.value.reason == "UnsupportedFilter"


def test_depth_is_bounded_by_what_the_server_reads() -> None:
    where: Filter = Eq("word", "a")
    for level in range(MAX_DEPTH // 2 - 1):
        where = And((Not(Or((where, Eq("word", str(level))))), Exists("word")))
    found = translate(where, {})
    assert isinstance(found, grpc.Filter)
    for deeper in (MAX_DEPTH, 1_000):
        for level in range(deeper):
            where = And((Not(Or((where, Eq("word", str(level))))), Exists("word")))
        with pytest.raises(Terminal):
            translate(where, {})
    assert translate(Not(Not(And((And((Eq("word", "a"),)), And(()))))), {}) == translate(Eq("word", "a"), {})


def as_made(settings: dict[str, Setting]) -> Collection:
    """The collection that a server would tell after it was made so."""
    made = tuning.creation(settings, 8, "Cosine")
    config = grpc.CollectionConfig(hnsw_config=made.hnsw_config, optimizer_config=made.optimizers_config)
    config.params.vectors_config.CopyFrom(made.vectors_config)
    config.params.shard_number = made.shard_number or 1
    for name in ("replication_factor", "write_consistency_factor", "on_disk_payload"):
        if made.HasField(name):
            setattr(config.params, name, getattr(made, name))
    if made.HasField("quantization_config"):
        config.quantization_config.CopyFrom(made.quantization_config)
    return Collection("docs", grpc.CollectionInfo(config=config))


@pytest.mark.parametrize(
    "settings",
    [
        {"shard_number": 2, "replication_factor": 3, "write_consistency_factor": 2, "on_disk_payload": True},
        {"hnsw.m": 32, "hnsw.ef_construct": 200, "hnsw.payload_m": 16, "hnsw.on_disk": True, "on_disk": True},
        {"quantization.type": "scalar", "quantization.quantile": 0.99, "quantization.always_ram": True},
        {"quantization.type": "product", "quantization.compression": "x32"},
        {"quantization.type": "binary", "quantization.always_ram": False},
        {"quantization.type": "none"},
        {"optimizers.indexing_threshold": 0, "optimizers.deleted_threshold": 0.3, "optimizers.memmap_threshold": 5},
    ],
)
def test_settings_are_sent_and_read_back(settings: dict[str, Setting]) -> None:
    assert as_made(settings).settings().items() >= settings.items()


def test_nothing_is_said_of_what_is_not_set() -> None:
    made = tuning.creation({}, 8, "Dot")
    assert {field.name for field, _ in made.ListFields()} == {"vectors_config"}
    assert {field.name for field, _ in made.vectors_config.params.ListFields()} == {"size", "distance"}


@pytest.mark.parametrize(
    "settings",
    [
        {"quantization.type": "int4"},
        {"quantization.quantile": 0.9},
        {"quantization.type": "binary", "quantization.quantile": 0.9},
        {"quantization.type": "product", "quantization.compression": "x3"},
        {"hnsw.m": -1},
        {"hnsw.m": "many"},
        {"shard_number": 2**40},
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Setting]) -> None:
    with pytest.raises(Terminal) as refused:
        tuning.creation(settings, 8, "Dot")
    assert refused.value.reason == "InvalidTuning"


def test_a_change_keeps_the_rest_of_the_quantization_of_its_kind() -> None:
    present: dict[str, Setting] = {"quantization.type": "scalar", "quantization.always_ram": True}
    changed = tuning.change({"quantization.quantile": 0.95}, present, grpc.VectorParams(), None)
    assert changed.quantization_config.scalar.always_ram
    assert changed.quantization_config.scalar.quantile == pytest.approx(0.95)
    other = tuning.change({"quantization.type": "binary"}, present, grpc.VectorParams(), None)
    assert not other.quantization_config.binary.HasField("always_ram")
    none = tuning.change({"quantization.type": "none"}, present, grpc.VectorParams(), None)
    assert none.quantization_config.HasField("disabled")


def test_what_a_vector_has_of_its_own_is_changed_there() -> None:
    vector = grpc.VectorParams(size=8, distance=grpc.Distance.Dot, hnsw_config=grpc.HnswConfigDiff(m=4))
    changed = tuning.change({"hnsw.m": 8, "on_disk": True}, {}, vector, "dense")
    diff = changed.vectors_config.params_map.map["dense"]
    assert (changed.hnsw_config.m, diff.hnsw_config.m, diff.on_disk) == (8, 8, True)


CONNECTION = Connection("qdrant", {"url": "http://qdrant.example:6333"}, credentials=StoreCredentials(token="k"))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"credentials": StoreCredentials(token="a\nb")}, "InvalidCredentials"),
        ({"credentials": StoreCredentials(token="schlüssel")}, "InvalidCredentials"),
        ({"credentials": StoreCredentials(username="me", password="p")}, "InvalidCredentials"),
        ({"settings": {"url": "https://qdrant.example"}, "tls": TlsSettings(ca="nothing")}, "InvalidCA"),
    ],
)
def test_what_cannot_be_sent_is_refused_when_the_store_is_opened(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(Terminal) as refused:
        open_store(replace(CONNECTION, **wrong))  # type: ignore[arg-type]
    assert refused.value.reason == reason


@pytest.mark.parametrize("first", ["vectorwright.stores.qdrant.store", "qdrant_client"])
def test_messages_are_those_of_the_sdk_without_the_sdk(first: str) -> None:
    program = f"""
import importlib, sys
importlib.import_module({first!r})
from vectorwright.stores.qdrant.messages import grpc
print("qdrant_client" in sys.modules)
import qdrant_client.grpc
print(qdrant_client.grpc.PointStruct is grpc.PointStruct)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(first == "qdrant_client"), "True"], done.stderr
