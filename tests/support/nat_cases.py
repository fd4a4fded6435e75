"""Pairs of situations drawn from a seed, built in the virtual Internet, and played: is the oracle right?"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from tests.support.nat_nodes import PathNode, RelayServer
from tests.support.nat_world import Link, Network, World
from warren.model.tunnel import IPAddress
from warren.paths.nat import (
    ADDRESS_RESTRICTED,
    FIREWALLED,
    FULL_CONE,
    OPEN,
    PORT_RESTRICTED,
    Behaviour,
    Filtering,
    Situation,
    Verdict,
    behaviour_from_text_untrusted,
    behind,
    verdict,
)
from warren.paths.values import Surroundings

MAPPINGS = ("eim", "adm", "apdm")
FILTERINGS: tuple[Filtering, ...] = ("eif", "adf", "apdf")
ALLOCATIONS = ("preserving", "sequential", "random")
BEHAVIOURS = [
    behaviour_from_text_untrusted(",".join(words)) for words in itertools.product(MAPPINGS, FILTERINGS, ALLOCATIONS)
]
"""All 27 NATs of RFC 4787."""
CARRIERS = (FULL_CONE, ADDRESS_RESTRICTED, PORT_RESTRICTED, *BEHAVIOURS[-3:])
PLACES = ("homes", "homes", "homes", "homes", "dual stack", "one LAN", "one NAT", "CGN", "one CGN", "NAT64", "no UDP")
WAIT_S = {"open": 15, "lan": 15, "punched": 15, "predicted": 45, "birthday": 240}
"""How long a direct path may take under loss; a birthday has three attempts."""
NO_DIRECT_S = 40.0


@dataclass(frozen=True)
class Played:
    seed: int
    place: str
    sides: tuple[str, str]
    verdict: Verdict
    direct: bool
    first_s: float | None
    """Until both sides could send to each other at all,"""
    direct_s: float | None
    """and directly."""
    packets: int
    """Of checks and everything, until then."""
    wrong: str
    """What was not as it must be, or nothing."""

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.place}: {self.sides[0]} | {self.sides[1]}: {self.verdict.by}: {self.wrong}"


@dataclass
class Pair:
    world: World
    place: str
    a: PathNode
    b: PathNode
    situations: tuple[Situation, Situation]


def build(seed: int) -> Pair:
    """The pair of a seed."""
    world = World(seed)
    relays = tuple(RelayServer(world, f"relay{number}") for number in range(world.chance.choice((1, 1, 2))))
    place = world.chance.choice(PLACES)
    build_place = {
        "homes": homes,
        "dual stack": dual_stack,
        "one LAN": one_lan,
        "one NAT": one_nat,
        "CGN": cgn,
        "one CGN": one_cgn,
        "NAT64": nat64,
        "no UDP": no_udp,
    }[place]
    a, b, situations = build_place(world, relays)
    if world.chance.random() < 0.5:
        a, b, situations = b, a, (situations[1], situations[0])
    return Pair(world, place, a, b, situations)


def play(seed: int) -> Played:
    """Let the two look for each other, and compare with the oracle."""
    pair = build(seed)
    world, a, b = pair.world, pair.a, pair.b
    expected = verdict(*pair.situations)
    a.meet(b)
    world.run(world.now + world.chance.uniform(0.1, 3.0))
    began, packets = world.now, world.packets
    a.talk(b, every_s=0.5)
    ours, theirs = a.count[b.key], b.count[a.key]

    def both() -> bool:
        return ours.direct_at is not None and theirs.direct_at is not None

    direct = expected.direct and expected.by != "tcp"
    found = world.run(began + (WAIT_S[expected.by] if direct else NO_DIRECT_S), both)
    packets = world.packets - packets
    world.run(world.now + 2.0)
    first = None
    if ours.first_at is not None and theirs.first_at is not None:
        first = max(ours.first_at, theirs.first_at) - began
    direct_s = max(ours.direct_at or 0.0, theirs.direct_at or 0.0) - began if both() else None
    wrong = ""
    if found != direct:
        wrong = "no direct path" if direct else "a direct path that cannot be"
    elif expected.by == "none":
        wrong = "a path that cannot be" if ours.first_at is not None else ""
    elif ours.first_at is None or theirs.first_at is None:
        wrong = "no path at all"
    elif not theirs.came:
        wrong = "nothing arrived"
    elif direct and any(path is None or path.relayed for path in (a.selected[b.key], b.selected[a.key])):
        wrong = "the direct path did not last"
    elif a.sockets or b.sockets:
        kept = {path.base.socket for path in (a.selected[b.key], b.selected[a.key]) if path is not None}
        wrong = "" if (set(a.sockets) | set(b.sockets)) <= kept else "sockets were left over"
    sides = str(pair.situations[0]), str(pair.situations[1])
    return Played(seed, pair.place, sides, expected, found, first, direct_s, packets, wrong)


# The places


def link(world: World) -> Link:
    """An uplink: 2 to 80 ms; three of ten lose packets or are uneven."""
    chance = world.chance
    drawn = Link(latency_s=chance.uniform(0.002, 0.08))
    if chance.random() < 0.15:
        drawn.loss = chance.choice((0.01, 0.05))
    if chance.random() < 0.15:
        drawn.jitter_s = drawn.latency_s * 0.8
    return drawn


def behaviour(world: World) -> Behaviour:
    """The common ones as often as all the others."""
    chance = world.chance
    if chance.random() < 0.5:
        return chance.choice(
            (OPEN, FIREWALLED, Behaviour(), Behaviour(filtering="adf"), PORT_RESTRICTED, *BEHAVIOURS[-3:])
        )
    return replace(chance.choice(BEHAVIOURS), hairpin=chance.random() < 0.5)


def _node(
    world: World,
    name: str,
    network: Network,
    address: str,
    situation: Situation,
    relays: tuple[RelayServer, ...],
    port: int,
) -> PathNode:
    return PathNode(world, name, [(network, IPv4Address(address))], situation=situation, relays=relays, port=port)


Places = tuple[PathNode, PathNode, tuple[Situation, Situation]]


def _home_address(world: World, one: Behaviour) -> IPAddress:
    if not one.translated:
        return world.address4()
    return IPv4Address(f"192.168.{world.chance.choice((0, 1, 1))}.{world.chance.randrange(2, 250)}")


def _decoy(world: World, network: Network, address: IPAddress) -> None:
    """Somebody else with that address: it hears and says nothing."""
    if address not in network.hosts and address in IPv4Network("192.168.0.0/16"):
        network.hosts[address] = lambda packet: None


def homes(world: World, relays: tuple[RelayServer, ...]) -> Places:
    """Two homes; private ranges overlap, and in each a stranger has the address that the other node has in its own."""
    made = []
    for name in "ab":
        one = behaviour(world)
        site = world.site(v4=one, link=link(world))
        address = _home_address(world, one)
        situation = Situation(v4=one)
        made.append((PathNode(world, name, [(site, address)], situation=situation, relays=relays), site, situation))
    (a, site_a, situation_a), (b, site_b, situation_b) = made
    _decoy(world, site_a, b.uplinks[0].address)
    _decoy(world, site_b, a.uplinks[0].address)
    return a, b, (situation_a, situation_b)


def dual_stack(world: World, relays: tuple[RelayServer, ...]) -> Places:
    """IPv4 behind any NAT, and IPv6 open, firewalled or missing."""
    made = []
    for name in "ab":
        one, six = behaviour(world), world.chance.choice((OPEN, FIREWALLED, FIREWALLED, None))
        site = world.site(v4=one, v6=six, link=link(world))
        uplinks: list[tuple[Network, IPAddress]] = [(site, _home_address(world, one))]
        if six is not None:
            uplinks.append((site, world.address6()))
        situation = Situation(v4=one, v6=six)
        made.append((PathNode(world, name, uplinks, situation=situation, relays=relays), situation))
    (a, situation_a), (b, situation_b) = made
    return a, b, (situation_a, situation_b)


def one_lan(world: World, relays: tuple[RelayServer, ...]) -> Places:
    one = behaviour(world)
    site = world.site(v4=one, link=link(world))
    lan = IPv4Network("192.168.1.0/24")
    situation = Situation(v4=one, lans=frozenset({"home"}), outside4="1")
    around = Surroundings(on_link=(lan,))
    a, b = (
        PathNode(
            world, name, [(site, IPv4Address(f"192.168.1.{n}"))], situation=situation, relays=relays, around=around
        )
        for name, n in (("a", 5), ("b", 6))
    )
    if not one.translated:
        situation = replace(situation, v4=one)
    return a, b, (situation, situation)


def one_nat(world: World, relays: tuple[RelayServer, ...]) -> Places:
    """Two networks behind one NAT that are not routed to each other, with and without hairpin."""
    one = behaviour(world)
    while not one.translated:
        one = behaviour(world)
    outer = world.site(v4=one, link=link(world))
    situation = Situation(v4=one, outside4="1")
    inner = Behaviour(filtering="apdf")
    made = []
    for name, n in (("a", 5), ("b", 6)):
        behind_it = world.site(v4=inner, above=outer, link=Link(0.001), outside=IPv4Address(f"10.0.0.{n}"))
        made.append(
            PathNode(
                world,
                name,
                [(behind_it, IPv4Address("192.168.1.5"))],
                situation=situation,
                relays=relays,
                port=5000 + n,
            )
        )
    whole = replace(situation, v4=behind(inner, one))
    for node in made:
        node.nat = str(whole)
    return made[0], made[1], (whole, whole)


def cgn(world: World, relays: tuple[RelayServer, ...]) -> Places:
    """A home behind a carrier's NAT, and another home."""
    home, carrier = Behaviour(filtering=world.chance.choice(FILTERINGS)), world.chance.choice(CARRIERS)
    other = behaviour(world)
    outer = world.site(v4=carrier, link=link(world))
    inner = world.site(v4=home, above=outer, link=Link(0.001), outside=IPv4Address("100.64.0.9"))
    situation_a, situation_b = Situation(v4=behind(home, carrier)), Situation(v4=other)
    a = PathNode(world, "a", [(inner, IPv4Address("192.168.1.5"))], situation=situation_a, relays=relays)
    site = world.site(v4=other, link=link(world))
    b = PathNode(world, "b", [(site, _home_address(world, other))], situation=situation_b, relays=relays)
    return a, b, (situation_a, situation_b)


def one_cgn(world: World, relays: tuple[RelayServer, ...]) -> Places:
    """Two homes behind one carrier's NAT that hairpins or not, with the same private addresses."""
    carrier = world.chance.choice((Behaviour(), Behaviour(filtering="apdf"), Behaviour(hairpin=True)))
    carrier = replace(carrier, hairpin=world.chance.random() < 0.5)
    outer = world.site(v4=carrier, link=link(world))
    made = []
    for name, n in (("a", 5), ("b", 6)):
        home = Behaviour(filtering=world.chance.choice(FILTERINGS))
        inner = world.site(v4=home, above=outer, link=Link(0.001), outside=IPv4Address(f"100.64.0.{n}"))
        situation = Situation(v4=behind(home, carrier), outside4="1")
        node = _node(world, name, inner, "192.168.1.7", situation, relays, port=5000 + n)
        made.append((node, situation))
    (a, situation_a), (b, situation_b) = made
    return a, b, (situation_a, situation_b)


def nat64(world: World, relays: tuple[RelayServer, ...]) -> Places:
    """A node of an IPv6-only network with a NAT64, and a home of IPv4 or both."""
    prefix = IPv6Network("2001:db8:64::/96")
    translator = behaviour(world)
    while not translator.translated:
        translator = behaviour(world)
    site = world.translating_site(translator, prefix, v6=FIREWALLED, link=link(world))
    situation_a = Situation(v4=translator, v6=FIREWALLED, nat64=True)
    around = Surroundings(nat64=prefix)
    a = PathNode(world, "a", [(site, world.address6())], situation=situation_a, relays=relays, around=around)
    other = behaviour(world)
    six = world.chance.choice((None, None, FIREWALLED))
    home = world.site(v4=other, v6=six, link=link(world))
    uplinks: list[tuple[Network, IPAddress]] = [(home, _home_address(world, other))]
    if six is not None:
        uplinks.append((home, world.address6()))
    situation_b = Situation(v4=other, v6=six)
    b = PathNode(world, "b", uplinks, situation=situation_b, relays=relays)
    return a, b, (situation_a, situation_b)


def no_udp(world: World, relays: tuple[RelayServer, ...]) -> Places:
    """UDP is blocked on one side or on both, and there is a relay over TCP, or none."""
    made = []
    both = world.chance.random() < 0.5
    for name in "ab":
        one = behaviour(world)
        blocked = name == "a" or both
        relay = world.chance.random() < 0.8
        uplink = link(world)
        uplink.blocked_out = uplink.blocked_in = blocked
        site = world.site(v4=one, link=uplink)
        situation = Situation(v4=one, udp=not blocked, tcp=False, relay=relay)
        node = PathNode(
            world,
            name,
            [(site, _home_address(world, one))],
            situation=situation,
            relays=relays if relay else (),
            stun=relays,
        )
        made.append((node, situation))
    (a, situation_a), (b, situation_b) = made
    return a, b, (situation_a, situation_b)
