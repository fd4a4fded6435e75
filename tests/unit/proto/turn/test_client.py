"""The TURN client opposite a scripted server: permissions, channels, data, ceilings."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.turn_script import RELAYED4, SERVER, Play, Script, address
from warren.proto.stun.attributes import pack_xor_address, unpack_xor_address_untrusted
from warren.proto.stun.message import Attribute, Class, Message, Method, encode
from warren.proto.turn import client_channels, client_permissions
from warren.proto.turn.client import SEND_BYTES_MAX, TurnClient
from warren.proto.turn.client_events import BindFailed, Bound, Data, Lost, Ready

PEER = address("203.0.113.9")
OTHER = address("203.0.113.10")


def ready(script: Script | None = None, **options: bool) -> Play:
    play = Play(script, **options)
    play.exchange()
    assert play.client.state == "ready"
    play.told()
    return play


def peers_of(message: Message) -> list[str]:
    return [
        str(unpack_xor_address_untrusted(value, message.transaction).ip)
        for kind, value in message.attributes
        if kind == Attribute.XOR_PEER_ADDRESS
    ]


def asked(play: Play, method: Method) -> list[list[str]]:
    return [peers_of(message) for message in play.script.seen if message.method == method]


def test_permissions_are_asked_for_together_and_renewed_before_five_minutes_are_over() -> None:
    play = ready()
    play.client.permit([PEER.ip, OTHER.ip, ip_address("2001:db8::9")], play.now)
    play.exchange()
    assert asked(play, Method.CREATE_PERMISSION) == [["203.0.113.9", "203.0.113.10", "2001:db8::9"]]
    play.run(239)
    assert play.count(Method.CREATE_PERMISSION) == 1
    play.run(2)
    assert play.count(Method.CREATE_PERMISSION) == 2


def test_a_permission_no_longer_wanted_is_not_renewed() -> None:
    play = ready()
    play.client.permit([PEER.ip, OTHER.ip], play.now)
    play.exchange()
    play.client.permit([OTHER.ip], play.now)
    play.run(250)
    assert asked(play, Method.CREATE_PERMISSION)[1:] == [["203.0.113.10"]]


def test_one_refused_address_does_not_keep_the_others_from_being_permitted() -> None:
    play = ready()
    honest = play.script.answer

    def answer(message: Message) -> bytes | None:
        if message.method == Method.CREATE_PERMISSION and "127.0.0.1" in peers_of(message):
            return play.script.refuse(message, 403)
        return honest(message)

    play.script.answer = answer  # type: ignore[method-assign]
    play.client.permit([PEER.ip, ip_address("127.0.0.1"), OTHER.ip], play.now)
    play.exchange()
    assert play.client.refusal(PEER.ip) == ""
    assert play.client.refusal(ip_address("127.0.0.1")) == (
        "relay berlin does not send to 127.0.0.1: it is not allowed to; its operator must permit that address range "
        "(error 403)"
    )
    before = play.count(Method.CREATE_PERMISSION)
    play.run(200)
    assert play.count(Method.CREATE_PERMISSION) == before


def test_no_more_permissions_are_kept_than_the_ceiling() -> None:
    play = ready()
    play.client.permit([ip_address(0x0A000000 + number) for number in range(1000)], play.now)
    play.exchange()
    assert sum(len(one) for one in asked(play, Method.CREATE_PERMISSION)) == client_permissions.WANTED_MAX
    assert max(len(one) for one in asked(play, Method.CREATE_PERMISSION)) <= client_permissions.AT_ONCE_MAX


def test_a_channel_is_bound_and_kept_bound() -> None:
    play = ready()
    assert play.client.bind(PEER, play.now) is None
    assert play.client.channel_of(PEER) is None
    play.exchange()
    assert play.told() == [Bound(PEER, 0x4000)]
    assert play.client.bind(PEER, play.now) == play.client.channel_of(PEER) == 0x4000
    assert play.client.peer_of(0x4000) == PEER
    play.run(730)
    assert play.count(Method.CHANNEL_BIND) == 4
    assert play.told() == []


def test_a_released_number_is_nobody_elses_for_a_quarter_of_an_hour() -> None:
    play = ready()
    play.client.bind(PEER, play.now)
    play.exchange()
    play.client.unbind(PEER)
    assert play.client.channel_of(PEER) is None
    assert play.client.peer_of(0x4000) == PEER
    play.client.bind(OTHER, play.now)
    play.exchange()
    assert play.client.channel_of(OTHER) == 0x4001
    play.client.bind(PEER, play.now)
    play.exchange()
    assert play.client.channel_of(PEER) == 0x4000


def test_numbers_are_used_again_when_the_server_has_forgotten_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_channels, "CHANNEL_MAX", 0x4001)
    channels = client_channels.Channels()
    peers = [address("203.0.113.1", port) for port in range(1, 5)]
    assert channels.want(peers[0], 0.0)
    assert channels.want(peers[1], 0.0)
    assert not channels.want(peers[2], 0.0)
    channels.release(peers[0])
    assert not channels.want(peers[2], client_channels.QUARANTINE_S - 1)
    assert channels.want(peers[2], client_channels.QUARANTINE_S)
    assert channels.number_wanted(peers[2]) == 0x4000


def test_more_channels_than_the_ceiling_are_refused_in_words() -> None:
    play = ready()
    for port in range(1, client_channels.BOUND_MAX + 2):
        play.client.bind(address("203.0.113.9", port), play.now)
    play.exchange()
    told = play.told()
    assert sum(isinstance(event, Bound) for event in told) == client_channels.BOUND_MAX
    assert [event.why for event in told if isinstance(event, BindFailed)] == [
        f"relay berlin does not carry 203.0.113.9:{client_channels.BOUND_MAX + 1}: this node has too many channels"
    ]


def test_channels_that_lead_nowhere_make_room_when_there_is_little() -> None:
    play = ready()
    peers = [address("203.0.113.9", port) for port in range(1, 101)]
    for peer in peers:
        play.client.bind(peer, play.now)
    play.exchange()
    play.client.keep_channels(client_channels.BOUND_MAX - 100, lambda _: False)
    assert all(play.client.channel_of(peer) for peer in peers), "there is room"
    play.client.keep_channels(client_channels.BOUND_MAX - 99, lambda peer: peer in peers[:3])
    assert [peer for peer in peers if play.client.channel_of(peer)] == peers[:3]


@pytest.mark.parametrize(
    ("number", "words"),
    [(403, "is not allowed to"), (443, "has no address of that family"), (400, "refuses it")],
)
def test_a_refused_channel_is_told_once_and_not_asked_for_again(number: int, words: str) -> None:
    play = ready(Script(errors={Method.CHANNEL_BIND: number}))
    play.client.bind(PEER, play.now)
    play.run(100)
    (event,) = play.told()
    assert isinstance(event, BindFailed)
    assert event.peer == PEER
    assert words in event.why
    assert play.count(Method.CHANNEL_BIND) == 1


def test_a_bound_channel_survives_a_moment_in_which_the_server_has_no_capacity() -> None:
    play = ready()
    play.client.bind(PEER, play.now)
    play.exchange()
    play.told()
    play.script.errors[Method.CHANNEL_BIND] = 508
    play.run(300)
    del play.script.errors[Method.CHANNEL_BIND]
    play.run(20)
    assert play.told() == []
    assert play.client.channel_of(PEER) == 0x4000


def test_channels_come_back_with_their_numbers_after_the_server_forgot_us() -> None:
    play = ready()
    for peer in (PEER, OTHER):
        play.client.bind(peer, play.now)
    play.client.permit([PEER.ip], play.now)
    play.exchange()
    play.told()
    play.script.errors = {Method.REFRESH: 437}
    play.client.check(play.now)
    assert play.client.channel_of(PEER) == 0x4000
    play.exchange()
    told = play.told()
    assert [type(event) for event in told] == [Lost, Ready, Bound, Bound]
    assert told[2:] == [Bound(PEER, 0x4000), Bound(OTHER, 0x4001)]
    assert play.count(Method.CREATE_PERMISSION) == 2


def test_data_for_a_peer_without_permission_waits_for_it() -> None:
    play = ready()
    play.client.send(PEER, b"check", play.now)
    play.exchange()
    methods = [message.method for message in play.script.seen[-2:]]
    assert methods == [Method.CREATE_PERMISSION, Method.SEND]
    assert play.script.seen[-1].cls is Class.INDICATION
    assert play.script.seen[-1].get(Attribute.DATA) == b"check"
    assert peers_of(play.script.seen[-1]) == ["203.0.113.9"]
    play.client.send(PEER, b"second", play.now)
    play.exchange()
    assert play.count(Method.CREATE_PERMISSION) == 1
    assert play.script.seen[-1].get(Attribute.DATA) == b"second"


def test_a_permission_that_was_only_needed_in_passing_ends() -> None:
    play = ready()
    play.client.send(PEER, b"check", play.now)
    play.run(900)
    assert play.count(Method.CREATE_PERMISSION) == 2  # renewed once within its five minutes


def test_what_is_too_long_for_an_indication_is_not_sent() -> None:
    play = ready()
    play.client.send(PEER, bytes(SEND_BYTES_MAX + 1), play.now)
    play.exchange()
    assert play.count(Method.SEND) == play.count(Method.CREATE_PERMISSION) == 0


def test_strangers_addresses_do_not_pile_up() -> None:
    play = ready()
    for number in range(500):
        play.client.send(address(f"203.0.{number // 256}.{number % 256}"), b"check", play.now)
    play.exchange()
    assert sum(len(one) for one in asked(play, Method.CREATE_PERMISSION)) == client_permissions.PASSING_MAX


def indication(peer_text: str, data: bytes = b"data") -> bytes:
    peer = address(peer_text)
    transaction = bytes(12)
    attributes = [
        (int(Attribute.XOR_PEER_ADDRESS), pack_xor_address(peer, transaction)),
        (int(Attribute.DATA), data),
    ]
    return encode(Method.DATA, Class.INDICATION, transaction, attributes)


def test_data_comes_in_from_permitted_peers_only() -> None:
    play = ready()
    play.client.permit([PEER.ip], play.now)
    play.exchange()
    assert play.client.receive(indication("203.0.113.9"), play.now)
    assert play.client.receive(indication("203.0.113.77"), play.now)
    play.exchange()
    assert play.told() == [Data(PEER, b"data")]


def test_messages_that_are_not_for_the_client_are_left_to_others() -> None:
    play = ready()
    stranger = encode(Method.BINDING, Class.SUCCESS, bytes(12), [])
    request = encode(Method.BINDING, Class.REQUEST, bytes(12), [])
    assert not play.client.receive(stranger, play.now)
    assert not play.client.receive(request, play.now)
    assert not play.client.receive(b"\x01\x00\x00\x00 handshake", play.now)


def test_a_closed_client_gives_the_allocation_back_and_is_silent() -> None:
    play = ready()
    play.client.bind(PEER, play.now)
    play.exchange()
    play.client.close(play.now)
    (last,) = play.client.take_transmits()
    message = encode(Method.REFRESH, Class.REQUEST, bytes(12), [(int(Attribute.LIFETIME), bytes(4))])
    assert message[20:28] in last
    assert play.client.next_deadline() is None
    assert play.client.bind(OTHER, play.now) is None
    play.client.permit([OTHER.ip], play.now)
    play.client.send(PEER, b"late", play.now)
    play.client.handle_timeout(play.now + 1000)
    assert play.client.take_transmits() == []
    assert play.client.relayed == ()


def test_secrets_are_not_shown() -> None:
    play = ready()
    play.client.credentials("anna", "hunter2", play.now)
    shown = repr(vars(play.client._allocation)) + repr(vars(play.client))
    assert "hunter2" not in shown
    assert "secret" not in shown


def test_a_name_too_long_for_stun_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="at most 508 bytes"):
        TurnClient(server=SERVER, username="ä" * 255, password="p", random=bytes, now=0.0)


@given(st.binary(max_size=200))
def test_no_bytes_from_the_network_raise(data: bytes) -> None:
    play = ready()
    play.client.receive(data, play.now)


@given(
    st.sampled_from([Method.ALLOCATE, Method.REFRESH, Method.BINDING, Method.CHANNEL_BIND, Method.CREATE_PERMISSION]),
    st.sampled_from(list(Class)),
    st.lists(st.tuples(st.sampled_from([int(one) for one in Attribute]), st.binary(max_size=40)), max_size=6),
    st.booleans(),
)
def test_no_answer_with_or_without_integrity_raises(
    method: Method, cls: Class, attributes: list[tuple[int, bytes]], proved: bool
) -> None:
    play = Play()
    without = {Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256, Attribute.FINGERPRINT}
    attributes = [one for one in attributes if one[0] not in without]

    def interfere(message: Message) -> list[bytes]:
        key = play.script.key if proved else None
        kind = message.method if method == Method.BINDING else method
        return [encode(kind, cls, message.transaction, attributes, key=key, sha256=False, sha1=True)]

    play.interfere = interfere
    play.client.bind(PEER, play.now)
    play.run(100)


def test_relayed_addresses_are_known_while_ready_only() -> None:
    play = Play()
    assert play.client.relayed == ()
    play.exchange()
    assert play.client.relayed[0] == RELAYED4
