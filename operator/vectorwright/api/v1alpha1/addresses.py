"""Addresses of servers, as provider blocks have them."""

from __future__ import annotations

from pydantic import Field

HttpUrl = Field(min_length=1, max_length=2048, pattern=r"^https?://[^\s@]+$")
"""An http or https address without user information: credentials belong in a Secret."""

OptionalHttpUrl = Field(default=None, min_length=1, max_length=2048, pattern=r"^https?://[^\s@]+$")
"""The same, where it may be left out."""

StorePath = Field(
    default=None,
    min_length=1,
    max_length=512,
    pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$",
)
"""A folder below the operator's directory of local stores."""
