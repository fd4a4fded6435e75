"""What must hold of the simulated world: a reference model that knows only what was acknowledged to somebody."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from tests.support.coordination_node import SimNode
from tests.support.coordination_world import World
from warren.coordinator.rows import DocumentRow, InviteRow, MemberRow, NetworkRow, PlaceRow, RevokedRow, Row
from warren.identity.signing import VerifyKey
from warren.model.documents import Document, DocumentKey, Membership, NetworkSpec, NodeRecord, Revocation
from warren.model.envelope import Envelope, unpack_envelope_untrusted
from warren.model.netmap import Member
from warren.model.verified import verify
from warren.proto.control.server import State

R = TypeVar("R", bound=Row)


@dataclass
class Possible:
    """A value of which writes may have been lost: what it may be now."""

    values: set[object] = field(default_factory=set)

    def acknowledged(self, value: object) -> None:
        self.values = {value}

    def uncertain(self, value: object) -> None:
        self.values.add(value)


class Model:
    """Holds the world to what was promised. Every check raises AssertionError with a sentence."""

    def __init__(self, world: World, network: VerifyKey) -> None:
        self.world = world
        self.network = network
        self.invites: dict[str, int] = {}
        """Acknowledged: id → uses."""
        self.withdrawn: dict[str, float] = {}
        """Acknowledged: id → when."""
        self.revoked: dict[bytes, float] = {}
        """Acknowledged: node → when its last lease ends."""
        self.tags: dict[bytes, Possible] = {}
        self.names: dict[bytes, Possible] = {}
        self.policy = Possible()
        self.joined: set[bytes] = set()
        """Nodes that were told that they are members, and that nobody wanted to part from the network since."""
        self._owners: dict[int, tuple[bytes, float]] = {}
        self._addresses4: dict[str, tuple[bytes, float]] = {}
        self._holders: dict[str, tuple[bytes, float]] = {}
        self._redeemed: dict[str, set[bytes]] = {}
        self._versions: dict[DocumentKey, int] = {}
        self._revision = 0
        self._verified: dict[bytes, Document] = {}

    def check(self) -> None:
        """What holds at any moment, whatever is under way."""
        self._check_disk()
        self._check_acknowledged()
        for node in self.world.nodes:
            self._check_node(node)

    def check_quiet(self) -> None:
        """What holds besides when nothing is under way to nodes that are connected."""
        documents = self.documents()
        for wire in self.world.wires:
            if wire.server.state is not State.OPEN or wire.node.partitioned:
                continue
            node = wire.node
            held = {DocumentKey(one.kind, self._read(one).subject): one for one in node.map.envelopes()}
            assert held == documents, (
                f"{node} is connected and its map differs: {_differences(held, documents)}; it stands at revision "
                f"{node.map.revision}, the coordinator at {self._revision}"
            )
            assert node.id not in self.revoked, f"{node} is revoked and connected"

    def documents(self) -> dict[DocumentKey, Envelope]:
        """The coordinator's, but for tombstones."""
        return {
            DocumentKey(row.kind, row.subject): unpack_envelope_untrusted(row.envelope)
            for row in self.disk_documents()
            if row.envelope
        }

    def disk_documents(self) -> list[DocumentRow]:
        """With tombstones."""
        return self.rows(DocumentRow)

    def rows(self, table: type[R]) -> list[R]:
        """What is on the disk."""

        async def read() -> list[R]:
            async with self.world.disk.read() as transaction:
                return await transaction.find(table)

        return _at_once(read())

    def member(self, node: bytes) -> MemberRow | None:
        return next((row for row in self.rows(MemberRow) if row.node == node), None)

    def parted(self, node: bytes) -> None:
        """Somebody wants the node out of the network; whether it was done is not known."""
        self.joined.discard(node)
        self.tags.pop(node, None)
        self.names.pop(node, None)

    def _read(self, envelope: Envelope) -> Document:
        if envelope.signature not in self._verified:
            self._verified[envelope.signature] = verify(envelope, self.network).document
        return self._verified[envelope.signature]

    # The disk

    def _check_disk(self) -> None:
        now = self.world.now
        members = self.rows(MemberRow)
        revoked = {row.node for row in self.rows(RevokedRow)}
        for row in members:
            assert row.node not in revoked, f"{row.name} is revoked and a member"
            self._redeemed.setdefault(row.invite, set()).add(row.node)
            before, until = self._owners.get(row.slot, (row.node, 0.0))
            assert before == row.node or until <= now, (
                f"place {row.slot} was given to {row.name} while a lease of another ran until {until}"
            )
            self._owners[row.slot] = (row.node, row.lease_last)
            if row.address4 is not None:
                before, until = self._addresses4.get(row.address4, (row.node, 0.0))
                assert before == row.node or until <= now, f"{row.address4} was given to {row.name} too early"
                self._addresses4[row.address4] = (row.node, row.lease_last)
        self._check_names(members)
        for what, values in (
            ("name", [row.name for row in members]),
            ("place", [row.slot for row in members]),
            ("IPv4 address", [row.address4 for row in members]),
        ):
            assert len(set(values)) == len(values), f"two members have one {what}: {values}"
        held = {row.slot: row.node for row in self.rows(PlaceRow) if row.free_at is None}
        assert held == {row.slot: row.node for row in members}, "places that are held are not those of the members"
        for invite in self.rows(InviteRow):
            redeemed = self._redeemed.get(invite.id, set())
            assert len(redeemed) <= invite.uses, f"an invite for {invite.uses} was used by {len(redeemed)}"
            last = max((row.joined for row in members if row.invite == invite.id), default=0.0)
            assert last < invite.expires, "somebody joined by an invite that had expired"
            assert last <= self.withdrawn.get(invite.id, last), "somebody joined by an invite that was withdrawn"
            assert invite.used == len(redeemed), f"{len(redeemed)} joined by an invite that says {invite.used}"
        self._check_monotony(members)
        self._check_revocations()

    def _check_names(self, members: list[MemberRow]) -> None:
        """Policies speak of names: that of a member who is gone is not handed on while a lease with it runs."""
        named = {row.node: row.name for row in members}
        for name, (node, _) in list(self._holders.items()):
            if named.get(node, name) != name:
                del self._holders[name]  # renamed: the lease with the new name has taken the place of the old one
        for row in members:
            before, until = self._holders.get(row.name, (row.node, 0.0))
            assert before == row.node or until <= self.world.now, f"the name {row.name} was handed on too early"
            self._holders[row.name] = (row.node, row.lease_last)

    def _check_revocations(self) -> None:
        listed = self.documents().get(DocumentKey(Revocation.KIND))
        revocation = self._read(listed) if listed is not None else None
        nodes = revocation.nodes if isinstance(revocation, Revocation) else ()
        for row in self.rows(RevokedRow):
            assert row.node in nodes or row.lease_ended <= self.world.now, f"{row.name} is on no list of the revoked"

    def _check_monotony(self, members: list[MemberRow]) -> None:
        (network,) = self.rows(NetworkRow)
        assert network.revision >= self._revision, "the map's revision went back"
        self._revision = network.revision
        for row in self.disk_documents():
            key = DocumentKey(row.kind, row.subject)
            assert row.version >= self._versions.get(key, 0), f"version of {key.kind} went back"
            assert row.revision <= network.revision, f"a {key.kind} document is ahead of its network"
            self._versions[key] = row.version
        signed = {key.subject for key in self.documents() if key.kind == Membership.KIND}
        assert signed == {row.node for row in members}, "members and their documents are not the same"
        for key, envelope in self.documents().items():
            if isinstance(self._read(envelope), NodeRecord):
                assert key.subject in signed, "the record of somebody who is no member is on the map"

    # What was acknowledged

    def _check_acknowledged(self) -> None:
        invites = {row.id: row for row in self.rows(InviteRow)}
        for identity, uses in self.invites.items():
            assert invites[identity].uses == uses, f"invite {identity} was promised and is not there"
        kept = {row.node for row in self.rows(RevokedRow)}
        assert self.revoked.keys() <= kept, "a revocation was acknowledged and is lost"
        for node in self.joined:
            row = self.member(node)
            assert row is not None, f"{VerifyKey(node).short} was told that it is a member and is not"
            if node in self.tags:
                assert row.tags in self.tags[node].values, f"{row.name} has tags {row.tags}: {self.tags[node].values}"
            if node in self.names:
                assert row.name in self.names[node].values, f"{row.name} should be {self.names[node].values}"
        spec = self._read(self.documents()[DocumentKey(NetworkSpec.KIND)])
        assert isinstance(spec, NetworkSpec)
        assert spec.policy in self.policy.values, f"the policy is {spec.policy}"
        versions = {row.subject: row.version for row in self.disk_documents() if row.kind == NodeRecord.KIND}
        for one in self.world.nodes:
            if one.id in self.joined:
                assert versions.get(one.id, 0) >= one.published, f"{one}'s record {one.published} is lost"

    # Nodes

    def _check_node(self, node: SimNode) -> None:
        live = node.map.live_members(self.world.now)
        for what, values in (
            ("address", [member.address6 for member in live]),
            ("IPv4 address", [member.address4 for member in live]),
        ):
            assert len(set(values)) == len(values), f"{node} knows two live members with one {what}: {_told(live)}"
        for member in live:
            until = self.revoked.get(member.membership.node)
            assert until is None or self.world.now < until, f"{node} holds {member.name} for a member beyond its lease"


def _at_once(reading: Coroutine[object, None, list[R]]) -> list[R]:
    """The result of a coroutine that has no need to wait: the store in memory, while nobody else uses it."""
    try:
        reading.send(None)
    except StopIteration as done:
        found: list[R] = done.value
        return found
    raise AssertionError("somebody holds a transaction")


def _told(members: tuple[Member, ...]) -> str:
    return ", ".join(f"{member.name} {member.address6}" for member in members)


def _differences(held: dict[DocumentKey, Envelope], wanted: dict[DocumentKey, Envelope]) -> list[str]:
    different = [key for key in held.keys() | wanted.keys() if held.get(key) != wanted.get(key)]
    return [
        f"{'missing' if key not in held else 'other' if key in wanted else 'extra'} {key.kind} {key.subject[:4].hex()}"
        for key in sorted(different)
    ]
