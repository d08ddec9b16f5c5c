"""Upserting records: our stores beside the vendors' own helpers, on the same servers, rows and index settings."""

from .run import main

__all__ = ["main"]
