"""What Prometheus reads at /metrics. One registry per coordinator; names are part of the interface (docs).

====================================================  =========  ==========================================
name                                                  kind       what
====================================================  =========  ==========================================
``warren_http_requests_total{method,status}``         counter    answered requests
``warren_http_request_seconds``                       histogram  how long answers took
``warren_connections``                                gauge      open connections
``warren_connections_refused_total``                  counter    closed at once: no place left
``warren_tls_failures_total``                         counter    handshakes that failed or took too long
``warren_authentication_failures_total{who}``         counter    ``administrator`` or ``node``
``warren_node_sessions``                              gauge      connected nodes of this process
``warren_node_messages_total{direction}``             counter    ``in`` and ``out``
``warren_node_bytes_total{direction}``                counter    the same in bytes
``warren_node_refusals_total{kind}``                  counter    sessions ended by a refusal
``warren_coordinator_NAME``                           as named   the service's own
====================================================  =========  ==========================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_METHODS: Final = frozenset({"GET", "POST", "PATCH", "DELETE", "HEAD", "PUT", "OPTIONS"})


class Metrics:
    """The coordinator's counters; :meth:`text` is the page."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter("warren_http_requests", "Answered requests.", ["method", "status"], registry=registry)
        self._seconds = Histogram("warren_http_request_seconds", "How long answers took.", registry=registry)
        self.connections = Gauge("warren_connections", "Open connections.", registry=registry)
        self.connections_refused = Counter(
            "warren_connections_refused", "Connections closed at once.", registry=registry
        )
        self.tls_failures = Counter("warren_tls_failures", "TLS handshakes that failed.", registry=registry)
        self.authentication_failures = Counter(
            "warren_authentication_failures", "Failed authentications.", ["who"], registry=registry
        )
        self.node_sessions = Gauge("warren_node_sessions", "Connected nodes of this process.", registry=registry)
        self.node_messages = Counter("warren_node_messages", "Messages of nodes.", ["direction"], registry=registry)
        self.node_bytes = Counter("warren_node_bytes", "Bytes of those messages.", ["direction"], registry=registry)
        self.node_refusals = Counter(
            "warren_node_refusals", "Sessions ended by a refusal.", ["kind"], registry=registry
        )

    def answered(self, method: str, status: int, seconds: float) -> None:
        # An unknown method is a client's word and must not make a new series each.
        self._requests.labels(method if method in _METHODS else "other", str(status)).inc()
        self._seconds.observe(seconds)

    def add_source(self, values: Callable[[], Mapping[str, float]]) -> None:
        """Show what ``values`` gives at each scrape: names that end in ``_total`` as counters, others as gauges."""
        self.registry.register(_Source(values))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Source:
    def __init__(self, values: Callable[[], Mapping[str, float]]) -> None:
        self._values = values

    def collect(self) -> Iterable[Metric]:
        for name, value in sorted(self._values().items()):
            full = f"warren_coordinator_{name}"
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(full, name.replace("_", " "), value=value)
