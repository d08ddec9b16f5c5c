"""Parsers of tables: JSON lines and CSV.

- one document a record; broken ones are rejected by line, others go on
- ids keep their type in their written form; vectors are checked where they are read
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.parsing import documents, parse, rejected, texts

from vectorwright.ingest.contracts import Entry, Rejected
from vectorwright.ingest.parsers.records import written_id


class TestJsonLines:
    def test_one_document_a_record(self) -> None:
        data = '{"text": "one", "tag": "x", "n": 1, "ok": true, "no": null, "l": ["a", 1]}\n\n{"text": "two"}\n'
        entry = Entry("d.jsonl", token="blob", metadata={"path": "d.jsonl", "tag": "source"})
        first, second = documents(parse(data, entry=entry, metadataFields=["tag", "n", "ok", "no", "l"]))
        assert first.key == "d.jsonl#1"
        assert first.record_id is None
        assert first.metadata == {"path": "d.jsonl", "tag": "x", "n": 1, "ok": True, "l": ["a", "1"]}
        assert [chunk.text for chunk in first.chunks] == ["one"]
        assert second.key == "d.jsonl#3"
        assert second.metadata == {"path": "d.jsonl", "tag": "source"}

    def test_broken_lines_are_rejected_and_the_others_go_on(self) -> None:
        data = b'{"text": "one"}\n{broken\n[1]\n\xff\n{"text": "two"}\n{"other": 1}\n{"text": "last"}'
        found = parse(data, "d.jsonl")
        assert texts(found) == ["one", "two", "last"]
        assert [(item.key, item.reason) for item in rejected(found)] == [
            ("d.jsonl#2", "BadRecord"),
            ("d.jsonl#3", "BadRecord"),
            ("d.jsonl#4", "BadRecord"),
            ("d.jsonl#6", "MissingField"),
        ]
        assert rejected(found)[0].message.startswith("line 2 is not JSON")

    def test_ids_keep_their_type(self) -> None:
        ids = ["7", '"7"', '"x/1"', '"\\"7\\""']
        data = "".join(f'{{"id": {value}, "text": "a"}}\n' for value in ids)
        found = documents(parse(data, "d.jsonl", idField="id"))
        assert [item.record_id for item in found] == ["7", '"7"', "x/1", '"\\"7\\""']
        assert [item.key for item in found] == ["d.jsonl#7", 'd.jsonl#"7"', "d.jsonl#x/1", 'd.jsonl#"\\"7\\""']

    @given(st.lists(st.one_of(st.integers(), st.text(min_size=1).filter(str.strip)), unique_by=lambda v: (type(v), v)))
    def test_two_different_ids_are_never_written_alike(self, ids: list[int | str]) -> None:
        written = [written_id(value, typed=True) for value in ids]
        assert len(set(written)) == len(ids)

    @pytest.mark.parametrize("value", ["null", "true", "1.5", "[1]", '""', '" "', "123456789012345678901234567890"])
    def test_what_is_no_id_is_rejected_by_line(self, value: str) -> None:
        found = parse(f'{{"id": {value}, "text": "a"}}\n{{"text": "b"}}', "d.jsonl", idField="id")
        assert [item.key for item in rejected(found)] == ["d.jsonl#line:1", "d.jsonl#line:2"]
        assert {item.reason for item in rejected(found)} <= {"BadId", "MissingId"}

    def test_of_two_records_with_one_id_the_first_is_kept(self) -> None:
        data = '{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n{"id": 2, "text": "c"}'
        found = parse(data, "d.jsonl", idField="id")
        assert texts(found) == ["a", "c"]
        assert rejected(found) == [
            Rejected("d.jsonl#1", "DuplicateId", "line 2: its id was used on line 1 already; the first is kept")
        ]

    def test_several_text_fields_are_joined(self) -> None:
        data = '{"title": "T", "body": "B", "tags": ["x", "y"], "n": 3, "o": {"b": 1, "a": 2}, "z": null}'
        found = parse(data, "d.jsonl", textFields=["title", "body", "tags", "n", "o", "z", "absent"])
        assert texts(found) == ['T\nB\nx\ny\n3\n{"b":1,"a":2}']

    def test_the_content_hash_is_of_the_fields_that_are_used(self) -> None:
        def content_hash(line: str, **settings: Any) -> str:
            return documents(parse(line, "d.jsonl", metadataFields=["m"], **settings))[0].content_hash

        assert content_hash('{"text": "a", "m": 1, "unused": 1}') == content_hash('{"m": 1, "text": "a"}')
        assert content_hash('{"text": "a", "m": 1}') != content_hash('{"text": "a", "m": 2}')
        assert content_hash('{"text": "a", "m": 1}') != content_hash('{"text": "b", "m": 1}')

    def test_a_record_may_bring_its_vector_and_no_text(self) -> None:
        data = '{"id": "a", "v": [1, 0.5, -2e-3]}'
        (found,) = documents(parse(data, "d.jsonl", idField="id", vector="v"))
        assert list(found.vector or ()) == [1.0, 0.5, -0.002]
        assert len(found.chunks) == 1

    def test_a_vector_keeps_a_long_text_in_one_chunk(self) -> None:
        (found,) = documents(parse('{"text": "%s", "v": [1]}' % ("word " * 5000), "d.jsonl", vector="v"))
        assert len(found.chunks) == 1

    @pytest.mark.parametrize(
        ("vector", "said"),
        [
            ("[0.1, NaN]", "NaN at position 1"),
            ("[Infinity, 1]", "infinity or a number too large for float32 at position 0"),
            ("[-Infinity]", "infinity"),
            ("[1e39]", "too large for float32"),
            ("[]", "empty list"),
            ('"text"', "not a list of numbers"),
            ("null", "null"),
            ("3", "a number"),
            ('[1, "2"]', "text at position 1"),
            ("[true]", "a boolean at position 0"),
            ("[[1]]", "a list at position 0"),
        ],
    )
    def test_a_bad_vector_is_rejected_with_its_fault(self, vector: str, said: str) -> None:
        found = parse(f'{{"text": "a", "v": {vector}}}\n{{"text": "b", "v": [1]}}', "d.jsonl", vector="v")
        (bad,) = rejected(found)
        assert bad.key == "d.jsonl#1"
        assert bad.reason == "BadVector"
        assert said in bad.message
        assert len(documents(found)) == 1

    def test_a_missing_vector_is_rejected(self) -> None:
        (bad,) = rejected(parse('{"text": "a"}', "d.jsonl", vector="v"))
        assert (bad.reason, bad.message) == ("BadVector", "line 1: field 'v' is missing, not a list of numbers")

    @pytest.mark.parametrize(
        "line",
        [
            '{"v": [NaN], "x": "\\ud800"}',
            '{"v": [NaN], "x": ' + "9" * 100 + "}",
            '{"v": NaN' + '[{"a":' * 100_000,
            '{"a":' * 100_000,
        ],
    )
    def test_hostile_lines_are_rejected(self, line: str) -> None:
        found = parse(f'{line}\n{{"text": "b", "v": [1]}}', "d.jsonl", vector="v")
        assert len(rejected(found)) == 1
        assert len(documents(found)) == 1

    def test_not_a_number_outside_of_the_vector_does_no_harm(self) -> None:
        data = '{"text": "a", "score": NaN, "v": [1]}'
        (found,) = documents(parse(data, "d.jsonl", vector="v", metadataFields=["score"]))
        assert math.isfinite(sum(found.vector or ()))
        assert found.metadata == {}


class TestCsv:
    def test_one_document_a_row(self) -> None:
        data = '\ufeffid,text,tag\r\n7,"one, ""quoted""\nline",x\r\n\r\n8,two,\r\n'
        first, second = documents(parse(data, "t.csv", idField="id", metadataFields=["tag"]))
        assert (first.key, first.record_id) == ("t.csv#7", "7")
        assert first.chunks[0].text == 'one, "quoted"\nline'
        assert first.metadata == {"tag": "x"}
        assert second.metadata == {"tag": ""}

    def test_without_an_id_the_row_is_counted(self) -> None:
        found = documents(parse("text\na\n\nb\n", "t.csv"))
        assert [item.key for item in found] == ["t.csv#1", "t.csv#2"]

    @pytest.mark.parametrize("delimiter", [";", "\t", "|"])
    def test_the_wanted_fields_tell_the_delimiter(self, delimiter: str) -> None:
        data = f"id{delimiter}text\n1{delimiter}a, b\n"
        assert texts(parse(data, "t.csv", idField="id")) == ["a, b"]

    def test_broken_rows_are_rejected_by_line(self) -> None:
        found = parse('text,n\na,1\nb\n"x"y,2\nc,3\n"open,4\n', "t.csv")
        assert texts(found) == ["a", "c"]
        assert [(item.key, item.reason) for item in rejected(found)] == [
            ("t.csv#2", "BadRecord"),
            ("t.csv#3", "BadRecord"),
            ("t.csv#5", "BadRecord"),
        ]
        assert "line 3 has 1 fields where the header has 2" in rejected(found)[0].message

    def test_a_header_without_the_fields_rejects_the_document_once(self) -> None:
        (found,) = parse("id,body\n1,a\n2,b\n", "t.csv")
        assert found == Rejected("t.csv", "MissingField", "t.csv: its header has no field 'text'; it has 'id', 'body'")

    def test_a_header_may_not_name_a_field_twice(self) -> None:
        (found,) = parse("text,text\n1,a\n", "t.csv")
        assert isinstance(found, Rejected)
        assert found.reason == "BadHeader"

    def test_a_vector_in_a_cell(self) -> None:
        (found,) = documents(parse('text,v\na,"[1, 2.5]"\n', "t.csv", vector="v"))
        assert list(found.vector or ()) == [1.0, 2.5]

    def test_an_empty_table_is_no_document(self) -> None:
        assert parse("text\n", "t.csv") == []
        (found,) = parse("", "t.csv")
        assert isinstance(found, Rejected)
        assert found.reason == "MissingField"
