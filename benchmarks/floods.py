"""How much of a tunnel's speed is left while its port is flooded: ``python -m benchmarks.floods [ROUNDS]``.

Two lab hosts exchange one TCP flow through Warren while a third sends 20,000 packets a second at the receiver. The
control is the same flood at a port where nobody listens: what it costs is the machine's, which sender and receiver
share. Each kind's figure is the median over the rounds of flow during the flood divided by flow during the control.
"""

from __future__ import annotations

import random
import statistics
import struct
import sys

from tests.support.floods import PACKETS_PER_S, flood, forged_sources, initiations
from tests.support.packets import udp_packet
from tests.support.tunnels import TunnelEnd, warren_end
from warren.lab import Host, Lab, privilege
from warren.lab.traffic import tcp_transfer

VICTIM, FRIEND, ATTACKER, PORT = "10.9.0.1", "10.9.0.2", "10.9.0.66", 51820
INNER_VICTIM, INNER_FRIEND = "10.77.0.1", "10.77.0.2"
NOBODYS_PORT = 9
FLOOD_S = 6.0
FLOW_BYTES = 384 << 20


def main(rounds: int) -> None:
    """Measure and print a table."""
    privilege.ensure()
    with Lab("floods") as lab:
        victim, attacker = _stage(lab)
        kinds = _kinds(victim)
        shares: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(1, rounds + 1):
            control = _rate_during(lab.hosts["friend"], victim.host, attacker, kinds["control"])
            print(f"round {number}: {control / 1e9:.2f} Gbit/s beside the control")
            for kind, packets in kinds.items():
                rate = _rate_during(lab.hosts["friend"], victim.host, attacker, packets)
                shares[kind].append(rate / control)
        for kind, ratios in shares.items():
            print(f"{kind:42} {statistics.median(ratios):5.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


def _stage(lab: Lab) -> tuple[TunnelEnd, Host]:
    lan = lab.bridge("lan")
    for name, address in (("victim", VICTIM), ("friend", FRIEND), ("attacker", ATTACKER)):
        lab.attach(lab.host(name), lan, f"{address}/24")
    lab.hosts["victim"].ip(f"route add 198.18.0.0/15 via {ATTACKER}")
    victim = warren_end(lab.hosts["victim"], f"{INNER_VICTIM}/24")
    friend = warren_end(lab.hosts["friend"], f"{INNER_FRIEND}/24")
    victim.peer(friend)
    friend.peer(victim, "endpoint", f"{VICTIM}:{PORT}")
    if not friend.ping(INNER_VICTIM):
        raise SystemExit("the tunnel does not come up")
    return victim, lab.hosts["attacker"]


def _kinds(victim: TunnelEnd) -> dict[str, list[bytes]]:
    rng = random.Random(1)
    stranger = initiations(rng, 500, None)
    informed = initiations(rng, 500, victim.key.public_key().raw)
    data = [struct.pack("<IIQ", 4, rng.getrandbits(32), n) + rng.randbytes(1424) for n in range(500)]
    return {
        "control": forged_sources(rng, stranger, VICTIM, NOBODYS_PORT),
        "initiations, wrong mac1": forged_sources(rng, stranger, VICTIM, PORT),
        "initiations, right mac1": forged_sources(rng, informed, VICTIM, PORT),
        "data, unknown session": forged_sources(rng, data, VICTIM, PORT),
        "data, the live session": _forged_data(rng, victim),
    }


def _forged_data(rng: random.Random, victim: TunnelEnd) -> list[bytes]:
    """Data messages with the index of the friend's session, from the friend's address, that do not authenticate."""
    capture = victim.host.capture("eth0")
    victim.ping(INNER_FRIEND)
    capture.stop()
    to_victim = [
        frame for frame in capture.packets() if frame[42:46] == b"\4\0\0\0" and frame[30:34] == _packed(VICTIM)
    ]
    index = to_victim[0][46:50]
    messages = [b"\4\0\0\0" + index + struct.pack("<Q", 2**40 + n) + rng.randbytes(1424) for n in range(500)]
    return [udp_packet(FRIEND, VICTIM, message, (PORT, PORT)) for message in messages]


def _packed(address: str) -> bytes:
    return bytes(int(part) for part in address.split("."))


def _rate_during(sender: Host, receiver: Host, attacker: Host, packets: list[bytes]) -> float:
    """Bits per second of one flow that lies within the time of the flood."""
    flooding = attacker.begin(flood, VICTIM, packets, FLOOD_S)
    try:
        done = tcp_transfer(sender, receiver, INNER_VICTIM, FLOW_BYTES, verify=False)
        if flooding.result(FLOOD_S + 10) != int(PACKETS_PER_S * FLOOD_S) or done.seconds > FLOOD_S:
            raise SystemExit("the flow outlasted the flood: this machine is too slow for these figures")
    finally:
        flooding.cancel()
    return done.size * 8 / done.seconds


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
