"""Vectorwright: a Kubernetes operator for vector indexes in any store."""

__version__ = "0.1.0"
