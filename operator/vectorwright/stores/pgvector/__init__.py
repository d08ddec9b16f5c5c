"""PostgreSQL with pgvector. The store itself is in :mod:`.store`; it needs the extra ``pgvector``."""
