"""What a node wants of its host in one network: from the documents, the time and the host's surroundings; pure.

=============  =================================================================================================
state          what is wanted
=============  =================================================================================================
``starting``   nothing: the node is no member yet, or the NetworkSpec has not come
``up``         addresses, routes, a peer for each live member that has published a key, the policy, names
``expired``    addresses and routes stay, so that traffic goes nowhere else; no peers, nothing comes in
``revoked``    nothing but a closed interface
=============  =================================================================================================

A member whose lease ended, or who is revoked, is no peer: what the engine has of it goes at once, sessions included.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Literal

import msgspec

from warren.identity.keys import PublicKey
from warren.l3.firewall import Own
from warren.linux.netlink_values import Address, Route
from warren.model.documents import NetworkSpec
from warren.model.netmap import Member, NetworkMap
from warren.model.policy import ResolvedRule, resolve
from warren.model.serving import service_addresses
from warren.model.tunnel import IPNetwork
from warren.paths.values import RemoteCandidate

State = Literal["starting", "up", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class Claim:
    """Addresses of this host that are somebody's already, and whose: a sentence names it."""

    network: IPNetwork
    owner: str


@dataclass(frozen=True, slots=True)
class WantedPeer:
    """Another member as the engine is to know it. ``key`` is its present WireGuard key."""

    node: bytes
    name: str
    key: PublicKey
    next_key: PublicKey | None
    allowed_ips: tuple[IPNetwork, ...]
    candidates: tuple[RemoteCandidate, ...] = ()
    nat: str = ""
    """What it says of its NAT."""
    own: tuple[IPNetwork, ...] = ()
    """Of ``allowed_ips`` those that are its own addresses, not routed through it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the network asks of this node now. ``claims`` are the prefixes that it takes on this host."""

    state: State
    addresses: tuple[Address, ...] = ()
    """The node's own."""
    service_addresses: tuple[Address, ...] = ()
    """Of the services that it is to serve; connections from this node never begin there by themselves."""
    routes: tuple[Route, ...] = ()
    peers: Mapping[bytes, WantedPeer] = field(default_factory=dict)
    """By node key."""
    own: Own = Own(())  # noqa: RUF009 - frozen
    rules: tuple[ResolvedRule, ...] | None = None
    """None: nothing may come in."""
    spec: NetworkSpec | None = None
    members: tuple[Member, ...] = ()
    """The live ones, for names, with the addresses that this node uses; empty: no names."""
    claims: tuple[IPNetwork, ...] = ()
    warnings: tuple[str, ...] = ()

    def of_host(self) -> tuple[object, ...]:
        """The part that the host is made to agree with."""
        return self.state, self.addresses, self.service_addresses, self.routes, self.own, self.rules


def wanted(
    documents: NetworkMap,
    node: bytes,
    now_s: float,
    interface: str,
    *,
    taken: Collection[Claim] = (),
    holders: Mapping[PublicKey, bytes] | None = None,
    own_keys: Collection[PublicKey] = (),
    refused: bool = False,
) -> Wanted:
    """``now_s``: network time. ``taken``: prefixes of other networks of this node and of the host's links. ``holders``:
    which member the engine knows by which key now. ``refused``: the coordinator says that this node is revoked.
    """
    spec, own = documents.spec, documents.member(node)
    if refused or documents.is_revoked(node):
        return Wanted("revoked", spec=spec)
    if spec is None or own is None:
        return Wanted("starting", spec=spec)
    warnings: list[str] = []
    live = sorted(documents.live_members(now_s), key=lambda member: member.prefix6)
    expired = not own.membership.holds_at(now_s)
    prefix6 = IPv6Network(spec.prefix6)
    prefix4 = _prefix4(spec, own, taken, warnings)
    others = () if expired else tuple(member for member in live if member.membership.node != node)
    routed = _routes(others, taken, (prefix6, prefix4), own.routes, warnings)
    addresses: list[Address] = [Address(interface, IPv6Interface((own.address6, 128)))]
    networks: list[IPNetwork] = [prefix6]
    if prefix4 is not None and own.address4 is not None:
        addresses.append(Address(interface, IPv4Interface((own.address4, 32))))
        networks.append(prefix4)
    served = tuple(service_addresses(spec.services, (own,)))
    behind = [network for routes in routed.values() for network in routes]
    return Wanted(
        state="expired" if expired else "up",
        addresses=tuple(addresses),
        service_addresses=tuple(Address(interface, IPv6Interface((ip, 128)), lasting=False) for ip in served),
        routes=tuple(Route(network, interface) for network in (*networks, *behind)),
        peers=_peers(others, routed, prefix4, holders or {}, own_keys, warnings),
        own=Own(
            (own.address6, *served),
            own.address4 if prefix4 is not None else None,
            own.routes,
            (prefix6,),
        ),
        rules=None if expired else resolve(spec, live),
        spec=spec if prefix4 is not None else msgspec.structs.replace(spec, prefix4=None),
        members=() if expired else tuple(live if prefix4 is not None else map(_without_ipv4, live)),
        claims=(*networks, *behind),
        warnings=tuple(warnings),
    )


def _without_ipv4(member: Member) -> Member:
    if member.address4 is None:
        return member
    return Member(msgspec.structs.replace(member.membership, address4=None), member.record)


def _prefix4(spec: NetworkSpec, own: Member, taken: Iterable[Claim], warnings: list[str]) -> IPv4Network | None:
    """The network's IPv4 block, unless this node has no part in it or has it in use elsewhere already."""
    if spec.prefix4 is None or own.address4 is None:
        return None
    prefix = IPv4Network(spec.prefix4)
    if own.address4 not in prefix:
        warnings.append(f"the address {own.address4} is not of {prefix}: IPv4 is left out")
        return None
    claim = _overlapping(prefix, taken)
    if claim is not None:
        warnings.append(
            f"IPv4 is left out: {prefix} overlaps {claim.network} of {claim.owner}; the members are reached by IPv6"
        )
        return None
    return prefix


def _routes(
    others: Sequence[Member],
    taken: Collection[Claim],
    prefixes: tuple[IPv6Network, IPv4Network | None],
    own_routes: tuple[IPNetwork, ...],
    warnings: list[str],
) -> dict[bytes, tuple[IPNetwork, ...]]:
    """The subnets behind each member that go through it; of two members with one subnet the first has it."""
    found: dict[bytes, tuple[IPNetwork, ...]] = {}
    given: dict[IPNetwork, str] = {}
    reserved = [
        *taken,
        *(Claim(network, "this network") for network in prefixes if network is not None),
        *(Claim(network, "the subnets behind this node") for network in own_routes),
    ]
    for member in others:
        usable = []
        for network in member.routes:
            if network.prefixlen == 0:
                warnings.append(f"{member.name} offers a default route, which this node does not take")
            elif network in given:
                warnings.append(f"{network} is offered by {given[network]} and {member.name}: {given[network]} has it")
            elif (claim := _overlapping(network, reserved)) is not None:
                warnings.append(
                    f"{network} behind {member.name} is left out: it overlaps {claim.network} of {claim.owner}"
                )
            else:
                given[network] = member.name
                usable.append(network)
        if usable:
            found[member.membership.node] = tuple(usable)
    return found


def _peers(
    others: Sequence[Member],
    routed: Mapping[bytes, tuple[IPNetwork, ...]],
    prefix4: IPv4Network | None,
    holders: Mapping[PublicKey, bytes],
    own_keys: Collection[PublicKey],
    warnings: list[str],
) -> dict[bytes, WantedPeer]:
    """A WireGuard key belongs to one member. Who claims the key of another is no peer: the one that had it keeps it,
    else the one that joined first (whose prefix is lower), which nobody can choose for himself.
    """
    owners = _owners(others, holders)
    found: dict[bytes, WantedPeer] = {}
    given: set[IPNetwork] = set()
    for member in others:
        key, node = member.wireguard_key, member.membership.node
        if key is None or key.is_zero:
            continue
        if key in own_keys:
            warnings.append(f"{member.name} claims the WireGuard key of this node, and is no peer")
            continue
        if owners[key] != node:
            warnings.append(f"{member.name} claims the WireGuard key of another member, and is no peer")
            continue
        after = member.next_wireguard_key
        if after is not None and (after in own_keys or after.is_zero or owners[after] != node):
            after = None
        allowed: list[IPNetwork] = [member.prefix6]
        if prefix4 is not None and member.address4 is not None and member.address4 in prefix4:
            allowed.append(_alone(member.address4))
        own = tuple(network for network in allowed if network not in given)
        allowed = [network for network in (*allowed, *routed.get(node, ())) if network not in given]
        given.update(allowed)
        nat = "" if member.record is None else member.record.nat
        found[node] = WantedPeer(node, member.name, key, after, tuple(allowed), _candidates(member), nat, own)
    return found


def _candidates(member: Member) -> tuple[RemoteCandidate, ...]:
    kinds = () if member.record is None else (candidate.kind for candidate in member.record.candidates)
    return tuple(RemoteCandidate(kind, address) for kind, address in zip(kinds, member.candidates, strict=True))


@lru_cache(maxsize=1 << 16)
def _alone(address: IPv4Address) -> IPv4Network:
    return IPv4Network(address)


def _owners(others: Sequence[Member], holders: Mapping[PublicKey, bytes]) -> dict[PublicKey, bytes]:
    """Whose each key is. Announcing a key that somebody uses already takes it from nobody."""
    owners: dict[PublicKey, bytes] = {}
    for member in others:
        if member.wireguard_key is not None:
            owners.setdefault(member.wireguard_key, member.membership.node)
    for member in others:
        if member.next_wireguard_key is not None:
            owners.setdefault(member.next_wireguard_key, member.membership.node)
    for member in others:
        for key in (member.wireguard_key, member.next_wireguard_key):
            if key is not None and holders.get(key) == member.membership.node:
                owners[key] = member.membership.node
    return owners


def _overlapping(network: IPNetwork, claims: Iterable[Claim]) -> Claim | None:
    return next(
        (claim for claim in claims if claim.network.version == network.version and claim.network.overlaps(network)),
        None,
    )
