"""The slots as a table: (held before, event) → (held after, dropped)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from warren.proto.wireguard.constants import REJECT_AFTER_MESSAGES
from warren.proto.wireguard.keypairs import Keypair, Keypairs
from warren.proto.wireguard.transport import OpeningKey, SealingKey


def pair(by_us: bool = True, now: float = 0.0) -> Keypair:
    peer: Any = SimpleNamespace()
    return Keypair(peer, SealingKey(bytes(32), 1), OpeningKey(bytes(32), 2), 2, by_us, now)


def held(names: str, known: dict[str, Keypair]) -> Keypairs:
    slots = Keypairs()
    slots.previous, slots.current, slots.next = (known.get(name) for name in names)
    return slots


# previous, current, next; "-" is empty; n is the new one
@pytest.mark.parametrize(
    ("before", "event", "after", "dropped"),
    [
        ("---", "initiated", "-n-", ""),
        ("-c-", "initiated", "cn-", ""),
        ("pc-", "initiated", "cn-", "p"),
        ("--x", "initiated", "xn-", ""),
        ("-cx", "initiated", "xn-", "c"),
        ("pcx", "initiated", "xn-", "pc"),
        ("---", "responded", "--n", ""),
        ("-c-", "responded", "-cn", ""),
        ("pc-", "responded", "-cn", "p"),
        ("-cx", "responded", "-cn", "x"),
        ("pcx", "responded", "-cn", "px"),
        ("--x", "confirmed", "-x-", ""),
        ("-cx", "confirmed", "cx-", ""),
        ("pcx", "confirmed", "cx-", "p"),
        ("pcx", "cleared", "---", "pcx"),
        ("-c-", "cleared", "---", "c"),
    ],
)
def test_slots(before: str, event: str, after: str, dropped: str) -> None:
    known = {name: pair() for name in "pcxn"}
    slots = held(before, known)
    fell_out = {
        "initiated": lambda: slots.add_initiated(known["n"]),
        "responded": lambda: slots.add_responded(known["n"]),
        "confirmed": slots.confirm_next,
        "cleared": slots.clear,
    }[event]()
    names = {id(keypair): name for name, keypair in known.items()}
    assert "".join(names.get(id(k), "-") for k in (slots.previous, slots.current, slots.next)) == after
    assert "".join(names[id(k)] for k in fell_out) == dropped


def test_a_session_sends_for_180_seconds() -> None:
    keypair = pair(now=100.0)
    assert keypair.may_send(1, 279.9)
    assert not keypair.may_send(1, 280.0)


def test_a_session_sends_up_to_the_last_counter() -> None:
    keypair = pair()
    keypair.sealing.counter = REJECT_AFTER_MESSAGES - 3
    assert [keypair.may_send(datagrams, 1.0) for datagrams in (1, 3, 4)] == [True, True, False]


def test_only_the_initiator_renews() -> None:
    assert (pair(True).renew_sending_after, pair(True).renew_receiving_after) == (120.0, 165.0)
    assert pair(False).renew_sending_after == pair(False).renew_receiving_after == float("inf")


def test_expired_sessions_receive_but_do_not_send() -> None:
    known = {name: pair() for name in "pcx"}
    slots = held("pcx", known)
    slots.expire()
    assert not known["c"].may_send(1, 0.0)
    assert not known["x"].may_send(1, 0.0)
    assert known["c"].receive_until == 180.0


def test_a_wiped_session_has_no_keys() -> None:
    keypair = pair()
    keypair.wipe()
    with pytest.raises(ValueError, match="wiped"):
        keypair.sealing.seal(bytearray(32), 0, 32, 32)
