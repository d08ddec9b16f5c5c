"""From bytes to text: byte order marks, declared encodings, UTF-8, and what else people have."""

from __future__ import annotations

import codecs
import re

from vectorwright.errors import Terminal

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""UTF-32's mark begins with UTF-16's, so it comes first."""

_DECLARABLE = re.compile(
    r"ascii|utf-?_?(8|16|32)([-_]?(le|be))?|iso8859-\d+|cp(125\d|437|85\d|86\d|874|932|949|950)|koi8-[rut]|"
    r"shift_jis(_2004)?|euc_(jp|kr|jis_2004)|gb(2312|k|18030)|big5(hkscs)?|mac-roman|tis-620|hz|iso2022_(jp|kr)"
)
"""Encodings that a document may declare, by Python's names. Others are programs in disguise (idna, unicode_escape)."""

_PDF = b"%PDF-"


def known_charset(declared: str | None) -> str | None:
    """Python's name of a declared encoding, or None where it is unknown or not one of text."""
    if not declared:
        return None
    try:
        name = codecs.lookup(declared.strip("\"' ")).name
    except (LookupError, ValueError):
        return None
    return name if _DECLARABLE.fullmatch(name) else None


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of a document.

    A byte order mark wins, then the declared encoding, then UTF-8, then Windows-1252 with what it leaves open
    replaced. Raises Terminal ``BinaryContent`` where the bytes are not text: no text holds a NUL.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    if data.startswith(_PDF):
        raise Terminal("it is a PDF file, which no parser here reads", reason="BinaryContent")
    charset = known_charset(declared)
    if charset is not None and not charset.startswith("utf-8"):
        return data.decode(charset, "replace")
    at = data.find(b"\0")
    if at >= 0:
        raise Terminal(
            f"it is not text: byte {at} is NUL. Leave such files out with spec.source's exclude", reason="BinaryContent"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")
