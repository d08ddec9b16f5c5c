"""Weaviate: collections over its REST API, records over its gRPC API."""
