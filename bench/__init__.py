"""Benchmarks: each starts what it needs, measures, prints, and writes a JSON report to ``bench/reports``."""
