"""Networks and their desired state: made, shown, planned, applied."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Final

import msgspec

from warren.coordinator.core import Core
from warren.coordinator.memberships import documents, write_membership
from warren.coordinator.problems import Problem
from warren.coordinator.relay_rows import relay_of, relays_for
from warren.coordinator.rows import DocumentRow, InviteRow, MemberRow, NetworkRow, UrlRow, above, equal
from warren.coordinator.work import Work, may_see, when
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.addresses import check_prefix4, ula_prefix
from warren.model.documents import Coordinator, Membership, NetworkSpec, sign
from warren.model.envelope import unpack_envelope_untrusted
from warren.model.members import Member
from warren.model.parts import canonical_network
from warren.model.policy import DEFAULT_POLICY
from warren.proto.control import desired
from warren.proto.control.administration import (
    Actor,
    ApplyRequest,
    DesiredState,
    MemberState,
    Network,
    NetworkRequest,
    Plan,
    PolicyTest,
)
from warren.proto.control.administration import Problem as KeyProblem

NETWORKS_MAX: Final = 1024
"""Each has a key in memory and is asked for its revision every few seconds."""
COORDINATORS_MAX: Final = 16

_tests: Final = msgspec.json.Decoder(tuple[PolicyTest, ...])
_spec: Final = msgspec.msgpack.Decoder(NetworkSpec)
_membership: Final = msgspec.msgpack.Decoder(Membership)


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


def next_network_version(work: Work, network: NetworkRow) -> int:
    """Of what an operator decides. At least the time, as all versions (see :meth:`Work.next_version`)."""
    return max(network.version + 1, int(work.now))


async def shown_network(work: Work, row: NetworkRow) -> Network:
    return Network(
        id=str(VerifyKey(row.key)),
        name=row.name,
        prefix6=row.prefix6,
        prefix4=row.prefix4,
        suffix=row.suffix,
        lease_s=row.lease_s,
        version=row.version,
        revision=row.revision,
        members=await work.count(MemberRow, equal("network", row.key)),
        created=when(row.created),
    )


async def coordinators(work: Work, core: Core) -> tuple[Coordinator, ...]:
    """Where this coordinator and its replicas answer; the same, and in the same order, whichever of them is asked."""
    urls = {*core.urls, *(row.url for row in await work.find(UrlRow))}
    return tuple(Coordinator(url=url, key=core.identity.verify_key.raw) for url in sorted(urls)[:COORDINATORS_MAX])


async def spec_of(work: Work, network: bytes) -> NetworkSpec:
    """The NetworkSpec on the map. Its own database is believed by a coordinator: nothing is verified.

    Problem ``unavailable`` when the database has lost it.
    """
    row = await work.get(DocumentRow, network, NetworkSpec.KIND, b"")
    if row is None:
        raise Problem("unavailable", "the network has lost its NetworkSpec", "Put back the last backup.")
    return _spec.decode(unpack_envelope_untrusted(row.envelope).payload)


async def check_changed_member(
    work: Work, network: NetworkRow, node: bytes, *, name: str, tags: tuple[str, ...], routes: tuple[str, ...]
) -> None:
    """Whether the member may become this: routes that cannot be, overlaps, policies and tests that no longer hold.

    Problem with what would be wrong that is not wrong already: ``invalid`` for routes, ``conflict`` for a policy or a
    test that would break.
    """
    spec = await spec_of(work, network.key)
    tags_to_come = await tags_to_come_of(work, network)
    before = desired.state_of(spec, members := await members_of(work, network.key), tests_of(network))
    former = next(member.name for member in members if member.membership.node == node)
    renamed = [
        Member(msgspec.structs.replace(member.membership, name=name)) if member.membership.node == node else member
        for member in members
    ]
    states = {other: state for other, state in before.members.items() if other != former}
    after = msgspec.structs.replace(before, members={**states, name: MemberState(tags=tags, routes=routes)})
    planned = desired.plan(after, after, renamed, spec, known_tags=tags_to_come)
    problems = planned.plan.problems
    if problems:  # else there is no need to go through a large network once more
        known = desired.plan(before, before, members, spec, known_tags=tags_to_come).plan.problems
        problems = new_problems(problems, known)
    if any(".routes" in problem.where for problem in problems):
        raise Problem(
            "invalid", first_problem(problems), "Choose other routes; nothing was changed.", problems=problems
        )
    if problems:
        what = "the connectors" if problems[0].where.startswith("connectors.") else "the policy or its tests"
        remedy = f"Change {what} first; nothing was changed."
        raise Problem("conflict", first_problem(problems), remedy, problems=problems)


def new_problems(problems: Sequence[KeyProblem], known: Sequence[KeyProblem]) -> tuple[KeyProblem, ...]:
    """Those that were not there before: what is wrong already hinders no change that has nothing to do with it."""
    return tuple(problem for problem in problems if problem not in known)


def tests_of(network: NetworkRow) -> tuple[PolicyTest, ...]:
    return _tests.decode(network.tests)


async def tags_to_come_of(work: Work, network: NetworkRow) -> set[str]:
    invites = await work.find(InviteRow, equal("network", network.key), above("expires", work.now))
    return {tag for invite in invites if not invite.revoked and invite.used < invite.uses for tag in invite.tags}


async def _planned(work: Work, network: NetworkRow, wanted: DesiredState) -> tuple[desired.Planned, NetworkSpec]:
    spec = await spec_of(work, network.key)
    members = await members_of(work, network.key)
    current = desired.state_of(spec, members, tests_of(network))
    tags = await tags_to_come_of(work, network)
    planned = desired.plan(current, wanted, members, spec, known_tags=tags)
    plan = msgspec.structs.replace(planned.plan, version=network.version)
    return dataclasses.replace(planned, plan=plan), spec


async def members_of(work: Work, network: bytes) -> Sequence[Member]:
    """All that are on the map, connected or not, without their NodeRecords."""
    rows = await documents(work, network, Membership.KIND)
    return [Member(_membership.decode(unpack_envelope_untrusted(row.envelope).payload)) for row in rows.values()]


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


def first_problem(problems: Sequence[KeyProblem]) -> str:
    first = f"{_place(problems[0].where)}: {problems[0].what}"
    return first if len(problems) == 1 else f"{first} (and {len(problems) - 1} more)"


def _place(where: str) -> str:
    """``policy rule 1`` for ``policy[0].sources``: numbered as a person sees them; ``service web`` for
    ``services.web.at[0]``.
    """
    found = _NUMBERED.match(where)
    if found is not None:
        return f"policy {_NOUNS[found[1]]} {int(found[2]) + 1}"
    named = _NAMED.match(where)
    return where if named is None else f"{named[1]} {named[2]}"


_NUMBERED: Final = re.compile(r"(policy|tests)\[(\d+)\]")
_NAMED: Final = re.compile(r"(service|connector)s\.([^.]+)")
_NOUNS: Final = {"policy": "rule", "tests": "test"}
