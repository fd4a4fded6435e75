"""What comes from outside and is not proven has no lasting effect."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import pytest

from tests.support.path_pair import KEY, at
from warren.identity.keys import PublicKey
from warren.model.tunnel import IPAddress, TransportAddress
from warren.paths.checks import label_of, seal_request
from warren.paths.values import Base
from warren.reach.doors import Doors, PeerFacts
from warren.reach.reach import Reach

NODE, PEER = b"n" * 32, b"p" * 32
RELAY = Base(kind="relay", relay="one")
SOMEBODY = at("203.0.113.9", 4000)


class NoAlarm:
    def set(self, at: float | None) -> None: ...


class Owner:
    def course_changed(self, node: bytes) -> None: ...

    def reach_changed(self) -> None: ...

    def send_signal(self, node: bytes, data: bytes) -> bool:
        return True

    def observed(self, address: TransportAddress, source: IPAddress) -> None: ...

    def came_in_by(self, address: TransportAddress) -> None: ...

    def learned(self, envelope: bytes) -> None: ...


@dataclass
class FakeClient:
    bound: list[TransportAddress] = field(default_factory=list)
    kept: list[tuple[int, bool]] = field(default_factory=list)

    def bind(self, peer: TransportAddress, now: float) -> None:
        self.bound.append(peer)

    def keep_channels(self, room: int, wanted: Callable[[TransportAddress], bool]) -> None:
        self.kept.append((room, wanted(SOMEBODY)))


@dataclass
class FakeLeg:
    client: FakeClient


async def _nothing(hosts: Sequence[str]) -> Sequence[IPAddress]:
    return ()


async def _never(*_: object) -> NoReturn:
    raise NotImplementedError


def reach_with_relay(monkeypatch: pytest.MonkeyPatch) -> tuple[Reach, FakeClient]:
    doors = Doors(lambda: 100.0, lambda _: NoAlarm(), random.Random(1).randbytes, _nothing, _never, _never, _never)
    reach = Reach("home", NODE, doors, Owner())
    reach.set_peers([PeerFacts(PEER, (PublicKey(bytes([9] * 32)),), (KEY,))])
    reach._parts.paths.set_bases((RELAY,), 100.0)
    client = FakeClient()
    monkeypatch.setattr(reach._parts.relays, "leg", lambda base: FakeLeg(client) if base == RELAY else None)
    return reach, client


def test_only_who_proves_to_be_a_peer_gets_a_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody behind the NAT of a peer can send to our relayed address, from as many ports as he likes."""
    reach, client = reach_with_relay(monkeypatch)
    for data in (b"\x01" + bytes(147), b"\x04" + bytes(31), b"", b"\x00\x01" + bytes(18)):
        reach._arrivals.relayed(RELAY, SOMEBODY, data, 100.0)
    assert client.bound == []
    check = seal_request(
        key=KEY,
        transaction=bytes(12),
        receiver=label_of(NODE),
        sender=label_of(PEER),
        controlling=False,
        nominates=False,
        relayed=False,
        epoch=1,
        order=1,
    )
    reach._arrivals.relayed(RELAY, SOMEBODY, check, 100.0)
    assert client.bound == [SOMEBODY]
    assert client.kept == [(64, True)]


def test_a_channel_is_kept_only_while_a_pair_leads_there(monkeypatch: pytest.MonkeyPatch) -> None:
    reach, client = reach_with_relay(monkeypatch)
    reach._arrivals.keep_channels(RELAY)
    assert client.kept == [(64, False)]
