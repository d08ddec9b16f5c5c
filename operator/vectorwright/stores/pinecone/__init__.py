"""Pinecone, through its own SDK. The store itself is in :mod:`.store`."""
