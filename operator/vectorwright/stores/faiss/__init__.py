"""FAISS on a volume: indexes in memory, made durable by a log and snapshots. Owned by a store server."""
