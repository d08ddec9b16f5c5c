"""Parsers: from bytes to documents of text, one file a format."""
