"""A node's and a coordinator's session with a wire between them that tests move by hand."""

from __future__ import annotations

from typing import TypeVar

from warren.identity.signing import SigningKey
from warren.model.documents import Candidate, NodeRecord
from warren.model.envelope import Envelope
from warren.model.verified import sign
from warren.proto.control import client_events, server_events
from warren.proto.control.client import ClientSession, EnrolRequest
from warren.proto.control.server import ServerSession

AUTHORITY = SigningKey(bytes([1]) * 32)
NODE = SigningKey(bytes([2]) * 32)
OTHER = SigningKey(bytes([3]) * 32)
NONCE = bytes([4]) * 32
CERTIFICATE = bytes([5]) * 32
TICKET = EnrolRequest(secret=b"sixteen bytes ok", name="web1")
TIME_S = 1_800_000_000.0

E = TypeVar("E")


def record(key: SigningKey = NODE, version: int = 1) -> Envelope:
    """A NodeRecord of ``key``."""
    candidate = Candidate(kind="host", address="192.0.2.1", port=51820)
    document = NodeRecord(
        network=AUTHORITY.verify_key.raw,
        version=version,
        node=key.verify_key.raw,
        wireguard_key=bytes(32),
        candidates=(candidate,),
    )
    return sign(document, key).envelope


class Pair:
    """Both ends; ``now`` moves by hand, events pile up on each side until taken."""

    def __init__(
        self,
        *,
        enrol: EnrolRequest | None = None,
        since: int = 0,
        seen_by_node: bytes = CERTIFICATE,
    ) -> None:
        """``seen_by_node``: the certificate at the node's end, another than the coordinator's with a third between."""
        self.now = 100.0
        self.node_events: list[client_events.Event] = []
        self.coordinator_events: list[server_events.Event] = []
        self.server = ServerSession(nonce=NONCE, certificate_sha256=CERTIFICATE, time_s=TIME_S, now=self.now)
        self.client = ClientSession(
            network=AUTHORITY.verify_key,
            key=NODE,
            certificate_sha256=seen_by_node,
            now=self.now,
            since=since,
            enrol=enrol,
        )

    def move(self) -> None:
        """Carry what waits, both ways, until nothing does."""
        for _ in range(100):
            to_node, to_coordinator = self.server.take_transmits(), self.client.take_transmits()
            for message in to_node:
                self.client.receive(message, self.now)
            for message in to_coordinator:
                self.server.receive(message, self.now)
            self.node_events += self.client.take_events()
            self.coordinator_events += self.server.take_events()
            if not to_node and not to_coordinator:
                return
        raise AssertionError("the two never stop talking")

    def open(self) -> None:
        """Up to a session in which both may speak; the events of it are taken."""
        self.move()
        self.server.accept(observed="192.0.2.9", time_s=TIME_S)
        self.move()
        self.node_events.clear()
        self.coordinator_events.clear()


def only(kind: type[E], events: list[client_events.Event] | list[server_events.Event]) -> E:
    """The one event of that kind."""
    (found,) = [event for event in events if isinstance(event, kind)]
    return found
