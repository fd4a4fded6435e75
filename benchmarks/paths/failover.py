"""How long nothing arrives when a path breaks: numbered datagrams, one each 20 ms, and the longest gap."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from benchmarks.paths.figures import Gap
from benchmarks.paths.newcomers import Kinds, Pair
from tests.support.reach_lab import to_relays_only
from warren.errors import OperationFailed
from warren.lab import Lab
from warren.lab.faults import drop

STREAM_S = 8.0
_BEFORE_S = 1.5
_PATIENCE_S = 45.0


def gaps(fault: str, rounds: int) -> Iterator[Gap]:
    """One of ``scenes.FAULTS``, ``rounds`` times, each with a member that has just joined. Raises OperationFailed."""
    punched = Kinds("port-restricted", "port-restricted", "direct")
    relayed = Kinds("symmetric", "symmetric", "relayed")
    with Lab(name="failover", seed=1) as lab:
        match fault:
            case "direct":
                pair = Pair(lab, punched)
                yield from _rounds(pair, fault, rounds, lambda: _black_hole(pair))
            case "relay":
                pair = Pair(lab, relayed, relays=2)
                yield from _rounds(pair, fault, rounds, lambda: _relay_gone(pair))
            case _:
                pair = Pair(lab, punched)
                second = pair.world.site("second", "port-restricted", "10.2.0.0/24")
                second.attach(pair.alice, interface="eth1", metric=1000)
                if fault == "allocation":
                    to_relays_only(second)
                yield from _rounds(pair, fault, rounds, lambda: _unplugged(pair, behind=fault != "cable"))


def _rounds(pair: Pair, fault: str, rounds: int, broken: Callable[[], AbstractContextManager[None]]) -> Iterator[Gap]:
    for number in range(1, rounds + 1):
        pair.join()
        pair.world.pings(pair.alice, pair.bob)
        pair.world.wait_path(pair.alice, pair.bob, pair.kinds.path, _PATIENCE_S)
        pair.bob.wait_for(lambda: (pair.seen_by_bob() or {}).get("path") == pair.kinds.path, _PATIENCE_S)
        time.sleep(2.0)  # both allocations, the path MTU and the second thoughts of both sides are done with
        yield _gap(pair, fault, number, broken)
        pair.leave()


def _gap(pair: Pair, fault: str, number: int, broken: Callable[[], AbstractContextManager[None]]) -> Gap:
    stream = pair.world.stream(pair.alice, pair.bob, STREAM_S)
    time.sleep(_BEFORE_S)
    began = time.monotonic()
    with broken():
        received = stream.result()
    gap = received.longest_gap_s(began)
    return Gap(fault, number, None if gap == float("inf") else gap, received.lost, received.sent)


@contextmanager
def _black_hole(pair: Pair) -> Iterator[None]:
    """Nothing gets from one site to the other, but everything to the relay."""
    far, router = pair.world.internet.address("homeb"), pair.home.router
    with drop(router, source=far), drop(router, destination=far):
        yield


@contextmanager
def _relay_gone(pair: Pair) -> Iterator[None]:
    """The host of the relay that Alice's packets take is cut off, without a word to anybody."""
    world = pair.world
    used = str(world.peer(pair.alice, pair.bob).get("relay", "")).partition("/")[0]
    if used not in world.internet.links:
        raise OperationFailed(f"the relay in use is none of ours: {used!r}")
    link = world.internet.links[used]
    link.down()
    try:
        yield
    finally:
        link.up()


@contextmanager
def _unplugged(pair: Pair, *, behind: bool) -> Iterator[None]:
    """The uplink that Bob sees Alice at is gone: at her host, or between its router and the Internet."""
    world = pair.world
    endpoint = str((pair.seen_by_bob() or {}).get("endpoint"))
    site = next((name for name in ("homea", "second") if world.internet.address(name) in endpoint), None)
    if site is None:
        raise OperationFailed(f"Alice is seen at {endpoint}, which is neither of her uplinks")
    if behind:
        link = world.internet.links[site]
        link.down()
        try:
            yield
        finally:
            link.up()
        return
    interface = "eth0" if site == "homea" else "eth1"
    pair.alice.ip(f"link set {interface} down")
    try:
        yield
    finally:
        pair.alice.ip(f"link set {interface} up")
        pair.alice.restore_routes()
