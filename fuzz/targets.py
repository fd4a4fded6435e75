"""What is fuzzed: functions of bytes that must neither raise nor hang, whatever the bytes are.

Each lets the one kind of error pass that its decoder is documented to raise. They import what they test themselves, so
that the fuzzer instruments only that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from warren.errors import MalformedPacket, WarrenError

Target = Callable[[bytes], None]

NOW: Final = 1000.0


# STUN and TURN


def stun_message(data: bytes) -> None:
    from warren.proto.stun.credentials import verifies
    from warren.proto.stun.message import decode_untrusted, encode, looks_like_stun, unknown_required

    looks = looks_like_stun(data)
    with suppress(MalformedPacket):
        message = decode_untrusted(data)
        assert looks or data[1] == 0
        assert not verifies(message, b"a key that nobody has")
        unknown_required(message, {6, 36})
        again = decode_untrusted(encode(message.method, message.cls, message.transaction, message.attributes[:8]))
        assert again.method == message.method


def stun_attributes(data: bytes) -> None:
    from warren.proto.stun import attributes

    names = sorted(name for name in vars(attributes) if name.startswith("unpack_"))
    unpack: Any = getattr(attributes, names[data[0] % len(names) if data else 0])
    with suppress(MalformedPacket):
        unpack(data[1:], bytes(12)) if "xor" in unpack.__name__ else unpack(data[1:])


def stun_server(data: bytes) -> None:
    from warren.model.tunnel import TransportAddress
    from warren.proto.stun.message import decode_untrusted
    from warren.proto.stun.server import BindingServer, Discovery

    local = TransportAddress(ip_address("203.0.113.1"), 3478)
    discovery = Discovery((local.ip, IPv4Address("203.0.113.2")), (3478, 3479))
    with suppress(MalformedPacket):
        message = decode_untrusted(data)
        reply = BindingServer(discovery=[discovery]).answer(message, _remote(), local, NOW)
        assert reply is None or len(reply.data) <= len(data)


def stun_discovery(data: bytes) -> None:
    from warren.model.tunnel import TransportAddress
    from warren.proto.stun.behaviour_discovery import BehaviourDiscovery

    server, local = TransportAddress(IPv4Address("203.0.113.1"), 3478), TransportAddress(IPv4Address("10.0.0.1"), 1)
    machine = BehaviourDiscovery(servers=[server], local=(local, local), random=bytes, now=NOW)
    machine.take_transmits()
    machine.receive(data[:8] + bytes(12) + data[8:], server, 0, NOW)
    assert len(machine.take_transmits()) <= 4
    assert machine.behaviour.answered in {(), (server,)}


def turn_channel(data: bytes) -> None:
    from warren.proto.turn.channel import unwrap_train_untrusted

    stride = 1 + int.from_bytes(data[:2])
    train = bytearray(data[2:])
    if train:
        runs, malformed = unwrap_train_untrusted(train, len(train), stride)
        assert all(0 <= run[1] <= run[2] <= len(train) for run in runs)
        assert 0 <= malformed <= len(train)


def turn_streams(data: bytes) -> None:
    from warren.relay.streams import Garbage, take_frames_untrusted

    inbox = bytearray(data)
    with suppress(Garbage):
        take_frames_untrusted(inbox, message_bytes_max=2048)
        assert len(inbox) <= len(data)


def turn_client(data: bytes) -> None:
    from warren.proto.turn.client import TurnClient

    client = TurnClient(server=_remote(), username="user", password="password", random=bytes, now=NOW)
    for piece in _pieces(data):
        client.take_transmits()
        client.receive(piece[:8] + bytes(12) + piece[8:], NOW)
    client.take_events()
    client.close(NOW)


def turn_server(data: bytes) -> None:
    from warren.proto.turn.filter import PeerFilter
    from warren.proto.turn.server import TurnServer
    from warren.proto.turn.server_values import UDP, Client, Settings

    class Nobody:
        def passwords(self, username: str) -> tuple[str, ...]:
            return ("password",)

        def identity(self, username: str) -> str:
            return username

        def open_relayed(self, family: int, port: int) -> object | None:
            return None

        def close_relayed(self, handle: object) -> None: ...

    client = Client(UDP, ("198.51.100.7", 40000), b"")
    server = TurnServer(Settings((IPv4Address("203.0.113.1"),)), Nobody(), PeerFilter(), Nobody(), bytes)
    server.receive(data, client, NOW)
    assert len(server.take_transmits()) <= 1


def stream_framings(data: bytes) -> None:
    from warren.reach.bridge_framing import LengthFraming, TurnFraming

    for framing in (LengthFraming(), TurnFraming()):
        buffer = bytearray(data)
        with suppress(MalformedPacket):
            trains, at = framing.unpack_untrusted(buffer, 0, len(buffer))
            assert 0 <= at <= len(buffer)
            assert sum(len(train.data) for train in trains) <= len(buffer)


# Port mapping


def natpmp(data: bytes) -> None:
    from warren.proto.portmap.natpmp import unpack_answer_untrusted

    with suppress(MalformedPacket):
        unpack_answer_untrusted(data)


def pcp(data: bytes) -> None:
    from warren.proto.portmap.pcp import is_nat_pmp_untrusted, unpack_answer_untrusted

    with suppress(MalformedPacket):
        is_nat_pmp_untrusted(data)
    with suppress(MalformedPacket):
        unpack_answer_untrusted(data)


def ssdp(data: bytes) -> None:
    from warren.proto.portmap.ssdp import location_untrusted, unpack_answer_untrusted

    with suppress(MalformedPacket):
        unpack_answer_untrusted(data)
    with suppress(MalformedPacket):
        location_untrusted(data.decode("latin-1"))


def upnp_http(data: bytes) -> None:
    from warren.proto.portmap.http import ResponseReader

    reader = ResponseReader()
    with suppress(MalformedPacket):
        for piece in _pieces(data):
            if reader.receive_untrusted(piece):
                break
        reader.end_untrusted()


def upnp_xml(data: bytes) -> None:
    from warren.proto.portmap.http import Response
    from warren.proto.portmap.igd import unpack_action_untrusted, unpack_description_untrusted
    from warren.proto.portmap.ssdp import Location
    from warren.proto.portmap.xml import parse_untrusted

    with suppress(MalformedPacket):
        parse_untrusted(data)
    with suppress(MalformedPacket):
        unpack_description_untrusted(data, Location(ip_address("192.168.1.1"), 5000, "/root.xml"))
    for status in (200, 500):
        with suppress(MalformedPacket):
            unpack_action_untrusted(Response(status, {}, data), "AddPortMapping")


# WireGuard and the data plane


def wireguard_messages(data: bytes) -> None:
    from warren.proto.wireguard.messages import (
        unpack_cookie_reply_untrusted,
        unpack_initiation_untrusted,
        unpack_response_untrusted,
    )

    for unpack in (unpack_initiation_untrusted, unpack_response_untrusted, unpack_cookie_reply_untrusted):
        with suppress(MalformedPacket):
            unpack(data)


def uapi(data: bytes) -> None:
    from warren.proto.uapi import unpack_request_untrusted
    from warren.proto.uapi_answers import unpack_answer_untrusted, unpack_status_untrusted

    with suppress(MalformedPacket):
        unpack_request_untrusted(data, _no_zone)
    with suppress(MalformedPacket):
        unpack_status_untrusted(unpack_answer_untrusted(data), _no_zone)


def control_port(data: bytes) -> None:
    from warren.proto.control_port import pack, unpack_untrusted

    with suppress(MalformedPacket):
        message = unpack_untrusted(data)
        assert unpack_untrusted(pack(message)) == message


def nest_messages(data: bytes) -> None:
    from warren.engine.rootless import messages
    from warren.linux import tcp_sockets

    with suppress(MalformedPacket):
        messages.frame_length_untrusted(data[: messages.LENGTH_BYTES])
    body = data[messages.LENGTH_BYTES :]
    with suppress(MalformedPacket):
        request = messages.unpack_request_untrusted(body)
        again = messages.unpack_request_untrusted(messages.pack_frame(request)[messages.LENGTH_BYTES :])
        assert again == request or request != request  # noqa: PLR0124 - a NaN in a document of rules
        match request:
            case messages.AddAddress(address):
                messages.pack_address(messages.address_untrusted(address))
            case messages.AddRoute(route):
                messages.pack_route(messages.route_untrusted(route))
            case messages.Connections(prefixes):
                messages.prefixes_untrusted(prefixes)
            case messages.EndConnections(sockets):
                tcp_sockets.pack_sockets(tcp_sockets.sockets_untrusted(sockets))
    with suppress(MalformedPacket):
        messages.value_untrusted(messages.unpack_answer_untrusted(body), tuple[messages.WireRoute, ...])


# Documents and control messages


def envelope(data: bytes) -> None:
    from warren.identity.signing import VerifyKey
    from warren.model.envelope import unpack_envelope_untrusted
    from warren.model.verified import verify

    with suppress(MalformedPacket):
        carried = unpack_envelope_untrusted(data)
        verify(carried, VerifyKey(carried.signer))


def documents(data: bytes) -> None:
    """The payload of a document, signed, so that it is read."""
    from warren.identity.signing import SigningKey
    from warren.model.documents import KINDS
    from warren.model.envelope import seal
    from warren.model.verified import verify

    kinds = sorted(KINDS)
    key = _signer()
    assert isinstance(key, SigningKey)
    with suppress(MalformedPacket):
        verify(seal(kinds[data[0] % len(kinds)] if data else "", data[1:], key), key.verify_key)


def control_messages(data: bytes) -> None:
    from warren.proto.control.messages import unpack_from_node_untrusted, unpack_to_node_untrusted

    with suppress(MalformedPacket):
        unpack_to_node_untrusted(data)
    for authenticated in (False, True):
        with suppress(MalformedPacket):
            unpack_from_node_untrusted(data, authenticated=authenticated)


def tickets(data: bytes) -> None:
    from warren.model.tickets import read_access, read_ticket

    text = data.decode("latin-1")
    with suppress(WarrenError):
        read_ticket(text, NOW)
    with suppress(WarrenError):
        read_access(text)


# The rest


def path_signals(data: bytes) -> None:
    from warren.paths.checks import read_answer_untrusted, read_request_untrusted
    from warren.paths.signals import read_signal_untrusted
    from warren.proto.stun.message import Class, Message

    with suppress(MalformedPacket):
        read_signal_untrusted(Message(0x0F1, Class.INDICATION, bytes(12), ((0x13, data),)))
    attributes = tuple((int.from_bytes(piece[:2]), piece[2:]) for piece in _pieces(data))
    for read in (read_request_untrusted, read_answer_untrusted):
        with suppress(MalformedPacket):
            read(Message(1, Class.REQUEST, bytes(12), attributes))


def nat_words(data: bytes) -> None:
    from warren.paths.nat import Situation, behaviour_from_text_untrusted

    text = data.decode("latin-1")
    for read in (behaviour_from_text_untrusted, Situation.from_text_untrusted):
        with suppress(MalformedPacket):
            read(text)


def dns_queries(data: bytes) -> None:
    for tcp in (False, True):
        _answers().answer_untrusted(data, tcp=tcp)


def echo_replies(data: bytes) -> None:
    from warren.cli.ping_echo import echo_reply_untrusted

    for version, with_ip_header in ((4, True), (4, False), (6, False)):
        with suppress(MalformedPacket):
            echo_reply_untrusted(version, data, b"t" * 8, with_ip_header=with_ip_header)


def tls_hello(data: bytes) -> None:
    from warren.proto.tls_hello import server_name_untrusted

    with suppress(MalformedPacket):
        found = server_name_untrusted(data)
        assert found is None or server_name_untrusted(data + b"more") == found


def caddys_questions(data: bytes) -> None:
    from warren.l4.peer_lookup import Became, question_untrusted

    with suppress(MalformedPacket):
        question = question_untrusted(data)
        assert len(question.nonce) == 16 if isinstance(question, Became) else question.server < 100_000


def captive_portals(data: bytes) -> None:
    from warren.doctor.web import portal_in_untrusted

    assert portal_in_untrusted(data, "c.example").isprintable()


def ftp_addresses(data: bytes) -> None:
    from warren.proto.ftp.addresses import (
        decode_eprt_untrusted,
        decode_port_untrusted,
        encode_pasv,
        epsv_reply_untrusted,
        pasv_reply_untrusted,
    )

    with suppress(MalformedPacket):
        where = decode_port_untrusted(data)
        assert decode_port_untrusted(encode_pasv(where)) == where
    with suppress(MalformedPacket):
        assert 1 <= decode_eprt_untrusted(data).port <= 65_535
    with suppress(MalformedPacket):
        assert 1 <= epsv_reply_untrusted(data) <= 65_535
    with suppress(MalformedPacket):
        assert pasv_reply_untrusted(data).ip.version == 4


def ftp_control(data: bytes) -> None:
    """Pieces for the client and the server in turn; their first byte says how data connections go meanwhile."""
    from warren.proto.ftp.actions import Join, Offer, ToClient, ToServer
    from warren.proto.ftp.translator import Translator

    client = ip_address("192.0.2.7")
    machine = Translator(client=client, local=ip_address("192.0.2.1"), server=ip_address("203.0.113.1"))
    machine.receive_server(b"220 ready\r\n")
    number = 0
    for turn, piece in enumerate(_pieces(data)):
        (machine.receive_server if turn % 2 else machine.receive_client)(piece[1:])
        for action in machine.take_actions():
            if isinstance(action, ToServer):
                line = action.data.removesuffix(b"\r\n")
                assert not {10, 13, 0} & set(line)
                assert line[:5].upper() not in {b"PORT ", b"EPRT ", b"AUTH "}
            elif isinstance(action, ToClient):
                assert b"\r" not in action.data.removesuffix(b"\r\n")
            elif isinstance(action, Offer | Join):
                number = action.number
                assert action.server_port >= 1024
                assert isinstance(action, Offer) or (action.client.ip == client and action.client.port >= 1024)
        match piece[:1]:
            case b"o":
                machine.offered(number, 50_000)
                machine.arrived(number)
            case b"O":
                machine.opened(number)
            case b"f":
                machine.failed(number, "nobody came")


def proxy_header(data: bytes) -> None:
    from warren.proto.proxy_protocol import decode_untrusted, missing_untrusted

    with suppress(MalformedPacket):
        missing = missing_untrusted(data)
        decoded = decode_untrusted(data)
        assert (decoded is None) == (missing > 0)
        assert decoded is None or 16 <= decoded[1] <= len(data)


# SOCKS and TFTP


def socks_client(data: bytes) -> None:
    from warren.proto import socks

    for parse in (socks.greeting_untrusted, socks.request_untrusted):
        with suppress(MalformedPacket):
            parsed = parse(data)
            assert parsed is None or parsed[1] <= len(data)
    with suppress(MalformedPacket):
        datagram = socks.datagram_untrusted(data)
        assert datagram.offset <= len(data)


def tftp_packets(data: bytes) -> None:
    from warren.proto.tftp import request_untrusted, transfer_opcode_untrusted

    with suppress(MalformedPacket):
        assert request_untrusted(data).filename
    for from_server in (False, True):
        with suppress(MalformedPacket):
            transfer_opcode_untrusted(data, from_server=from_server)


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (
        stun_message, stun_attributes, stun_server, stun_discovery,
        turn_channel, turn_streams, turn_client, turn_server, stream_framings,
        natpmp, pcp, ssdp, upnp_http, upnp_xml,
        wireguard_messages, uapi, control_port, nest_messages,
        envelope, documents, control_messages, tickets,
        path_signals, nat_words, dns_queries, echo_replies, captive_portals, tls_hello, caddys_questions, proxy_header,
        ftp_addresses, ftp_control,
        socks_client, tftp_packets,
    )
}  # fmt: skip


def _remote() -> Any:
    from warren.model.tunnel import TransportAddress

    return TransportAddress(IPv6Address("2001:db8::7"), 40000)


def _no_zone(name: str) -> int:
    raise OSError(name)


def _pieces(data: bytes) -> list[bytes]:
    """``data`` cut into pieces, each behind a byte that says how long it is: at most 64."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data) and len(pieces) < 64:
        end = at + 1 + data[at]
        pieces.append(data[at + 1 : end])
        at = end
    return pieces


@cache
def _signer() -> object:
    from warren.identity.signing import SigningKey

    return SigningKey(bytes(range(32)))


@cache
def _answers() -> Any:
    from warren.dns.answers import Answers
    from warren.dns.names import Zone

    answers = Answers()
    addresses = {"some.big.internal": tuple(IPv6Address(number) for number in range(1, 60))}
    answers.set_zones([Zone("big.internal", addresses)])
    return answers
