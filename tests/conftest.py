"""Every test can ask for a real API server, a real store, or a local peer, by the name of its fixture."""

pytest_plugins = [
    "tests.support.cluster",
    "tests.support.chroma",
    "tests.support.milvus",
    "tests.support.milvus_rbac",
    "tests.support.git",
    "tests.support.http_files",
    "tests.support.issuer_case",
    "tests.support.openai",
    "tests.support.pods",
    "tests.support.qdrant",
    "tests.support.qdrant_cloud",
    "tests.support.s3",
    "tests.support.store_server",
    "tests.support.tls",  # before postgres, which imports it: pytest rewrites a plugin's asserts at its first import
    "tests.support.postgres",
    "tests.support.postgres_roles",
    "tests.support.vectorwright",
    "tests.support.weaviate",
    "tests.support.workers",
]
