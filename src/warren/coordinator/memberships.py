"""Members as rows and as signed documents: the lease, the place, and what is told of them.

The functions here run inside somebody's transaction; each keeps the row of a member, its Membership on the map and
its place in step.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Final

import msgspec

from warren.coordinator.conditions import at_most, equal
from warren.coordinator.core import Core
from warren.coordinator.problems import Problem
from warren.coordinator.rows import DocumentRow, KeyRow, MemberRow, NetworkRow, PlaceRow, ReportRow, SessionRow
from warren.coordinator.work import LIVE, Work
from warren.model.addresses import AddressPlan
from warren.model.documents import Membership
from warren.model.verified import sign

BACKDATED_S: Final = 300
"""How long before it is signed a lease begins, for members whose clocks are behind."""
RENEW_FROM, RENEW_UNTIL = 0.4, 0.7
"""The part of a lease after which it is renewed; where in between is up to chance, so that those who joined together
do not renew together.
"""
NAME_STEM_MAX, NAME_NUMBER_MAX = 56, 200_000
NAME_HINTS_MAX: Final = 10_000


def plan_of(network: NetworkRow) -> AddressPlan:
    prefix4 = None if network.prefix4 is None else IPv4Network(network.prefix4)
    return AddressPlan(IPv6Network(network.prefix6), prefix4)


async def write_membership(work: Work, core: Core, member: MemberRow) -> MemberRow:
    """Sign a new lease for the member as ``member`` says, and keep both. The row as it was written."""
    network = await work.known_network(member.network)
    begins = max(int(work.now), 0)
    ends = begins + network.lease_s
    share = RENEW_FROM + (RENEW_UNTIL - RENEW_FROM) * int.from_bytes(core.random(4)) / 2**32
    version = await work.next_version(network.key, Membership, member.node)
    document = Membership(
        network=network.key,
        version=version,
        node=member.node,
        name=member.name,
        prefix6=str(plan_of(network).prefix(member.slot)),
        address4=member.address4,
        tags=member.tags,
        routes=member.routes,
        ephemeral=member.ephemeral,
        not_before=max(begins - BACKDATED_S, 0),
        not_after=ends,
    )
    member = msgspec.structs.replace(
        member,
        version=version,
        lease_ends=float(ends),
        lease_last=max(member.lease_last, float(ends)),
        renew_at=begins + network.lease_s * share,
    )
    await work.put(member)
    await work.publish(sign(document, core.authority(network)))
    return member


async def take_place(work: Work, core: Core, network: NetworkRow, node: bytes, wanted: str) -> PlaceRow:
    """A place and a name for a new member: its former ones when they rest still, else the lowest that nobody has or
    had lately. Problem ``no-address`` when there is none.
    """
    own = await work.one(PlaceRow, equal("network", network.key), equal("node", node))
    if own is not None:
        place = own
    else:
        rested = await work.find(
            PlaceRow, equal("network", network.key), at_most("free_at", work.now), order="slot", limit=1
        )
        if rested:
            place = rested[0]
        elif network.next_slot <= plan_of(network).index_max:
            place = PlaceRow(network=network.key, slot=network.next_slot, node=node, name="", free_at=None)
            work.change(msgspec.structs.replace(network, next_slot=network.next_slot + 1))
        else:
            raise Problem(
                "no-address",
                f"all {plan_of(network).index_max} addresses are taken, or rest after their last use",
                "Remove members that are gone, or make a network with a larger IPv4 block.",
            )
    name = await free_name(work, core, network.key, node, wanted)
    place = msgspec.structs.replace(place, node=node, name=name, free_at=None)
    await work.put(place)
    return place


async def free_name(work: Work, core: Core, network: bytes, node: bytes, wanted: str) -> str:
    """``wanted``, with a number behind it when another member has it or had it lately: policies speak of names, so
    a name is not handed on at once. Problem ``name-taken`` when a few numbers are taken too.
    """
    if await is_free_name(work, network, node, wanted):
        return wanted
    stem = wanted[:NAME_STEM_MAX].rstrip("-")
    # The low number is taken; look for where they end, in steps that double, then between.
    low = core.names.get((network, stem), 1)
    high = low + 1
    while high <= NAME_NUMBER_MAX and not await is_free_name(work, network, node, f"{stem}-{high}"):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if await is_free_name(work, network, node, f"{stem}-{middle}"):
            high = middle
        else:
            low = middle
    if high > NAME_NUMBER_MAX:
        raise Problem("name-taken", f"{wanted} and many numbers after it are taken", "Choose another with --name.")
    core.names[network, stem] = high
    if len(core.names) > NAME_HINTS_MAX:
        core.names.clear()
    return f"{stem}-{high}"


async def is_free_name(work: Work, network: bytes, node: bytes, name: str) -> bool:
    holders = await work.find(PlaceRow, equal("network", network), equal("name", name))
    return not any(row.node != node and (row.free_at is None or row.free_at > work.now) for row in holders)


async def remove(work: Work, core: Core, member: MemberRow) -> None:
    """Take the member from the map; its place rests. Whoever calls it writes the event."""
    await work.withdraw(member.network, member.node)
    await work.delete(MemberRow, equal("network", member.network), equal("node", member.node))
    for row in (SessionRow, ReportRow, KeyRow):
        await work.delete(row, equal("network", member.network), equal("node", member.node))
    free_at = max(work.now + core.options.quarantine_s, member.lease_last)
    place = await work.get(PlaceRow, member.network, member.slot)
    if place is not None:
        await work.put(msgspec.structs.replace(place, name=member.name, free_at=free_at))


async def documents(work: Work, network: bytes, kind: str) -> dict[bytes, DocumentRow]:
    """The documents of ``kind`` on the map, by subject."""
    rows = await work.find(DocumentRow, equal("network", network), equal("kind", kind), LIVE)
    return {row.subject: row for row in rows}
