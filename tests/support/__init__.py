"""Fixtures that start real servers, as pytest plugins (see tests/conftest.py)."""
