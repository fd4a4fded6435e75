"""Which relays this node may use: those of the NetworkSpec, and members that relay for others. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from warren.identity.signing import VerifyKey
from warren.model.documents import NetworkSpec
from warren.model.netmap import Member
from warren.proto.control.messages import RelayCredential
from warren.proto.turn.credentials import member_password
from warren.reach.relay_values import RelayPlace

MEMBERS_MAX: Final = 8
"""Members that are asked whether they relay; two are used."""
_HOSTS_MAX: Final = 8


def relay_places(
    spec: NetworkSpec,
    members: Iterable[Member],
    node: VerifyKey,
    credentials: Mapping[str, RelayCredential],
    check_key: Callable[[Member], bytes | None],
) -> tuple[RelayPlace, ...]:
    """``node`` is this one, ``members`` the live ones, ``check_key`` the secret that this node shares with one.

    A member counts when the NetworkSpec selects it and it offers itself.
    """
    return (*_of_spec(spec, credentials), *_of_members(spec, members, node, check_key))


def _of_spec(spec: NetworkSpec, credentials: Mapping[str, RelayCredential]) -> Iterator[RelayPlace]:
    for relay in spec.relays:
        held = credentials.get(relay.name)
        yield RelayPlace(
            name=relay.name,
            hosts=relay.hosts,
            udp_port=relay.udp_port,
            tcp_port=relay.tcp_port,
            tls_port=relay.tls_port,
            certificate_sha256=relay.certificate_sha256,
            username="" if held is None else held.username,
            password="" if held is None else held.password,
        )


def _of_members(
    spec: NetworkSpec, members: Iterable[Member], node: VerifyKey, check_key: Callable[[Member], bytes | None]
) -> Iterator[RelayPlace]:
    count = 0
    taken = {relay.name for relay in spec.relays}
    for member in members:
        offer = None if member.record is None else member.record.relay
        if offer is None or member.key == node or not may_relay(spec, member) or count >= MEMBERS_MAX:
            continue
        hosts = _hosts(member)
        key = check_key(member) if hosts else None
        if key is None:
            continue
        count += 1
        yield RelayPlace(
            name=member.name if member.name not in taken else f"{member.name} (a member)",
            hosts=hosts,
            udp_port=offer.udp_port,
            tls_port=offer.tls_port,
            certificate_sha256=offer.certificate_sha256,
            username=str(node),
            password=member_password(key),
        )


def may_relay(spec: NetworkSpec, member: Member) -> bool:
    """Whether the NetworkSpec lets that member relay for others."""
    selectors = {"members", f"member:{member.name}", *(f"tag:{tag}" for tag in member.tags)}
    return not selectors.isdisjoint(spec.relay_members)


def _hosts(member: Member) -> tuple[str, ...]:
    """Where a relay of that member may answer: where the operator says it is, and at its own addresses."""
    candidates = () if member.record is None else member.record.candidates
    return tuple(dict.fromkeys(one.address for one in candidates if one.kind in {"stated", "host"}))[:_HOSTS_MAX]
