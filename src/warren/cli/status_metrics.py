"""The agent's status as metrics in Prometheus' text form: for a textfile collector, or whatever else reads it.

The agent itself listens on nothing for this. Names are part of the interface (docs/reference.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from warren.proto.control.local import AgentStatus


def page(status: AgentStatus) -> str:
    """All of it, one metric after the other."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Source(status))
    return generate_latest(registry).decode()


class _Source:
    def __init__(self, status: AgentStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("warren_agent_info", "What runs.", labels=["version", "engine"])
        info.add_metric([self._status.version, self._status.engine], 1)
        yield info
        yield from _networks(self._status)
        yield from _peers(self._status)
        yield from _streams(self._status)


def _networks(status: AgentStatus) -> Iterator[Metric]:
    up = GaugeMetricFamily("warren_network_up", "1 while the node is up in the network.", labels=["network"])
    linked = GaugeMetricFamily(
        "warren_coordinator_connected", "1 while a coordinator is connected.", labels=["network"]
    )
    tasks = GaugeMetricFamily("warren_tasks", "Tasks, by how they stand.", labels=["network", "state"])
    for network in status.networks:
        up.add_metric([network.network], network.state == "up")
        linked.add_metric([network.network], network.coordinator.connected)
        counts = Counter(task.state for task in network.tasks)
        for state in sorted({"done", "failed", *counts}):
            tasks.add_metric([network.network, state], counts[state])
    yield from (up, linked, tasks)


def _peers(status: AgentStatus) -> Iterator[Metric]:
    peers = GaugeMetricFamily("warren_peers", "Members, by state and path.", labels=["network", "state", "path"])
    rtt = GaugeMetricFamily("warren_peer_rtt_seconds", "Round trip of the path.", labels=["network", "peer"])
    received = CounterMetricFamily("warren_peer_received_bytes", "From the peer.", labels=["network", "peer"])
    sent = CounterMetricFamily("warren_peer_sent_bytes", "To the peer.", labels=["network", "peer"])
    for network in status.networks:
        counts = Counter((peer.state, peer.path) for peer in network.peers)
        for (state, path), count in sorted(counts.items()):
            peers.add_metric([network.network, state, path], count)
        for peer in network.peers:
            labels = [network.network, peer.name]
            if peer.rtt_ms is not None:
                rtt.add_metric(labels, peer.rtt_ms / 1000)
            received.add_metric(labels, peer.rx_bytes)
            sent.add_metric(labels, peer.tx_bytes)
    yield from (peers, rtt, received, sent)


def _streams(status: AgentStatus) -> Iterator[Metric]:
    open_now = GaugeMetricFamily("warren_streams_open", "Streams and flows that are open.", labels=["stream"])
    opened = CounterMetricFamily("warren_streams_opened", "Streams and flows that were opened.", labels=["stream"])
    refused = CounterMetricFamily("warren_streams_refused", "Those refused, by why.", labels=["stream", "reason"])
    received = CounterMetricFamily("warren_streams_received_bytes", "From clients.", labels=["stream"])
    sent = CounterMetricFamily("warren_streams_sent_bytes", "To clients.", labels=["stream"])
    for stream in status.streams:
        open_now.add_metric([stream.id], stream.open)
        opened.add_metric([stream.id], stream.opened)
        for reason, count in sorted(stream.refused.items()):
            refused.add_metric([stream.id, reason], count)
        received.add_metric([stream.id], stream.bytes_in)
        sent.add_metric([stream.id], stream.bytes_out)
    yield from (open_now, opened, refused, received, sent)
