"""A double of Pinecone: control, data and admin plane over HTTP, as version 2026-07 of the API is documented.

It runs in this process, on loopback, and is driven by the official SDK. It enforces what the vendor documents: limits,
error codes, readiness some time after creation, reads that lag behind writes; and it fails when it is told to.
"""

from .admin import CLIENT_ID, CLIENT_SECRET
from .double import PineconeDouble
from .knobs import Knobs

__all__ = ["CLIENT_ID", "CLIENT_SECRET", "Knobs", "PineconeDouble"]
