"""A node of the simulation: its session with the coordinator, its map, and what it remembers to hold both to."""

from __future__ import annotations

from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Candidate, DocumentKey, NodeRecord
from warren.model.netmap import NetworkMap
from warren.model.verified import sign
from warren.proto.control import client_events
from warren.proto.control.client import ClientSession, EnrolRequest
from warren.proto.control.messages import Update


class SimNode:
    """``name`` is what it asks for; its machine outlives its memory: the map is kept as envelopes, as on a disk."""

    def __init__(self, name: str, key: SigningKey, network: VerifyKey) -> None:
        self.name = name
        self.key = key
        self.network = network
        self.map = NetworkMap(network)
        self.enrol: EnrolRequest | None = None
        """With what it asks to be let in; None once it was."""
        self.session: ClientSession | None = None
        self.is_member = False
        """As far as it knows."""
        self.refused_as = ""
        self.published = 0
        """The version of its record that the coordinator has confirmed."""
        self.record_version = 0
        self.partitioned = False
        self.high_water: dict[DocumentKey, int] = {}
        self.revision = 0

    @property
    def id(self) -> bytes:
        return self.key.verify_key.raw

    def __repr__(self) -> str:
        return self.name

    def connect(self, certificate_sha256: bytes, now: float) -> ClientSession:
        self.session = ClientSession(
            network=self.network,
            key=self.key,
            certificate_sha256=certificate_sha256,
            now=now,
            since=0 if self.enrol is not None else self.map.revision,
            enrol=self.enrol,
        )
        return self.session

    def heed(self, event: client_events.Event) -> None:
        """What the agent would do. Raises AssertionError when the map goes back."""
        match event:
            case client_events.Opened():
                self.is_member, self.enrol, self.refused_as = True, None, ""
                self.map.abandon()
            case client_events.UpdateReceived(update):
                self._apply(update)
            case client_events.Published(version):
                self.published = max(self.published, version)
            case client_events.RefusedByCoordinator(refused):
                self.refused_as = refused.kind
                if refused.kind in {"revoked", "not-a-member"}:
                    self.is_member = False
                if refused.retry_after_s is None:
                    self.enrol = None
            case client_events.Ended():
                self.session = None
            case _:
                pass

    def publish(self, now: float) -> None:
        """Have a new record, and the session tell it."""
        self.record_version += 1
        document = NodeRecord(
            network=self.network.raw,
            version=self.record_version,
            node=self.id,
            wireguard_key=self.id,
            candidates=(Candidate(kind="host", address="192.0.2.1", port=1 + self.record_version % 65_535),),
        )
        if self.session is not None:
            self.session.publish(sign(document, self.key).envelope, now)

    def restart(self) -> None:
        """All that was not on its disk is gone."""
        kept, revision = self.map.envelopes(), self.map.revision
        self.map = NetworkMap(self.network)
        applied = self.map.apply(revision=revision, whole=True, more=False, put=kept, drop=())
        assert not applied.refused, applied.refused
        self._check()

    def _apply(self, update: Update) -> None:
        applied = self.map.apply(
            revision=update.revision, whole=update.whole, more=update.more, put=update.put, drop=update.drop
        )
        assert not applied.refused, f"{self.name} was sent what it refuses: {applied.refused}"
        self._check()

    def _check(self) -> None:
        for key, version in self.map.versions().items():
            before = self.high_water.get(key, 0)
            assert version >= before, f"{self.name}: {key.kind} went back from version {before} to {version}"
            self.high_water[key] = version
        assert self.map.revision >= self.revision, f"{self.name}: revision {self.map.revision} after {self.revision}"
        self.revision = self.map.revision
