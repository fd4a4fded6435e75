"""``python -m fuzz.make_seeds``: writes ``fuzz/seeds``, small valid inputs of each target to begin with."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import dns.message
import msgspec

from fuzz.run import SEEDS
from tests.support.gateways import description, soap_answer, soap_fault
from tests.support.networks import MadeNetwork
from warren.engine.rootless import messages
from warren.identity.keys import PublicKey
from warren.linux.netlink_values import Address, Route
from warren.model.datagrams import ControlDatagram, PathWanted, PeerHeard
from warren.model.envelope import pack_envelope
from warren.model.tunnel import TransportAddress, Way
from warren.model.verified import Verified
from warren.proto import control_port, proxy_protocol
from warren.proto.stun import attributes
from warren.proto.stun.attributes import ChangeRequest
from warren.proto.stun.binding import pack_binding_request
from warren.proto.stun.message import Attribute, Class, Method, encode

TRANSACTION = bytes(range(12))
FOUR, SIX = TransportAddress(IPv4Address("192.0.2.1"), 4000), TransportAddress(IPv6Address("2001:db8::1"), 4000)
VECTORS = Path(__file__).parent.parent / "tests/vectors/stun/messages.json"


def main() -> None:
    made = {
        **stun(),
        **turn(),
        **portmap(),
        **wireguard(),
        **nest(),
        **documents(),
        **ftp(),
        **proxy(),
        **socks_and_tftp(),
        **ingress(),
        **others(),
    }
    for target, seeds in made.items():
        directory = SEEDS / target
        directory.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            (directory / f"{number:02}").write_bytes(seed)


def stun() -> dict[str, list[bytes]]:
    messages = [bytes.fromhex(vector["message"]) for vector in json.loads(VECTORS.read_text(encoding="utf-8"))]
    change = (Attribute.CHANGE_REQUEST, attributes.pack_change_request(ChangeRequest(address=True, port=True)))
    port = (Attribute.RESPONSE_PORT, attributes.pack_port(4000))
    binding = [pack_binding_request(TRANSACTION, more) for more in ((), (change,), (port,))]
    answers = [
        encode(
            Method.BINDING,
            Class.SUCCESS,
            TRANSACTION,
            [
                (Attribute.XOR_MAPPED_ADDRESS, attributes.pack_xor_address(FOUR, bytes(12))),
                (Attribute.OTHER_ADDRESS, attributes.pack_address(TransportAddress(IPv4Address("203.0.113.2"), 3479))),
            ],
        )
    ]
    values = [
        attributes.pack_address(FOUR),
        attributes.pack_address(SIX),
        attributes.pack_error_code(420, "no"),
        attributes.pack_channel_number(0x4000),
        attributes.pack_password_algorithms([attributes.MD5, attributes.SHA256]),
        b"text",
    ]
    return {
        "stun_message": messages + binding,
        "stun_attributes": [bytes((number,)) + value for number, value in enumerate(values)],
        "stun_server": binding,
        "stun_discovery": [answer[:8] + answer[20:] for answer in answers],
    }


def turn() -> dict[str, list[bytes]]:
    allocate = encode(
        Method.ALLOCATE, Class.REQUEST, TRANSACTION, [(Attribute.REQUESTED_TRANSPORT, bytes((17, 0, 0, 0)))]
    )
    refusal = encode(
        Method.ALLOCATE,
        Class.ERROR,
        TRANSACTION,
        [
            (Attribute.ERROR_CODE, attributes.pack_error_code(401)),
            (Attribute.REALM, b"warren"),
            (Attribute.NONCE, b"obMatJos2AAABnonce"),
        ],
    )
    frame = b"\x40\x00\x00\x08abcdefgh"
    cut = refusal[:8] + refusal[20:]
    return {
        "turn_channel": [(len(frame) - 1).to_bytes(2) + frame * 3, b"\0\x0b" + frame[:11] + b"\x7f"],
        "turn_streams": [frame * 2 + allocate, allocate + frame],
        "stream_framings": [frame * 2 + allocate, b"\0\x04abcd\0\x02ab\0\0"],
        "turn_client": [bytes((len(cut),)) + cut],
        "turn_server": [allocate, encode(Method.REFRESH, Class.REQUEST, TRANSACTION, key=b"key")],
    }


def portmap() -> dict[str, list[bytes]]:
    http = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    xml = [
        description(1),
        description(2),
        soap_answer("GetExternalIPAddress", {"NewExternalIPAddress": "192.0.2.1"}),
        soap_fault(718),
    ]
    return {
        "natpmp": [bytes.fromhex("00800000000000ffc0000201"), bytes.fromhex("00810000000000ff0fa00fa000001c20")],
        "pcp": [
            bytes.fromhex("0281000000001c20000000ff")
            + bytes(12)
            + bytes(12)
            + bytes.fromhex("110000000fa00fa0")
            + SIX.ip.packed,
            bytes.fromhex("028000000000000000000001") + bytes(12),
        ],
        "ssdp": [
            (
                b"HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
                b"LOCATION: http://192.168.1.1:5000/rootDesc.xml\r\n\r\n"
            ),
            b"http://[fe80::1]:80/x",
        ],
        "upnp_http": [bytes((len(one),)) + one for one in (http, chunked)],
        "upnp_xml": [text.encode() for text in xml],
    }


def wireguard() -> dict[str, list[bytes]]:
    key = PublicKey(bytes(32))
    way = Way(source=FOUR.ip, interface=2, channel=0x4001)
    return {
        "wireguard_messages": [
            b"\1\0\0\0" + bytes(144),
            b"\2\0\0\0" + bytes(88),
            b"\3\0\0\0" + bytes(60),
        ],
        "uapi": [
            b"get=1\n",
            b"set=1\nlisten_port=51820\npublic_key=" + b"ab" * 32 + b"\nendpoint=192.0.2.1:9\nallowed_ip=10.0.0.0/8\n",
            b"listen_port=1\npublic_key=" + b"ab" * 32 + b"\nrx_bytes=1\nerrno=0\n",
        ],
        "control_port": [
            control_port.pack(message)
            for message in (ControlDatagram(b"data", FOUR, way), PeerHeard(key, SIX, way), PathWanted(key))
        ],
    }


def nest() -> dict[str, list[bytes]]:
    route = Route(IPv6Network("fd00::/64"), "wg0", 7, SIX.ip, 1400, 9, True)
    address = Address("wg0", IPv4Interface("10.1.2.3/24"))
    return {
        "nest_messages": [
            messages.pack_frame(message)
            for message in (
                messages.OpenSockets(2, 1, 6, 3),
                messages.AddAddress(messages.pack_address(address)),
                messages.AddRoute(messages.pack_route(route)),
                messages.RunNft([{"add": {"table": {"family": "inet", "name": "x"}}}]),
                messages.answer_of([messages.pack_route(route)]),
                messages.Answer(refused="no"),
            )
        ]
    }


def proxy() -> dict[str, list[bytes]]:
    checked = proxy_protocol.SIGNATURE + bytes.fromhex("21110013c0000201c6336402c82201bb0300040000") + bytes(2)
    return {
        "proxy_header": [
            proxy_protocol.encode(FOUR, FOUR) + b"GET / HTTP/1.1\r\n",
            proxy_protocol.encode(SIX, FOUR),
            proxy_protocol.encode(None, None, local=True),
            proxy_protocol.encode(None, None),
            checked[:-4] + proxy_protocol.crc32c(checked).to_bytes(4),
            proxy_protocol.SIGNATURE + bytes.fromhex("213100d8") + bytes(216),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        ]
    }


def ftp() -> dict[str, list[bytes]]:
    def talk(*lines: bytes) -> bytes:
        """Lines of client and server in turn, each after the byte that says how data connections go."""
        return b"".join(bytes([len(line)]) + line for line in lines)

    return {
        "ftp_addresses": [
            b"192,0,2,7,200,10",
            b"|1|192.0.2.7|5282|",
            b"|2|2001:db8::7|5282|",
            b"Entering Extended Passive Mode (|||6446|)",
            b"Entering Passive Mode (192,0,2,7,200,10).",
        ],
        "ftp_control": [
            talk(b".EPSV\r\n", b"o229 x (|||6446|)\r\n", b"ORETR a\r\n", b".150 x\r\n226 y\r\n"),
            talk(b".PASV\r\n", b".500 ?\r\n", b".", b"o227 (192,0,2,7,200,10)\r\n", b".LIST\r\n", b"f425 x\r\n"),
            talk(b".PORT 192,0,2,7,200,10\r\n", b".229 x (|||6446|)\r\n", b".STOR a\r\n", b"O", b".ABOR\r\n"),
            talk(b".FEAT\r\n", b".211-x\r\n AUTH TLS\r\n211 end\r\n", b".\xff\xfd\x01STAT\r\n", b".211 x\r\n"),
        ],
    }


def documents() -> dict[str, list[bytes]]:
    made = MadeNetwork()
    signed: list[Verified[Any]] = [
        made.spec(),
        made.membership("a"),
        made.record("a"),
        made.revocation("a"),
        made.ticket(),
    ]
    kinds = sorted(one.envelope.kind for one in signed)
    return {
        "envelope": [pack_envelope(one.envelope) for one in signed],
        "documents": [bytes((kinds.index(one.envelope.kind),)) + one.envelope.payload for one in signed],
        "control_messages": [
            msgspec.msgpack.encode({"type": kind, "network": made.key.raw, "revision": 1, "documents": []})
            for kind in ("welcome", "refused", "update", "published", "authenticate", "enrol", "publish")
        ],
        "tickets": [b"warren:ticket", b"warren-access:x"],
    }


def ingress() -> dict[str, list[bytes]]:
    name = bytes.fromhex("0000000e000c00000961") + b".example"
    rest = bytes.fromhex("002b0003020304")
    body = bytes.fromhex("0303") + bytes(32) + bytes.fromhex("000002130101000019") + name + rest
    hello = b"\x01" + len(body).to_bytes(3) + body
    cut = [hello[:20], hello[20:]]
    return {
        "tls_hello": [
            b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces) for pieces in ([hello], cut)
        ],
        "caddys_questions": [b"GET /127.0.0.1/40000/443 HTTP/1.1\r\nHost: x\r\nAccept: a"],
    }


def socks_and_tftp() -> dict[str, list[bytes]]:
    return {
        "socks_client": [
            bytes.fromhex("050100"),
            bytes.fromhex("05010001 0a4d0002 0050"),
            bytes.fromhex("05030004 fd770000000000000000000000000002 0035"),
            b"\5\1\0\3\x08web.home\0\x50",
            b"\0\0\0\3\x08web.home\0\x35query",
            b"\0\0\0\1\x0a\x4d\0\2\0\x35query",
            b"\4\1\0\x50\x0a\0\0\1\0",
        ],
        "tftp_packets": [
            b"\0\1boot.img\0octet\0blksize\0001428\0",
            b"\0\2a\0netascii\0",
            b"\0\3\0\1content",
            b"\0\5\0\1no such file\0",
            b"\0\6blksize\0001428\0",
        ],
    }


def others() -> dict[str, list[bytes]]:
    query = dns.message.make_query("some.big.internal", "AAAA", use_edns=0).to_wire()
    return {
        "path_signals": [b"\x83\x01\x90\xc0", b"\x06\0\x24\0\0\0\1\x0a\x80\x2a" + bytes(8)],
        "nat_words": [b"4:eim,apdf,preserving", b"udp eim apdf random hairpin 120"],
        "dns_queries": [query, dns.message.make_query("x.example", "A").to_wire()],
        "echo_replies": [bytes(8) + b"t" * 8, b"\x45" + bytes(27) + b"t" * 8],
        "captive_portals": [
            b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n",
            b"HTTP/1.1 511 x\r\n\r\n",
        ],
    }


if __name__ == "__main__":
    main()
