"""A node's own NodeRecord: signed anew when what it says changes, with a number that only grows.

The number is on disk before a record with it leaves the node. Should the disk be an old backup, the map shows a newer
record of this node, and numbers go on above that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from warren.agent.candidates import Reachability
from warren.identity.keys import PublicKey
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Candidate, NodeRecord, RelayOffer
from warren.model.verified import Verified, sign

_CONTESTED: Final = 3
"""So often a record of somebody else with our key may turn up above ours before it is called a second agent."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a record says."""

    key: PublicKey
    next_key: PublicKey | None
    candidates: tuple[Candidate, ...]
    reachability: Reachability = "unknown"
    nat: str = ""
    relay: RelayOffer | None = None

    @classmethod
    def of(cls, record: NodeRecord) -> Content:
        following = record.next_wireguard_key
        return cls(
            PublicKey(record.wireguard_key),
            None if following is None else PublicKey(following),
            record.candidates,
            record.reachability,
            record.nat,
            record.relay,
        )


class OwnRecord:
    """The record of one node in one network. ``version`` is the greatest number used so far."""

    def __init__(self, key: SigningKey, network: VerifyKey, version: int) -> None:
        self.version = version
        self.latest: Verified[NodeRecord] | None = None
        self._key = key
        self._network = network
        self._content: Content | None = None
        self._overtaken = 0

    def is_due(self, content: Content, seen: NodeRecord | None) -> bool:
        """Whether a new one is to be made: it says something else, or ``seen``, the map's, is not this node's last."""
        if content != self._content:
            return True
        return seen is not None and (seen.version > self.version or self._differs(seen, content))

    def _differs(self, seen: NodeRecord, content: Content) -> bool:
        return seen.version == self.version and Content.of(seen) != content

    def next_version(self, seen: NodeRecord | None) -> int:
        """The number that the next record will have: to be kept on disk before :meth:`make`."""
        return max(self.version, 0 if seen is None else seen.version) + 1

    def make(self, content: Content, version: int, seen: NodeRecord | None) -> Verified[NodeRecord]:
        if self.latest is not None and seen is not None and seen.version > self.version:
            self._overtaken += 1
        self.version = version
        self._content = content
        self.latest = sign(
            NodeRecord(
                network=self._network.raw,
                version=version,
                node=self._key.verify_key.raw,
                wireguard_key=content.key.raw,
                next_wireguard_key=None if content.next_key is None else content.next_key.raw,
                candidates=content.candidates,
                reachability=content.reachability,
                nat=content.nat,
                relay=content.relay,
            ),
            self._key,
        )
        return self.latest

    @property
    def contested(self) -> bool:
        """Somebody else publishes records with this node's key: its state directory was copied."""
        return self._overtaken >= _CONTESTED
