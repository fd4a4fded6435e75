"""When two members connect over TCP, and when they have had enough of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from warren.reach.direct_tcp import DirectTcp
from warren.reach.parts import Parts

NODE = bytes([1]) * 32


class Paths:
    """What is known of the path in use."""

    def __init__(self) -> None:
        self.narrow = self.relayed = False
        self.proven_at = -1.0

    def is_narrow(self, node: bytes) -> bool:
        return self.narrow

    def is_wide(self, node: bytes, since: float) -> bool:
        return self.proven_at >= since

    def path(self, node: bytes) -> Paths:
        return self


class Tcp:
    def __init__(self) -> None:
        self.since: float | None = None
        self.said: list[str] = []

    def wanted_since(self, node: bytes) -> float | None:
        return self.since

    def want(self, node: bytes) -> None:
        self.said.append("want")

    def release(self, node: bytes) -> None:
        self.said.append("release")


class Scene:
    def __init__(self) -> None:
        self.paths, self.tcp = Paths(), Tcp()
        peers = SimpleNamespace(get=lambda node: SimpleNamespace(nat=""), check_key=lambda node: None)
        doors = SimpleNamespace(clock=lambda: 0.0)
        owner: Any = SimpleNamespace(send_signal=None, course_changed=None)
        self.parts = SimpleNamespace(
            owner=owner, doors=doors, peers=peers, paths=self.paths, courses=self.paths, udp_blocked=False
        )
        self.direct = DirectTcp(bytes(32), cast(Parts, self.parts))
        self.direct.paths = cast(Any, self.tcp)

    def said(self) -> list[str]:
        self.tcp.said.clear()
        self.direct.consider(NODE)
        return self.tcp.said


@pytest.mark.parametrize("relayed", [False, True])
def test_where_large_packets_get_lost_it_is_wanted(relayed: bool) -> None:
    scene = Scene()
    scene.paths.relayed, scene.paths.narrow = relayed, True
    assert scene.said() == ["want"]


@pytest.mark.parametrize("blocked", [False, True])
def test_where_the_path_is_relayed_for_another_reason_than_blocked_udp_it_is_not(blocked: bool) -> None:
    scene = Scene()
    scene.paths.relayed, scene.parts.udp_blocked = True, blocked
    assert scene.said() == (["want"] if blocked else [])


@pytest.mark.parametrize(("proven_at", "said"), [(-1.0, []), (4.9, []), (5.0, ["release"])])
def test_it_stays_until_a_large_packet_has_passed_by_the_direct_path(proven_at: float, said: list[str]) -> None:
    scene = Scene()
    scene.tcp.since, scene.paths.proven_at = 5.0, proven_at
    assert scene.said() == said


def test_what_this_side_never_wanted_it_does_not_end() -> None:
    scene = Scene()
    scene.paths.proven_at = 5.0
    assert scene.said() == []
