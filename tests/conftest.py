"""Every test can ask for a real API server, a real store, or a local peer, by the name of its fixture."""

from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

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
    "tests.support.rbac",
    "tests.support.s3",
    "tests.support.store_server",
    "tests.support.tls",  # before postgres, which imports it: pytest rewrites a plugin's asserts at its first import
    "tests.support.postgres",
    "tests.support.postgres_roles",
    "tests.support.unused_port",
    "tests.support.vectorwright",
    "tests.support.weaviate",
    "tests.support.workers",
]
