"""How a peer is, from counters."""

from __future__ import annotations

from ipaddress import ip_address

from tests.unit.tunnel.fakes import public_key
from warren.agent.network.watch import HANDSHAKE_S, SESSION_S, SILENCE_S, PeerWatch
from warren.model.tunnel import PeerStatus, TransportAddress

NS = 10**9
WALL_NS = 1_700_000_000 * NS
PLACE = TransportAddress(ip_address("192.0.2.1"), 1)


def status(tx: int = 0, rx: int = 0, handshake_s: float | None = None, endpoint: bool = True) -> PeerStatus:
    """``handshake_s`` ago."""
    at = 0 if handshake_s is None else WALL_NS - int(handshake_s * NS)
    return PeerStatus(public_key("1"), None, PLACE if endpoint else None, (), 0, at, tx, rx)


def state(watch: PeerWatch, now: float, *, announced: bool = True, lost: bool = False) -> str:
    return watch.state(now, announced=announced, lost=lost)


def test_a_peer_nobody_talks_to_is_idle_or_unknown() -> None:
    watch = PeerWatch()
    assert state(watch, 0.0) == "idle"
    assert state(watch, 0.0, announced=False) == "unknown"
    watch.observe(status(endpoint=False), WALL_NS, 0.0)
    assert state(watch, 0.0, announced=False) == "unknown"


def test_a_living_session_is_a_connection_until_it_is_too_old() -> None:
    watch = PeerWatch()
    watch.observe(status(handshake_s=SESSION_S - 1), WALL_NS, 0.0)
    assert (state(watch, 0.0), watch.alive) == ("connected", True)
    watch.observe(status(handshake_s=SESSION_S + 1), WALL_NS, 2.0)
    assert (state(watch, 2.0), watch.alive) == ("idle", False)


def test_a_peer_without_a_path_that_is_wanted_is_unreachable_at_once() -> None:
    watch = PeerWatch()
    watch.observe(status(handshake_s=1.0), WALL_NS, 0.0)
    assert state(watch, 0.0, lost=True) == "unreachable"


def test_handshakes_that_are_not_answered_make_a_peer_unreachable() -> None:
    watch = PeerWatch()
    watch.observe(status(), WALL_NS, 0.0)
    watch.observe(status(tx=148), WALL_NS, 1.0)
    assert state(watch, 1.0 + HANDSHAKE_S - 0.1) == "idle"
    assert state(watch, 1.0 + HANDSHAKE_S) == "unreachable"
    watch.observe(status(tx=296, rx=92, handshake_s=0.0), WALL_NS, 8.0)
    assert state(watch, 8.0) == "connected"


def test_a_session_is_given_as_long_as_wireguard_gives_it() -> None:
    watch = PeerWatch()
    watch.observe(status(tx=0, handshake_s=10), WALL_NS, 0.0)
    watch.observe(status(tx=5000, handshake_s=11), WALL_NS, 1.0)
    assert state(watch, SILENCE_S) == "connected"
    assert state(watch, SILENCE_S + 1) == "unreachable"


def test_a_keepalive_asks_for_no_answer() -> None:
    watch = PeerWatch()
    watch.observe(status(tx=0, handshake_s=10), WALL_NS, 0.0)
    watch.observe(status(tx=32, handshake_s=11), WALL_NS, 1.0)
    assert state(watch, 100.0) == "connected"
