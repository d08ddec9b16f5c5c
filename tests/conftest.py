"""Every test can ask for a real API server, a real store, or a local peer, by the name of its fixture."""

pytest_plugins = [
    "tests.support.cluster",
    "tests.support.chroma",
    "tests.support.postgres",
]
