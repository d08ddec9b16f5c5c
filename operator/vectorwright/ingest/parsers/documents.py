"""From the content of an entry to documents with their chunks: one pure function, run in the parsers' child process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from vectorwright.api.v1alpha1.ingestionjob import Chunk as ChunkSettings
from vectorwright.api.v1alpha1.ingestionjob import Parse, ParserType
from vectorwright.errors import Terminal
from vectorwright.ingest.chunking import Chunker, chunker_for
from vectorwright.ingest.contracts import Chunk, Document, Entry, Fetched, Rejected
from vectorwright.ingest.sources.classify import language_of

from . import csv_table, json_lines
from .base import ParsedText, Row, TextKind
from .decode import decode
from .html_text import declared_charset, parse_html
from .limits import document_limit, too_large
from .markdown import parse_markdown
from .plain_text import parse_plain_text
from .records import Fields, records
from .source_code import parse_code

_MEDIA_TYPES = {
    "text/markdown": ParserType.MARKDOWN,
    "text/x-markdown": ParserType.MARKDOWN,
    "text/html": ParserType.HTML,
    "application/xhtml+xml": ParserType.HTML,
    "text/csv": ParserType.CSV,
    "text/tab-separated-values": ParserType.CSV,
    "application/jsonl": ParserType.JSON_LINES,
    "application/jsonlines": ParserType.JSON_LINES,
    "application/json-lines": ParserType.JSON_LINES,
    "application/ndjson": ParserType.JSON_LINES,
    "application/x-ndjson": ParserType.JSON_LINES,
    "application/x-jsonlines": ParserType.JSON_LINES,
    "application/vnd.apache.parquet": ParserType.PARQUET,
    "application/x-parquet": ParserType.PARQUET,
    "application/json": ParserType.CODE,
    "application/javascript": ParserType.CODE,
    "text/javascript": ParserType.CODE,
    "text/css": ParserType.CODE,
    "application/yaml": ParserType.CODE,
    "application/xml": ParserType.CODE,
    "text/xml": ParserType.CODE,
}
_LANGUAGES = {
    "markdown": ParserType.MARKDOWN,
    "html": ParserType.HTML,
    "csv": ParserType.CSV,
    "json-lines": ParserType.JSON_LINES,
    "text": ParserType.TEXT,
    "restructuredtext": ParserType.TEXT,
    "asciidoc": ParserType.TEXT,
    "org": ParserType.TEXT,
}
_TEXT_PARSERS: dict[ParserType, Callable[[str], ParsedText]] = {
    ParserType.TEXT: parse_plain_text,
    ParserType.MARKDOWN: parse_markdown,
    ParserType.HTML: parse_html,
    ParserType.CODE: parse_code,
}
_TABLES = frozenset({ParserType.JSON_LINES, ParserType.CSV})


def pick_parser(entry: Entry) -> ParserType:
    """The parser for an entry, where the job leaves the choice.

    A content type that says more than "text" or "bytes" decides; then the extension of the name (for an address, of its
    path); then it is plain text.
    """
    media_type = (entry.media_type or "").partition(";")[0].strip().lower()
    if media_type in _MEDIA_TYPES:
        return _MEDIA_TYPES[media_type]
    path = urlsplit(entry.key).path if entry.key.startswith(("http://", "https://")) else entry.key
    if path.lower().endswith(".parquet"):
        return ParserType.PARQUET
    language = language_of(path)
    if language is None:
        return ParserType.TEXT
    return _LANGUAGES.get(language, ParserType.CODE)


def _charset(entry: Entry) -> str | None:
    for parameter in (entry.media_type or "").split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip()
    return None


def _from_text(fetched: Fetched, data: bytes, parser: ParserType, chunker: Chunker) -> Document:
    entry = fetched.entry
    charset = _charset(entry) or (declared_charset(data) if parser is ParserType.HTML else None)
    parsed = _TEXT_PARSERS[parser](decode(data, charset))
    return Document(
        key=entry.key,
        content_hash=entry.token or hashlib.sha256(data).hexdigest(),
        chunks=chunker.chunks(parsed),
        metadata={**parsed.metadata, **entry.metadata},
    )


def _from_table(entry: Entry, rows: Iterable[Row], fields: Fields, chunker: Chunker) -> list[Document | Rejected]:
    found: list[Document | Rejected] = []
    for record in records(rows, fields):
        key = f"{entry.key}#{record.key}"
        if record.problem is not None:
            found.append(Rejected(key, *record.problem))
            continue
        if record.vector is not None:
            chunks: tuple[Chunk, ...] = (Chunk(record.text),)
        else:
            chunks = chunker.chunks(ParsedText(record.text, TextKind.TEXT, numbered=False))
        found.append(
            Document(
                key=key,
                content_hash=record.content_hash,
                chunks=chunks,
                metadata={**entry.metadata, **(record.metadata or {})},
                record_id=record.id,
                vector=record.vector,
            )
        )
    return found


def _parse(
    fetched: Fetched, data: bytes, parse: Parse, chunk: ChunkSettings, precomputed_field: str | None
) -> list[Document | Rejected]:
    entry = fetched.entry
    parser = parse.type if parse.type is not None and parse.type is not ParserType.AUTO else pick_parser(entry)
    chunker = chunker_for(chunk)
    if parser is ParserType.PARQUET:
        from . import parquet_table  # noqa: PLC0415 - for those who need it

        fields, rows = parquet_table.table(data, parse, precomputed_field)
        return _from_table(entry, rows, fields, chunker)
    if parser in _TABLES:
        fields = Fields.of(parse, precomputed_field, typed=parser is ParserType.JSON_LINES)
        if parser is ParserType.JSON_LINES:
            return _from_table(entry, json_lines.rows(data), fields, chunker)
        rows = csv_table.rows(decode(data, _charset(entry)), fields.required)
        return _from_table(entry, rows, fields, chunker)
    if precomputed_field is not None:
        raise Terminal(
            f"it is not a table: vectors that come with the records (field {precomputed_field!r}) need JSON lines, "
            "CSV or parquet",
            reason="BadVector",
        )
    return [_from_text(fetched, data, parser, chunker)]


def parse_bytes(
    fetched: Fetched, parse: Parse, chunk: ChunkSettings, precomputed_field: str | None = None
) -> list[Document | Rejected]:
    """The documents in what was fetched, parsed and chunked; what cannot be parsed comes as Rejected.

    A single document has the entry's key; its content hash is the entry's token, or the SHA-256 of its bytes. Records
    of a table are documents of their own (:mod:`.records`). Metadata is what the content says of itself and, above it,
    what the source knows; the fields of a record win over both. Raises Terminal ``InvalidSpec`` or
    ``TokenizerMissing`` when the chunk settings cannot be used at all.
    """
    entry = fetched.entry
    if fetched.error is not None or fetched.data is None:
        error = fetched.error or Terminal(f"{entry.key} was not fetched", reason="NotFetched")
        return [Rejected(entry.key, error.reason, error.message)]
    limit = document_limit(parse)
    if len(fetched.data) > limit:
        return [Rejected(entry.key, "DocumentTooLarge", too_large(entry.key, limit, len(fetched.data)))]
    chunker_for(chunk)
    try:
        return _parse(fetched, fetched.data, parse, chunk, precomputed_field)
    except Terminal as error:
        return [Rejected(entry.key, error.reason, f"{entry.key}: {error.message}")]
