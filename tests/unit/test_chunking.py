"""Chunking.

- no chunk is larger than the size, in characters or tokens; nothing of the text gets lost
- lines are those of the file, headings those above the chunk
- code is cut between blocks: what fits stays whole
- overlap repeats what came before and counts towards the size
- the same text gives the same chunks; pathological texts take no time
"""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorwright.api.v1alpha1.ingestionjob import Chunk as ChunkSettings
from vectorwright.errors import Terminal
from vectorwright.ingest import chunking
from vectorwright.ingest.chunking import Chunker, check_settings, chunker_for
from vectorwright.ingest.contracts import Chunk
from vectorwright.ingest.parsers.base import ParsedText, TextKind
from vectorwright.ingest.parsers.markdown import parse_markdown
from vectorwright.ingest.parsers.plain_text import parse_plain_text
from vectorwright.ingest.parsers.source_code import parse_code

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted((REPOSITORY / "operator" / "vectorwright" / "ingest").rglob("*.py"))
DOCUMENTS = sorted(REPOSITORY.glob("*.md"))
PARSERS = {".py": parse_code, ".md": parse_markdown, ".toml": parse_code, ".yaml": parse_code}


def cut(parsed: ParsedText, **settings: Any) -> tuple[Chunk, ...]:
    return Chunker(ChunkSettings(**settings)).chunks(parsed)


def words(text: str) -> str:
    return re.sub(r"\W+", "", text)


@pytest.mark.parametrize("path", [*SOURCES, *DOCUMENTS, REPOSITORY / "pyproject.toml"], ids=lambda path: path.name)
@pytest.mark.parametrize("settings", [{}, {"size": 300}, {"size": 300, "overlap": 80}, {"size": 40}])
def test_chunks_of_real_files_stand_on_the_lines_they_name(path: Path, settings: dict[str, int]) -> None:
    text = path.read_text(encoding="utf-8")
    parsed = PARSERS[path.suffix](text)
    lines = text.split("\n")
    chunks = cut(parsed, **settings)
    assert chunks or not words(text)
    for chunk in chunks:
        assert len(chunk.text) <= settings.get("size", 1500)
        assert 1 <= chunk.start_line <= chunk.end_line <= len(lines)
        named = "\n".join(lines[chunk.start_line - 1 : chunk.end_line])
        assert chunk.text in named
        assert chunk.text.split("\n")[0] in lines[chunk.start_line - 1]
        assert chunk.text.split("\n")[-1] in lines[chunk.end_line - 1]
    if "overlap" not in settings:
        assert words("".join(chunk.text for chunk in chunks)) == words(text)
    assert cut(parsed, **settings) == chunks


class TestMarkdown:
    TEXT = "# Guide\n\nintro\n\n## Install\n\n" + "Install it. " * 20 + "\n\n### On Linux\n\n" + "Use Linux. " * 20

    def test_headings_above_a_chunk(self) -> None:
        found = cut(parse_markdown(self.TEXT), size=260)
        assert [(chunk.heading, chunk.start_line) for chunk in found] == [
            ("Guide", 1),
            ("Guide > Install", 5),
            ("Guide > Install > On Linux", 9),
        ]

    def test_a_text_before_the_first_heading_has_none(self) -> None:
        assert cut(parse_markdown("intro\n\n# One"))[0].heading is None

    def test_the_fence_of_a_code_block_is_no_chunk_of_its_own(self) -> None:
        text = "## Layout\n\n```\n" + "\n".join(f"line number {n} of the code" for n in range(80)) + "\n```\n"
        for chunk in cut(parse_markdown(text), size=600):
            assert re.search(r"\w", chunk.text)
            assert len(chunk.text) > 50

    def test_markdown_may_be_asked_for(self) -> None:
        found = cut(parse_plain_text("# One\n\ntext"), strategy="markdown")
        assert found[0].heading == "One"


class TestCode:
    PYTHON = '''import os


# Adds two numbers.
@cached
def add(a, b):
    """Sum."""
    return a + b


def sub(a, b):
    if a:
        return 1
    else:
        return a - b


class Thing:
    """A thing."""

    def one(self):
        return 1

    def two(self):
        return 2
'''
    GO = """package main

func one() {
	if true {
		a()
	} else {
		b()
	}
}

// two does two things.
func two() {
	c()
}
"""

    def test_functions_stay_whole(self) -> None:
        found = [chunk.text for chunk in cut(parse_code(self.PYTHON), size=105)]
        assert found == [
            'import os\n\n\n# Adds two numbers.\n@cached\ndef add(a, b):\n    """Sum."""\n    return a + b',
            "def sub(a, b):\n    if a:\n        return 1\n    else:\n        return a - b",
            'class Thing:\n    """A thing."""\n\n    def one(self):\n        return 1',
            "    def two(self):\n        return 2",
        ]

    def test_a_class_that_is_too_large_is_cut_between_its_methods(self) -> None:
        found = [chunk.text for chunk in cut(parse_code(self.PYTHON), size=90)]
        assert "    def two(self):\n        return 2" in found[-1]
        assert "    def one(self):\n        return 1" in found[-2]

    def test_closing_brackets_stay_with_what_they_close(self) -> None:
        found = [chunk.text for chunk in cut(parse_code(self.GO), size=60)]
        assert found == [
            "package main",
            "func one() {\n\tif true {\n\t\ta()\n\t} else {\n\t\tb()\n\t}\n}",
            "// two does two things.\nfunc two() {\n\tc()\n}",
        ]

    def test_indentation_is_kept(self) -> None:
        found = cut(parse_code("class A:\n" + "".join(f"    def m{n}(self): pass\n" for n in range(40))), size=100)
        assert all(chunk.text.startswith("    def") for chunk in found[1:])

    def test_overlap_repeats_whole_lines(self) -> None:
        text = "".join(f"call_number({n})\n" for n in range(100))
        found = cut(parse_code(text), size=200, overlap=60)
        for before, after in pairwise(found):
            repeated = before.end_line - after.start_line + 1
            assert repeated in {3, 4}
            assert before.text.split("\n")[-repeated:] == after.text.split("\n")[:repeated]

    def test_a_line_that_is_too_long_is_cut(self) -> None:
        found = cut(parse_code("x = 1\ny = '" + "word " * 200 + "'\nz = 2\n"), size=200)
        assert {(chunk.start_line, chunk.end_line) for chunk in found} == {(1, 1), (2, 2), (3, 3)}

    def test_windows_line_ends_are_kept_inside_and_lines_counted(self) -> None:
        found = cut(parse_code("a = 1\r\nb = 2\r\n"))
        assert [(chunk.text, chunk.end_line) for chunk in found] == [("a = 1\r\nb = 2", 2)]


class TestTokens:
    def test_tokens_are_counted_by_the_tokenizer_that_is_installed(self) -> None:
        tokenizers = pytest.importorskip("tokenizers")
        path = chunking.tokenizer_file()
        assert path is not None
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        for parsed in (
            parse_code(Path(chunking.__file__).read_text(encoding="utf-8")),
            parse_markdown(TestMarkdown.TEXT * 20),
            parse_plain_text("Überlängeähnliche Wörter 日本語テキスト " * 200),
        ):
            found = cut(parsed, size=64, unit="tokens")
            counts = [len(tokenizer.encode(chunk.text, add_special_tokens=False).ids) for chunk in found]
            assert max(counts) <= 64
            assert sum(counts) / len(counts) > 16

    def test_without_a_tokenizer_the_job_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunking, "tokenizer_file", lambda: None)
        with pytest.raises(Terminal) as refused:
            check_settings(ChunkSettings(unit="tokens"))
        assert refused.value.reason == "TokenizerMissing"
        assert check_settings(ChunkSettings()) == (1500, 0)


@pytest.mark.parametrize(("size", "overlap"), [(100, 100), (100, 200), (None, 1500)])
def test_an_overlap_that_is_not_less_than_the_size_is_refused(size: int | None, overlap: int) -> None:
    with pytest.raises(Terminal) as refused:
        check_settings(ChunkSettings(size=size, overlap=overlap))
    assert refused.value.reason == "InvalidSpec"


def test_a_document_may_be_kept_whole() -> None:
    (found,) = cut(parse_plain_text("\n\n  " + "word " * 1000 + "\nend\n\n"), strategy="none", size=100)
    assert (found.start_line, found.end_line) == (3, 4)
    assert found.text.startswith("word")


@pytest.mark.parametrize("text", ["", " \n\t", "---\n***\n", "}\n)\n"])
@pytest.mark.parametrize("kind", list(TextKind))
def test_a_text_without_words_has_no_chunks(text: str, kind: TextKind) -> None:
    assert cut(ParsedText(text, kind)) == ()


def test_a_text_whose_lines_mean_nothing_has_no_lines() -> None:
    (found,) = cut(ParsedText("a\nb", TextKind.TEXT, numbered=False))
    assert (found.start_line, found.end_line) == (0, 0)


def test_the_chunker_of_some_settings_is_made_once() -> None:
    assert chunker_for(ChunkSettings(size=77)) is chunker_for(ChunkSettings(size=77))


@given(
    st.text(alphabet=st.sampled_from("ab \n\t#-`*{}()é日\U0001f600\r"), max_size=400), st.sampled_from(list(TextKind))
)
def test_any_text_is_cut_without_loss(text: str, kind: TextKind) -> None:
    chunks = cut(ParsedText(text, kind), size=16)
    assert words("".join(chunk.text for chunk in chunks)) == words(text)
    assert all(len(chunk.text) <= 16 for chunk in chunks)


def _staircase(depth: int) -> str:
    return "\n".join(" " * (n % 3000) + f"if x{n}:" for n in range(depth))


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "é" * 1_000_000,
        "(" * 1_000_000 + "a",
        "x\n" * 500_000,
        "\n" * 2_000_000 + "x",
        _staircase(3000),
        "\n".join(" " * (n % 2) + "x" for n in range(200_000)),
        "".join(random.Random(1).choices("ab;.{}() \n", k=1_000_000)),
    ],
    ids=["no-space", "no-space-utf8", "brackets", "short-lines", "empty-lines", "staircase", "zigzag", "noise"],
)
@pytest.mark.parametrize("kind", list(TextKind))
@pytest.mark.timeout(60)
def test_pathological_texts_are_cut_in_time(text: str, kind: TextKind) -> None:
    chunks = cut(ParsedText(text, kind))
    assert all(len(chunk.text) <= 1500 for chunk in chunks)
    assert words("".join(chunk.text for chunk in chunks)) == words(text)
