"""What the database has of a network, as values: NetworkSpec, members, policy tests, and where it is coordinated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from warren.coordinator.conditions import above, equal
from warren.coordinator.core import Core
from warren.coordinator.memberships import documents
from warren.coordinator.problems import Problem
from warren.coordinator.rows import DocumentRow, InviteRow, MemberRow, NetworkRow, UrlRow
from warren.coordinator.work import Work, when
from warren.identity.signing import VerifyKey
from warren.model.documents import Coordinator, Membership, NetworkSpec
from warren.model.envelope import unpack_envelope_untrusted
from warren.model.members import Member
from warren.proto.control.administration import Network
from warren.proto.control.desired_state import PolicyTest

COORDINATORS_MAX: Final = 16

_tests: Final = msgspec.json.Decoder(tuple[PolicyTest, ...])
_spec: Final = msgspec.msgpack.Decoder(NetworkSpec)
_membership: Final = msgspec.msgpack.Decoder(Membership)


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


async def members_of(work: Work, network: bytes) -> Sequence[Member]:
    """All that are on the map, connected or not, without their NodeRecords."""
    rows = await documents(work, network, Membership.KIND)
    return [Member(_membership.decode(unpack_envelope_untrusted(row.envelope).payload)) for row in rows.values()]


def tests_of(network: NetworkRow) -> tuple[PolicyTest, ...]:
    return _tests.decode(network.tests)


async def tags_to_come_of(work: Work, network: NetworkRow) -> set[str]:
    invites = await work.find(InviteRow, equal("network", network.key), above("expires", work.now))
    return {tag for invite in invites if not invite.revoked and invite.used < invite.uses for tag in invite.tags}
