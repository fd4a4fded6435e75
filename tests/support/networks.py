"""A network of made-up members, with every key made from a name: documents to sign, carry and break."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Network
from typing import Any

from warren.identity.signing import SigningKey
from warren.model.addresses import AddressPlan, ula_prefix
from warren.model.documents import (
    Candidate,
    Coordinator,
    Document,
    Membership,
    NetworkSpec,
    NodeRecord,
    Revocation,
    Ticket,
)
from warren.model.envelope import Envelope
from warren.model.netmap import Applied, Member, NetworkMap
from warren.model.policy import DEFAULT_POLICY
from warren.model.verified import Verified, sign

NOW_S = 1_800_000_000
LEASE_S = 86_400
COLLIDING = ("s19161393", "s32601876")
"""Names of services whose addresses are the same: 48 bits of their SHA-256 are."""


def signing_key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(b"a test's key\0" + name.encode()).digest())


class MadeNetwork:
    """An authority that signs what it is asked to; versions are counted here unless one is given."""

    def __init__(self, name: str = "home", prefix4: str | None = "10.77.0.0/16") -> None:
        self.name = name
        self.authority = signing_key(f"authority of {name}")
        self.key = self.authority.verify_key
        self.prefix6 = ula_prefix(self.key)
        self.prefix4 = prefix4
        self.plan = AddressPlan(self.prefix6, None if prefix4 is None else IPv4Network(prefix4))
        self._version = 0
        self._indices: dict[str, int] = {}

    def node(self, name: str) -> SigningKey:
        """The signing key of the node called ``name``."""
        return signing_key(f"node {name} of {self.name}")

    def next_version(self) -> int:
        self._version += 1
        return self._version

    def spec(self, **changes: Any) -> Verified[NetworkSpec]:
        values: dict[str, Any] = {
            "network": self.key.raw,
            "version": self.next_version(),
            "name": self.name,
            "prefix6": str(self.prefix6),
            "prefix4": self.prefix4,
            "policy": DEFAULT_POLICY,
            "coordinators": (Coordinator(url="https://c.example:443", key=signing_key("coordinator").verify_key.raw),),
        }
        return sign(NetworkSpec(**{**values, **changes}), self.authority)

    def membership(self, name: str, /, **changes: Any) -> Verified[Membership]:
        index = self._indices.setdefault(name, len(self._indices) + 1)
        address4 = self.plan.address4(index)
        values: dict[str, Any] = {
            "network": self.key.raw,
            "version": self.next_version(),
            "node": self.node(name).verify_key.raw,
            "name": name,
            "prefix6": str(self.plan.prefix(index)),
            "address4": None if address4 is None else str(address4),
            "not_before": NOW_S - 300,
            "not_after": NOW_S + LEASE_S,
        }
        return sign(Membership(**{**values, **changes}), self.authority)

    def record(self, name: str, /, **changes: Any) -> Verified[NodeRecord]:
        values: dict[str, Any] = {
            "network": self.key.raw,
            "version": self.next_version(),
            "node": self.node(name).verify_key.raw,
            "wireguard_key": hashlib.sha256(f"wireguard {name}".encode()).digest(),
            "candidates": (Candidate(kind="host", address="2001:db8::1", port=51820),),
            "reachability": "public",
        }
        return sign(NodeRecord(**{**values, **changes}), self.node(name))

    def revocation(self, *names: str, **changes: Any) -> Verified[Revocation]:
        values: dict[str, Any] = {
            "network": self.key.raw,
            "version": self.next_version(),
            "nodes": tuple(self.node(name).verify_key.raw for name in names),
        }
        return sign(Revocation(**{**values, **changes}), self.authority)

    def ticket(self, **changes: Any) -> Verified[Ticket]:
        values: dict[str, Any] = {
            "network": self.key.raw,
            "version": 1,
            "name": self.name,
            "coordinators": (Coordinator(url="https://c.example:443", key=signing_key("coordinator").verify_key.raw),),
            "secret": b"0123456789abcdef",
            "not_after": NOW_S + 3600,
        }
        return sign(Ticket(**{**values, **changes}), self.authority)

    def member(self, name: str, /, **changes: Any) -> Member:
        """A member with a record, without a map around it."""
        return Member(self.membership(name, **changes).document, self.record(name).document)


def envelopes(*documents: Verified[Document]) -> tuple[Envelope, ...]:
    return tuple(document.envelope for document in documents)


def put(network_map: NetworkMap, *documents: Verified[Document], **arguments: Any) -> Applied:
    """Apply one complete update at the next revision."""
    values: dict[str, Any] = {
        "revision": network_map.revision + 1,
        "whole": False,
        "more": False,
        "put": envelopes(*documents),
        "drop": (),
    }
    return network_map.apply(**{**values, **arguments})
