"""Embedders: from texts to vectors, one file a kind of endpoint."""
