"""Parsers: from bytes to documents.

- the parser is picked by content type, then extension, then plain text; the job's choice wins
- encodings: byte order marks, declared charsets, UTF-8, Windows-1252; binary content is rejected
- HTML gives its main text, title and headings, and no scripts; hostile nesting is survived
- JSON lines and CSV give one document a record; broken ones are rejected by line, others go on
- ids keep their type in their written form; vectors are checked where they are read
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorwright.api.v1alpha1.ingestionjob import Chunk as ChunkSettings
from vectorwright.api.v1alpha1.ingestionjob import Parse
from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.contracts import Document, Entry, Fetched, Rejected
from vectorwright.ingest.parsers.decode import decode, known_charset
from vectorwright.ingest.parsers.documents import parse_bytes, pick_parser
from vectorwright.ingest.parsers.html_text import parse_html
from vectorwright.ingest.parsers.markdown import headings, parse_markdown
from vectorwright.ingest.parsers.records import written_id


def parse(
    data: bytes | str,
    key: str = "a.txt",
    *,
    media_type: str | None = None,
    vector: str | None = None,
    entry: Entry | None = None,
    **settings: Any,
) -> list[Document | Rejected]:
    raw = data.encode() if isinstance(data, str) else data
    entry = entry or Entry(key, media_type=media_type)
    return parse_bytes(Fetched(entry, data=raw), Parse.model_validate(settings), ChunkSettings(), vector)


def documents(found: list[Document | Rejected]) -> list[Document]:
    return [item for item in found if isinstance(item, Document)]


def rejected(found: list[Document | Rejected]) -> list[Rejected]:
    return [item for item in found if isinstance(item, Rejected)]


def texts(found: list[Document | Rejected]) -> list[str]:
    return ["\n".join(chunk.text for chunk in item.chunks) for item in documents(found)]


class TestPicking:
    @pytest.mark.parametrize(
        ("key", "media_type", "expected"),
        [
            ("docs/a.md", None, "markdown"),
            ("docs/A.MARKDOWN", None, "markdown"),
            ("index.html", None, "html"),
            ("data.jsonl", None, "jsonLines"),
            ("data.ndjson", None, "jsonLines"),
            ("table.csv", None, "csv"),
            ("table.tsv", None, "csv"),
            ("src/main.go", None, "code"),
            ("config.yaml", None, "code"),
            ("Makefile", None, "code"),
            ("Dockerfile", None, "code"),
            ("README", None, "text"),
            ("notes.rst", None, "text"),
            ("noextension", None, "text"),
            ("https://x.example/page", "text/html; charset=utf-8", "html"),
            ("https://x.example/raw/README.md", "text/plain", "markdown"),
            ("https://x.example/raw/README.md?ref=a.html#b", "text/plain", "markdown"),
            ("https://x.example/data", "application/x-ndjson", "jsonLines"),
            ("https://x.example/file.bin", "application/octet-stream", "text"),
            ("https://x.example.md/", None, "text"),
        ],
    )
    def test_auto(self, key: str, media_type: str | None, expected: str) -> None:
        assert pick_parser(Entry(key, media_type=media_type)) == expected

    def test_the_jobs_choice_wins(self) -> None:
        assert texts(parse("<p>a</p>", "a.html", type="text")) == ["<p>a</p>"]
        assert texts(parse("<p>a</p>", "a.txt", type="html")) == ["a"]
        assert texts(parse("# a", "a.md", type="auto")) == ["# a"]


class TestDecoding:
    @pytest.mark.parametrize(
        ("data", "declared", "expected"),
        [
            ("né".encode(), None, "né"),
            (b"\xef\xbb\xbfn\xc3\xa9", None, "né"),
            ("né".encode("utf-16"), None, "né"),
            ("né".encode("utf-32"), None, "né"),
            (b"\xfe\xff\x00n\x00\xe9", None, "né"),
            (b"n\xe9 \x93x\x94", None, "né “x”"),
            (b"n\xe9", "iso-8859-1", "né"),
            ("日本".encode("shift_jis"), "Shift_JIS", "日本"),
            ("né".encode(), '"utf-8"', "né"),
            ("né".encode(), "no-such-encoding", "né"),
            (b"n\xe9", "unicode_escape", "né"),
            (b"a\x81b", None, "a\ufffdb"),
        ],
    )
    def test_encodings(self, data: bytes, declared: str | None, expected: str) -> None:
        assert decode(data, declared) == expected

    @pytest.mark.parametrize("name", ["hex", "rot13", "zip", "idna", "punycode", "unicode_escape", "undefined", "\0"])
    def test_what_is_no_encoding_of_text_is_not_used(self, name: str) -> None:
        assert known_charset(name) is None

    @pytest.mark.parametrize("data", [b"\x7fELF\x02\x01\x00", b"text then \x00", b"%PDF-1.7\n..."])
    def test_binary_content_is_rejected(self, data: bytes) -> None:
        (found,) = parse(data, "src/a.py")
        assert isinstance(found, Rejected)
        assert found.reason == "BinaryContent"
        assert found.key == "src/a.py"

    def test_an_html_page_declares_its_encoding(self) -> None:
        page = '<html><head><meta charset="iso-8859-1"></head><body>né'.encode("latin-1")
        assert texts(parse(page, "a.html")) == ["né"]

    @given(st.binary(max_size=200))
    def test_any_bytes_give_text_or_a_reason(self, data: bytes) -> None:
        for key in ("a.txt", "a.html", "a.md", "a.jsonl", "a.csv"):
            for item in parse(data, key):
                assert isinstance(item, Document) or item.reason


class TestSingleDocuments:
    def test_metadata_of_the_source_wins_over_the_documents(self) -> None:
        entry = Entry("a.md", metadata={"path": "a.md", "title": "given"})
        (found,) = documents(parse("# Own", entry=entry))
        assert found.metadata == {"path": "a.md", "title": "given"}

    def test_the_content_hash_is_the_token_or_the_hash_of_the_bytes(self) -> None:
        (tokened,) = documents(parse("x", entry=Entry("a", token="blob")))
        (hashed,) = documents(parse("x", entry=Entry("a")))
        assert tokened.content_hash == "blob"
        assert hashed.content_hash == hashlib.sha256(b"x").hexdigest()

    def test_a_document_without_text_has_no_chunks(self) -> None:
        (found,) = documents(parse(" \n\t\n"))
        assert found.chunks == ()

    def test_a_document_over_the_limit_is_rejected(self) -> None:
        (found,) = parse("x" * 11, maxDocumentBytes=10)
        assert found == Rejected(
            "a.txt",
            "DocumentTooLarge",
            "a.txt has 11 bytes, more than the 10 bytes that a document may have: raise spec.parse.maxDocumentBytes, "
            "or leave it out of the source",
        )

    def test_ten_megabytes_are_over_the_default_limit(self) -> None:
        (found,) = parse(b"x" * 10_000_000)
        assert isinstance(found, Rejected)
        assert found.reason == "DocumentTooLarge"

    def test_a_failed_fetch_keeps_its_reason(self) -> None:
        error = Retryable("server is down", reason="Unavailable")
        (found,) = parse_bytes(Fetched(Entry("a"), error=error), Parse(), ChunkSettings())
        assert found == Rejected("a", "Unavailable", "server is down")

    def test_precomputed_vectors_need_a_table(self) -> None:
        (found,) = parse("# a", "a.md", vector="v")
        assert isinstance(found, Rejected)
        assert found.reason == "BadVector"


class TestMarkdown:
    def test_headings_are_found_and_code_is_not_mistaken_for_them(self) -> None:
        text = (
            "---\ntitle: x\n# no\n---\n# One #\n```sh\n# comment\n```\nTwo\n===\n\n## [Three](x.md) `code`\n\n"
            "~~~\n# no\n```\n# no\n~~~\n    # no\n#no\nSub\n---\n\n---\n- item\n---\n"
        )
        found = [(heading.level, heading.title) for heading in headings(text)]
        assert found == [(1, "One"), (1, "Two"), (2, "Three code"), (2, "Sub")]
        for heading in headings(text):
            assert heading.offset == 0 or text[heading.offset - 1] == "\n"

    def test_windows_line_ends(self) -> None:
        found = headings("# One\r\ntext\r\n\r\nTwo\r\n---\r\n")
        assert [(heading.level, heading.title) for heading in found] == [(1, "One"), (2, "Two")]

    def test_the_first_title_is_metadata(self) -> None:
        assert parse_markdown("intro\n\n## Sub\n\n# Title\n").metadata == {"title": "Title"}

    @pytest.mark.parametrize("text", ["[" * 200_000, "# " + "[a](" * 100_000, "`" * 300_000, "*a " * 200_000])
    @pytest.mark.timeout(20)
    def test_pathological_lines_take_no_time(self, text: str) -> None:
        assert parse_markdown(text).text == text


class TestHtml:
    PAGE = """<!doctype html><html><head><title> The
      Page </title><style>p {}</style><script>steal()</script></head>
    <body><header><h1>Site</h1></header><nav><a href="/">Home</a></nav>
    <main><h1>Guide <em>one</em></h1><p>First   <b>bold</b><i>it</i>,
    see <a href="x">the link</a>.</p><ul><li>one</li><li><p>two</p></li></ul>
    <h2>Install</h2><pre><code>make
      demo</code></pre><table><tr><th>k</th><th>v</th></tr><tr><td>a</td><td>1</td></tr></table>
    <img alt="a picture"><div hidden>secret</div><noscript>no</noscript><p></p><h3></h3></main>
    <footer>legal</footer></body></html>"""

    def test_the_main_text(self) -> None:
        assert parse_html(self.PAGE).text == (
            "# Guide one\n\nFirst boldit, see the link.\n\n- one\n\n- two\n\n## Install\n\n```\nmake\n      demo\n```"
            "\n\nk v\na 1\n\na picture"
        )

    def test_title_and_headings(self) -> None:
        parsed = parse_html(self.PAGE)
        assert parsed.metadata == {"title": "The Page"}
        assert [(heading.level, heading.title) for heading in parsed.headings] == [(1, "Guide one"), (2, "Install")]
        for heading in parsed.headings:
            assert parsed.text[heading.offset :].startswith("#" * heading.level + " " + heading.title)

    def test_chunks_carry_headings_and_no_lines(self) -> None:
        (found,) = documents(parse(self.PAGE, "a.html"))
        assert found.chunks[0].heading == "Guide one"
        assert (found.chunks[0].start_line, found.chunks[0].end_line) == (0, 0)

    def test_the_only_article_is_the_main_text_and_the_body_otherwise(self) -> None:
        assert parse_html("<body>a<article>b</article>").text == "b"
        assert parse_html("<body>a<article>b</article><article>c</article>").text == "a\n\nb\n\nc"
        assert parse_html("just text").text == "just text"
        assert parse_html("").text == ""

    @pytest.mark.parametrize(
        "page",
        [
            "<div>" * 20_000 + "deep" + "</div>" * 20_000,
            "<b><i>" * 20_000 + "deep",
            "<table><tr><td>" * 5_000 + "deep",
            "<ul><li>" * 10_000 + "deep",
        ],
    )
    @pytest.mark.timeout(30)
    def test_deep_nesting_is_survived(self, page: str) -> None:
        assert "deep" in parse_html(page).text


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


def test_settings_that_cannot_be_used_are_an_error_of_the_job() -> None:
    with pytest.raises(Terminal) as refused:
        parse_bytes(Fetched(Entry("a"), data=b"x"), Parse(), ChunkSettings(size=100, overlap=100))
    assert refused.value.reason == "InvalidSpec"
    assert "spec.chunk.overlap is 100" in refused.value.message
