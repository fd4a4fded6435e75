"""The pairs of sites that are measured, and the faults: names, words for the tables, and what is wanted of each."""

from __future__ import annotations

from benchmarks.paths.figures import Scene
from benchmarks.paths.newcomers import Kinds

OPEN_S, PUNCHED_S, FAILOVER_S = 1.0, 2.0, 3.0

PAIRS = (
    Scene("open", "open – open", OPEN_S),
    Scene("punched", "punched: port-restricted – port-restricted", PUNCHED_S),
    Scene("predicted", "predicted: symmetric, ports in order – port-restricted", PUNCHED_S),
    Scene("birthday", "birthday: symmetric – port-restricted", PUNCHED_S),
    Scene("relayed", "relayed: symmetric – symmetric", PUNCHED_S, relayed=True),
    Scene("tls", "UDP blocked, relayed over TLS: only TCP 443 – port-restricted", relayed=True),
)
KINDS = {
    "open": Kinds("open", "open", "direct"),
    "punched": Kinds("port-restricted", "port-restricted", "direct"),
    "predicted": Kinds("symmetric-sequential", "port-restricted", "direct"),
    "birthday": Kinds("symmetric", "port-restricted", "direct"),
    "relayed": Kinds("symmetric", "symmetric", "relayed"),
    "tls": Kinds("only-443", "port-restricted", "relayed"),
}
FAULTS = (
    Scene("direct", "the direct path becomes a black hole; the relay takes over", FAILOVER_S),
    Scene("relay", "the relay in use vanishes; the second one takes over", FAILOVER_S),
    Scene("cable", "a host with two uplinks: the cable of the one in use is pulled", FAILOVER_S),
    Scene("uplink", "the same, but behind its router, where the host does not see it", FAILOVER_S),
    Scene("allocation", "the same, and the other uplink lets UDP to relays only", FAILOVER_S),
)
