"""What the demonstration breaks, and what goes on all the same."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from signal import SIGKILL
from typing import Final

from warren.errors import OperationFailed
from warren.lab.demo.network_world import PATIENCE_S, World, answers, until, way
from warren.lab.demo.step import Step
from warren.lab.demo.story import receive_paced, send_paced
from warren.lab.host import Host
from warren.lab.network import Network

_PINGS: Final = 100


def relay_dies(world: World) -> Step:
    """Whichever relay carol and bob use is cut off in the middle of a transfer."""
    network, carol, bob = world.network, world.carol, world.bob
    before = network.peer(carol, bob)
    relay = "dc2" if str(before["relay"]).partition("/")[0] == "dc2" else "dc1"  # of dc2/tls, the server
    kill = partial(_kill_relays, network, world.dc2 if relay == "dc2" else world.dc1)
    gap_s, intact = _transfer_while(carol, bob, network.address(bob), kill)
    after = network.peer(carol, bob)
    if not intact:
        raise OperationFailed("the transfer did not survive the death of the relay")
    return Step(
        "The relay is killed in the middle of a transfer",
        (
            f"carol → bob {way(before)}; {relay}$ kill -9 (the relay)",
            f"carol → bob {way(after)}: every byte arrived, the longest pause was {gap_s:.1f} s",
        ),
        {"pause_s": round(gap_s, 3)},
    )


def uplink_dies(world: World) -> Step:
    """Alice's best uplink is unplugged in the middle of a transfer; she has another one."""
    network, alice, bob = world.network, world.alice, world.bob
    before = network.peer(bob, alice)
    link = world.internet.sites["home1"].link
    gap_s, intact = _transfer_while(alice, bob, network.address(bob), link.down)
    after = network.peer(bob, alice)
    link.up()
    if not intact:
        raise OperationFailed("the transfer did not survive the loss of an uplink")
    return Step(
        "An uplink is unplugged in the middle of a transfer",
        (
            f"alice → bob, alice is at {before['endpoint']}; the cable of home1 is pulled",
            f"alice → bob, alice is at {after['endpoint']}: every byte arrived, the longest pause was {gap_s:.1f} s",
        ),
        {"pause_s": round(gap_s, 3)},
    )


def without_coordinator(network: Network, alice: Host, bob: Host) -> Step:
    if network.coordinator is None:
        raise OperationFailed("there is no coordinator to kill")
    to_bob = network.address(bob)
    # With the coordinator its relay ends: what is direct goes on.
    busy = alice.start(["ping", "-n", "-q", "-i", "0.2", to_bob], name="busy")
    until(alice, lambda: network.peer(alice, bob)["path"] == "direct", "a direct path to bob")
    busy.stop(PATIENCE_S)
    # ping waits for its last answer no longer than for the others: those that count are not the last.
    pings = alice.start(["ping", "-n", "-i", "0.05", "-c", str(_PINGS + 20), to_bob], name="pings")
    network.coordinator.signal(SIGKILL)
    network.coordinator.wait(PATIENCE_S)
    pings.wait(PATIENCE_S)
    answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) .*time=", pings.output())}
    if not answered.issuperset(range(1, _PINGS + 1)):
        raise OperationFailed("pings were lost when the coordinator was killed")
    network.nodes["bob"].process.stop(PATIENCE_S)
    started = time.monotonic()
    network.up(bob)
    until(alice, partial(answers, alice, to_bob), "bob")
    seconds = time.monotonic() - started
    return Step(
        "The coordinator is killed",
        (
            f"dc1$ kill -9 (the coordinator)    {_PINGS} pings from alice to bob meanwhile: 0 lost",
            f"bob$ warren up                    restarted without it, answers after {seconds:.1f} s",
        ),
        {"pings_lost": 0, "restart_seconds": round(seconds, 3)},
    )


def _transfer_while(sender: Host, receiver: Host, address: str, fault: Callable[[], object]) -> tuple[float, bool]:
    """A TCP transfer in the middle of which ``fault`` happens: the longest pause of it, and whether all arrived."""
    receiving = receiver.begin(receive_paced, address)
    sending = sender.begin(send_paced, address)
    time.sleep(1.5)
    fault()
    sent = sending.result(PATIENCE_S)
    received, gap_s = receiving.result(PATIENCE_S)
    return gap_s, received == sent


def _kill_relays(network: Network, host: Host) -> None:
    """Whatever relays on ``host``."""
    for pid in network.relay_pids(host):
        host.run(["kill", "-9", str(pid)], check=False)
