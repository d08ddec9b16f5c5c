"""Metrics whose series belong to an object of the cluster and go with it.

prometheus_client keeps a locked object for each series (about 1 KiB); with thousands of resources a plain dict that is
turned into samples when scraped costs a tenth, and forgetting an object is one deletion.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_Key = tuple[str, str]
_Labels = tuple[str, ...]


class _ObjectMetric(Collector):
    """Values by (namespace, name) and further labels. Thread-safe."""

    def __init__(self, name: str, documentation: str, kind: str, labels: tuple[str, ...] = ()) -> None:
        self.name = name
        self.documentation = documentation
        self.kind = kind
        self._label_names = labels
        self._values: dict[_Key, dict[_Labels, float]] = {}
        self._lock = threading.Lock()

    def forget(self, namespace: str, name: str) -> None:
        """Drop the object's series."""
        with self._lock:
            self._values.pop((namespace, name), None)

    def value(self, namespace: str, name: str, **labels: str) -> float | None:
        """The present value of one series, or None."""
        with self._lock:
            return self._values.get((namespace, name), {}).get(self._labels(labels))

    def _labels(self, labels: dict[str, str]) -> _Labels:
        if len(labels) != len(self._label_names):
            raise ValueError(f"{self.name} wants the labels {self._label_names}, not {tuple(labels)}")
        return tuple(labels[name] for name in self._label_names)

    def _snapshot(self) -> list[tuple[list[str], float]]:
        with self._lock:
            return [
                ([*key, *labels], value) for key, series in self._values.items() for labels, value in series.items()
            ]


class ObjectGauge(_ObjectMetric):
    """A gauge with labels ``namespace``, ``name`` and ``labels``."""

    def set(self, namespace: str, name: str, value: float, **labels: str) -> None:
        """Set the object's value. An object has one series: new label values replace the old ones."""
        with self._lock:
            self._values[namespace, name] = {self._labels(labels): float(value)}

    def collect(self) -> Iterator[Metric]:
        """The samples of this moment."""
        family = GaugeMetricFamily(self.name, self.documentation, labels=["namespace", "name", *self._label_names])
        for labels, value in self._snapshot():
            family.add_metric(labels, value)
        yield family


class ObjectCounter(_ObjectMetric):
    """A counter with labels ``namespace``, ``name`` and ``labels``; exposed with the suffix ``_total``."""

    def __init__(self, name: str, documentation: str, kind: str, labels: tuple[str, ...] = ()) -> None:
        super().__init__(name, documentation, kind, labels)
        self._followed: dict[_Key, tuple[str, dict[_Labels, float]]] = {}

    def inc(self, namespace: str, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add ``amount`` ≥ 0."""
        if amount < 0:
            raise ValueError(f"{self.name}: a counter cannot go down by {-amount}")
        with self._lock:
            self._add((namespace, name), self._labels(labels), amount)

    def follow(self, namespace: str, name: str, run: str, total: float, **labels: str) -> None:
        """Take over the absolute count that run ``run`` reports: what it grew since the last report is added.

        A run reports its own count from zero, and reports may come late: a smaller number than before adds nothing.
        """
        key, series = (namespace, name), self._labels(labels)
        with self._lock:
            followed, seen = self._followed.get(key, ("", {}))
            if followed != run:
                seen = {}
                self._followed[key] = (run, seen)
            before = seen.get(series, 0.0)
            if total > before:
                seen[series] = total
                self._add(key, series, total - before)

    def forget(self, namespace: str, name: str) -> None:
        """Drop the object's series."""
        super().forget(namespace, name)
        with self._lock:
            self._followed.pop((namespace, name), None)

    def collect(self) -> Iterator[Metric]:
        """The samples of this moment."""
        family = CounterMetricFamily(self.name, self.documentation, labels=["namespace", "name", *self._label_names])
        for labels, value in self._snapshot():
            family.add_metric(labels, value)
        yield family

    def _add(self, key: _Key, labels: _Labels, amount: float) -> None:
        series = self._values.setdefault(key, {})
        series[labels] = series.get(labels, 0.0) + amount
