"""Parsers: from bytes to documents.

- the parser is picked by content type, then extension, then plain text; the job's choice wins
- encodings: byte order marks, declared charsets, UTF-8, Windows-1252; binary content is rejected
- HTML gives its main text, title and headings, and no scripts; hostile nesting is survived
"""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.parsing import documents, parse, texts

from vectorwright.api.v1alpha1.ingestionjob import Chunk as ChunkSettings
from vectorwright.api.v1alpha1.ingestionjob import Parse
from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.contracts import Document, Entry, Fetched, Rejected
from vectorwright.ingest.parsers.decode import decode, known_charset
from vectorwright.ingest.parsers.documents import parse_bytes, pick_parser
from vectorwright.ingest.parsers.html_text import parse_html
from vectorwright.ingest.parsers.markdown import headings, parse_markdown


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


def test_settings_that_cannot_be_used_are_an_error_of_the_job() -> None:
    with pytest.raises(Terminal) as refused:
        parse_bytes(Fetched(Entry("a"), data=b"x"), Parse(), ChunkSettings(size=100, overlap=100))
    assert refused.value.reason == "InvalidSpec"
    assert "spec.chunk.overlap is 100" in refused.value.message
