"""Chroma's own HTTP API: how the demo looks at the store, and changes it, without the operator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import httpx

_COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as the server tells it."""

    id: str
    name: str
    dimension: int | None
    metadata: dict[str, Any]
    ef_search: int | None


class ChromaApi:
    """Requests to one server. Raises httpx.HTTPError."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._client.request(method, f"{_COLLECTIONS}{path}", json=body)
        answer.raise_for_status()
        return answer.json()

    def collection(self, name: str) -> Collection | None:
        """One collection; None when there is none of that name."""
        answer = self._client.get(f"{_COLLECTIONS}/{name}")
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        body = answer.json()
        hnsw = (body.get("configuration_json") or {}).get("hnsw") or {}
        return Collection(
            id=body["id"],
            name=body["name"],
            dimension=body.get("dimension"),
            metadata=body.get("metadata") or {},
            ef_search=hnsw.get("ef_search"),
        )

    def create(self, name: str, vector: list[float]) -> None:
        """A collection that holds one vector."""
        made = self._call("POST", "", {"name": name, "configuration": {"hnsw": {"space": "cosine"}}})
        self._call("POST", f"/{made['id']}/add", {"ids": ["1"], "embeddings": [vector]})

    def set_ef_search(self, collection: Collection, value: int) -> None:
        """Change how many candidates a search of the collection looks at."""
        self._call("PUT", f"/{collection.id}", {"new_configuration": {"hnsw": {"ef_search": value}}})

    def count(self, collection: Collection) -> int:
        """Number of records."""
        return int(self._call("GET", f"/{collection.id}/count"))

    def metadata(self, collection: Collection) -> Iterator[dict[str, Any]]:
        """The metadata of every record."""
        for offset in range(0, self.count(collection), _PAGE):
            body = {"include": ["metadatas"], "limit": _PAGE, "offset": offset}
            yield from self._call("POST", f"/{collection.id}/get", body)["metadatas"]

    def close(self) -> None:
        """Release connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
