"""Networks and their desired state: made, shown, planned, applied."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Network
from typing import Final

import msgspec

from warren.coordinator.conditions import above, equal
from warren.coordinator.core import Core
from warren.coordinator.memberships import write_membership
from warren.coordinator.network_rows import (
    coordinators,
    members_of,
    next_network_version,
    shown_network,
    spec_of,
    tags_to_come_of,
    tests_of,
)
from warren.coordinator.problems import Problem
from warren.coordinator.relay_rows import relay_of, relays_for
from warren.coordinator.rows import MemberRow, NetworkRow
from warren.coordinator.state_problems import first_problem
from warren.coordinator.work import Work, may_see
from warren.identity.signing import SigningKey
from warren.model.addresses import check_prefix4, ula_prefix
from warren.model.documents import NetworkSpec
from warren.model.parts import canonical_network
from warren.model.policy import DEFAULT_POLICY
from warren.model.verified import sign
from warren.proto.control import desired
from warren.proto.control.administration import Actor, Network, NetworkRequest
from warren.proto.control.desired_state import ApplyRequest, DesiredState, Plan
from warren.proto.control.desired_state import Problem as KeyProblem

NETWORKS_MAX: Final = 1024
"""Each has a key in memory and is asked for its revision every few seconds."""


class Networks:
    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(self, actor: Actor, request: NetworkRequest) -> Network:
        """Problem ``conflict`` when the name is taken, ``invalid`` for an IPv4 block that cannot be."""
        check_block(request.prefix4)
        seed = self._core.random(32)

        async def operation(work: Work) -> Network:
            await work.authorise(actor)
            if actor.network is not None:
                raise Problem("forbidden", "the token is for one network", "Use one that is for all.")
            if await work.one(NetworkRow, equal("name", request.name)) is not None:
                raise Problem("conflict", f"there is a network {request.name}", "Choose another name.")
            if await work.count(NetworkRow) >= NETWORKS_MAX:
                raise Problem("limit", f"there are {NETWORKS_MAX} networks", "Run another coordinator for more.")
            key = SigningKey(seed)
            row = NetworkRow(
                key=key.verify_key.raw,
                name=request.name,
                seed=seed,
                prefix6=str(ula_prefix(key.verify_key)),
                prefix4=request.prefix4,
                suffix=request.suffix,
                lease_s=request.lease_s,
                version=max(int(work.now), 1),
                revision=0,
                horizon=0,
                next_slot=1,
                tests=b"[]",
                created=work.now,
            )
            await work.put(row)
            work.change(row)
            spec = NetworkSpec(
                network=row.key,
                version=row.version,
                name=row.name,
                prefix6=row.prefix6,
                prefix4=row.prefix4,
                suffix=row.suffix,
                policy=DEFAULT_POLICY,
                coordinators=await coordinators(work, self._core),
                relays=tuple(relay_of(one) for one in await relays_for(work, None)),
                lease_s=row.lease_s,
            )
            await work.publish(sign(spec, key))
            work.event(actor.name, "network.create", row.key, row.name, f"{row.prefix6} {row.prefix4 or ''}".strip())
            return await shown_network(work, await work.known_network(row.key))

        return await self._core.write(operation)

    async def list(self, actor: Actor) -> tuple[Network, ...]:
        async with self._core.read() as work:
            rows = await work.find(NetworkRow, order="name")
            return tuple([await shown_network(work, row) for row in rows if may_see(actor, row.key)])

    async def get(self, actor: Actor, ref: str) -> Network:
        """By name or key. Problem ``not-found``."""
        async with self._core.read() as work:
            return await shown_network(work, await work.network_for(actor, ref))

    async def desired_state(self, actor: Actor, ref: str) -> DesiredState:
        """What holds now, with everything spelled out: planning it changes nothing."""
        async with self._core.read() as work:
            network = await work.network_for(actor, ref)
            return desired.state_of(
                await spec_of(work, network.key), await members_of(work, network.key), tests_of(network)
            )

    async def plan(self, actor: Actor, ref: str, wanted: DesiredState) -> Plan:
        """What an apply would do now. What is wrong is in its problems; nothing is written."""
        async with self._core.read() as work:
            network = await work.network_for(actor, ref)
            planned, _ = await _planned(work, network, wanted)
            return planned.plan

    async def apply(self, actor: Actor, ref: str, request: ApplyRequest) -> Plan:
        """Do all of it, or nothing: Problem ``invalid`` with every key that is wrong, ``version-conflict`` when the
        network is not what was reviewed.
        """

        async def operation(work: Work) -> Plan:
            await work.authorise(actor)
            network = await work.network_for(actor, ref)
            if request.version not in {None, network.version}:
                raise Problem(
                    "version-conflict",
                    f"the plan was made for version {request.version}, and the network is at {network.version}",
                    "Plan again, and look at what has changed.",
                )
            planned, spec = await _planned(work, network, request.state)
            if planned.plan.problems:
                raise Problem(
                    "invalid",
                    first_problem(planned.plan.problems),
                    "Correct the state; nothing of it was applied.",
                    problems=planned.plan.problems,
                )
            if planned.plan.changes:
                await self._write(work, network, planned, spec)
                summary = "; ".join(f"{change.action} {change.subject}" for change in planned.plan.changes)
                work.event(actor.name, "network.apply", network.key, network.name, summary)
            return planned.plan

        return await self._core.write(operation)

    async def _write(self, work: Work, network: NetworkRow, planned: desired.Planned, spec: NetworkSpec) -> None:
        state = planned.state
        lease_s = state.lease_s or spec.lease_s
        version = next_network_version(work, network)
        work.change(
            msgspec.structs.replace(
                network,
                suffix=state.suffix or spec.suffix,
                lease_s=lease_s,
                version=version,
                tests=msgspec.json.encode(state.tests),
            )
        )
        if planned.spec_changes:
            changed = msgspec.structs.replace(planned.spec, version=version)
            await work.publish(sign(changed, self._core.authority(network)))
        for node, wanted in planned.members.items():
            member = await work.get(MemberRow, network.key, node)
            if member is not None:
                await write_membership(
                    work, self._core, msgspec.structs.replace(member, tags=wanted.tags, routes=wanted.routes)
                )
        if lease_s < spec.lease_s:
            await _renew_earlier(work, network.key, work.now + lease_s / 2)


async def _planned(work: Work, network: NetworkRow, wanted: DesiredState) -> tuple[desired.Planned, NetworkSpec]:
    spec = await spec_of(work, network.key)
    members = await members_of(work, network.key)
    current = desired.state_of(spec, members, tests_of(network))
    tags = await tags_to_come_of(work, network)
    planned = desired.plan(current, wanted, members, spec, known_tags=tags)
    plan = msgspec.structs.replace(planned.plan, version=network.version)
    return dataclasses.replace(planned, plan=plan), spec


async def _renew_earlier(work: Work, network: bytes, at: float) -> None:
    for member in await work.find(MemberRow, equal("network", network), above("renew_at", at)):
        await work.put(msgspec.structs.replace(member, renew_at=at))


def check_block(prefix4: str | None) -> None:
    """Raises Problem ``invalid``."""
    if prefix4 is None:
        return
    try:
        block = canonical_network(prefix4)
        if not isinstance(block, IPv4Network):
            raise ValueError(f"{prefix4} is no IPv4 block")  # noqa: TRY004 - of a value, as all that may be wrong here
        check_prefix4(block)
    except ValueError as error:
        raise Problem(
            "invalid",
            f"prefix4: {error}",
            "Choose a block such as 10.77.0.0/16.",
            problems=(KeyProblem(where="prefix4", what=str(error)),),
        ) from None
