"""Chroma, over its published HTTP API. The store itself is in :mod:`.store`."""
