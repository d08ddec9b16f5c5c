"""Ingestion: plan, work and finalize one run, in a worker process that never talks to the API server."""
