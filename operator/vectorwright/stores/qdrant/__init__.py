"""Qdrant, over its published gRPC API. The store itself is in :mod:`.store`."""
