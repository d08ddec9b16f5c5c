"""The API: pydantic models, the one source of truth of the CRDs."""
