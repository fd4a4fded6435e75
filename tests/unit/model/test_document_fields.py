"""Every field of every document: what it may be and what not, even when the right key signed it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.support.networks import MadeNetwork
from warren.errors import MalformedPacket
from warren.identity.signing import SigningKey
from warren.model.documents import Document
from warren.model.envelope import Envelope, seal
from warren.model.verified import Verified, sign, verify

HOME = MadeNetwork()
DOCUMENTS: dict[str, Verified[Document]] = {
    "network": HOME.spec(),
    "membership": HOME.membership("web"),
    "revocation": HOME.revocation(),
    "node": HOME.record("web"),
    "ticket": HOME.ticket(),
}
SIGNERS: dict[str, SigningKey] = {kind: HOME.node("web") if kind == "node" else HOME.authority for kind in DOCUMENTS}


def resealed(kind: str, change: dict[str, Any]) -> Envelope:
    content = {**msgspec.msgpack.decode(DOCUMENTS[kind].envelope.payload), **change}
    return seal(kind, msgspec.msgpack.encode(content), SIGNERS[kind])


KEY = bytes(range(32))
COORDINATOR: dict[str, Any] = {"url": "https://c.example", "key": KEY}
RULE: dict[str, Any] = {"action": "allow", "sources": ["members"], "destinations": ["members"]}
CANDIDATE: dict[str, Any] = {"kind": "host", "address": "192.0.2.1", "port": 1}

GOOD: list[tuple[str, dict[str, Any]]] = [
    *(("network", {"version": version}) for version in (1, 2**63 - 1)),
    *(("network", {"name": name}) for name in ("a", "0", "a-b", "a" * 63, "xn--mgba")),
    *(("network", {"suffix": suffix}) for suffix in ("internal", "a.b.c", "home.arpa", "a." * 7 + "a", "x" * 63)),
    *(("network", {"prefix4": prefix}) for prefix in (None, "10.0.0.0/8", "192.168.1.0/29")),
    *(
        ("network", {"coordinators": [{**COORDINATOR, "url": url}]})
        for url in ("https://c", "https://c:8443", "https://[2001:db8::1]:443/", "https://c/path", "https://192.0.2.1")
    ),
    ("network", {"policy": []}),
    ("network", {"policy": [RULE] * 4096}),
    *(
        ("network", {"policy": [{**RULE, **change}]})
        for change in (
            {"sources": ["members", "member:web-1", "tag:a_b-1", "10.0.0.0/8", "fd00::/8", "0.0.0.0/0", "::/0"]},
            {"sources": ["192.0.2.1/32", "2001:db8::1/128"]},
            {"protocol": "tcp", "ports": ["1", "65535", "22", "8000-8100", "1-65535"]},
            {"protocol": "udp"},
            {"protocol": "icmp"},
            {"comment": "Grüße, 世界"},
        )
    ),
    *(("membership", {"routes": routes}) for routes in ([], ["10.0.0.0/8", "2001:db8::/32"])),
    *(("membership", {"address4": address}) for address in (None, "10.77.0.1")),
    ("membership", {"tags": ["a", "a-b_c", "z" * 63]}),
    ("membership", {"ephemeral": True, "not_before": 0, "not_after": 2**40}),
    ("revocation", {"nodes": []}),
    ("revocation", {"nodes": [KEY] * 16_384}),
    *(
        ("node", {"candidates": [{**CANDIDATE, "address": address}]})
        for address in ("192.0.2.1", "2001:db8::1", "fe80::1", "10.0.0.1", "169.254.1.1", "64:ff9b::c000:201")
    ),
    *(
        ("node", {"candidates": [{**CANDIDATE, "kind": kind}]})
        for kind in ("host", "stated", "mapped", "srflx", "prflx", "relay")
    ),
    ("node", {"candidates": [CANDIDATE] * 64, "next_wireguard_key": KEY}),
    *(
        ("node", {"reachability": how, "next_wireguard_key": None})
        for how in ("unknown", "hidden", "hidden-dual-stack", "public")
    ),
    *(("ticket", {"secret": bytes(length)}) for length in (16, 64)),
    ("ticket", {"coordinators": [COORDINATOR] * 4}),
]

BAD: list[tuple[str, dict[str, Any]]] = [
    *((kind, {"version": version}) for kind in DOCUMENTS for version in (0, -1, 2**63, 1.0, "1", None, True)),
    *((kind, {"network": network}) for kind in DOCUMENTS for network in (b"", bytes(31), bytes(33), "x" * 32, None)),
    *(
        ("network", {"name": name})
        for name in ("", "A", "a_b", "-a", "a-", "a" * 64, "a.b", "a b", "a\n", "\na", "ä", "a\0", "a\u200b")
    ),
    *(
        ("network", {"suffix": suffix})
        for suffix in ("", ".", "a.", ".a", "a..b", "A", "a\n", "-", "a.-b", "x" * 64, "a." * 8 + "a",
                       "ab." * 42 + "ab")
    ),
    *(
        ("network", {"prefix6": prefix})
        for prefix in ("fd00::/47", "fd00::/49", "FD00::/48", "fd00:0::/48", "fd00::1/48", "10.0.0.0/8", "fd00::", "",
                       "fd00::%1/48", "fd00::%eth0/48", "::ffff:0.0.0.0/96", "fd00::/48\n", None)
    ),
    *(
        ("network", {"prefix4": prefix})
        for prefix in ("10.0.0.1/8", "10.0.0.0", "010.0.0.0/8", "10.0.0.0/255.0.0.0", "10.0.0.0/08", "fd00::/48", "",
                       "10.0.0.0/8 ", "١٠.0.0.0/8")
    ),
    *(
        ("network", {"coordinators": [{**COORDINATOR, "url": url}]})
        for url in ("", "http://c", "https://", "https:///", "https://u:p@c", "https://c?x", "https://c#x",
                    "https://c d", "https://c\n", "https://c/\n", "https://c/\x1b[2J", "HTTPS://c", "https://ü",
                    "https://" + "c" * 256)
    ),
    ("network", {"coordinators": [{**COORDINATOR, "key": bytes(31)}]}),
    ("network", {"coordinators": [COORDINATOR] * 17}),
    *(("network", {"lease_s": seconds}) for seconds in (-1, 2**40 + 1, 1.5)),
    ("network", {"policy": [RULE] * 4097}),
    *(
        ("network", {"policy": [{**RULE, **change}]})
        for change in (
            {"action": "maybe"},
            {"action": None},
            {"sources": []},
            {"destinations": []},
            {"sources": ["members"] * 1025},
            *(
                {side: [selector]}
                for side in ("sources", "destinations")
                for selector in ("", "member", "member:", "member:A", "member:a\n", "members:", "members ", "tag:",
                                 "tag:A", "tag:1", "any", "*", "web", "192.0.2.1", "10.0.0.1/8", "fd00::%1/64",
                                 "fe80::1%a/128", "::ffff:10.0.0.0/104", "::ffff:a00:0/104", "tag:x" + "x" * 63,
                                 "10.0.0.0/8\n")
            ),
            {"protocol": "sctp"},
            {"protocol": "any", "ports": ["1"]},
            {"protocol": "icmp", "ports": ["1"]},
            {"ports": ["1"]},
            {"protocol": "tcp", "ports": ["1"] * 257},
            *(
                {"protocol": "tcp", "ports": [ports]}
                for ports in ("", "0", "65536", "1-0", "2-1", "-1", "1-", "022", "22\n", " 22", "٢٢", "1-2-3", "http",
                              "99999")
            ),
            {"comment": "a\n"},
            {"comment": "\x1b[2J"},
            {"comment": "x" * 257},
        )
    ),
    *(("membership", {"node": node}) for node in (bytes(31), bytes(33), "x" * 32)),
    *(("membership", {"name": name}) for name in ("", "Web", "web\n")),
    *(("membership", {"prefix6": prefix}) for prefix in ("fd00::/48", "fd00::/65", "fd00::1/64", "10.0.0.0/8")),
    *(
        ("membership", {"address4": address})
        for address in ("", "10.77.0.1/32", "010.77.0.1", "fd00::1", "10.77.0.256", "10.77.0.1\n", 1)
    ),
    *(("membership", {"tags": tags}) for tags in (["A"], ["1"], [""], ["a\n"], ["a" * 64], ["a"] * 65, [None])),
    *(("membership", {"routes": routes}) for routes in (["x"], ["10.0.0.1/8"], ["10.0.0.0"], ["10.0.0.0/8"] * 65)),
    *(("membership", {name: value}) for name in ("not_before", "not_after") for value in (-1, 2**40 + 1, 0.5, "0")),
    ("revocation", {"nodes": [bytes(31)]}),
    ("revocation", {"nodes": [KEY] * 16_385}),
    *(("node", {name: key}) for name in ("node", "wireguard_key", "next_wireguard_key") for key in (b"", bytes(33))),
    ("node", {"wireguard_key": None}),
    ("node", {"candidates": [CANDIDATE] * 65}),
    *(
        ("node", {"candidates": [{**CANDIDATE, **change}]})
        for change in (
            {"port": 0},
            {"port": 65_536},
            {"kind": "other"},
            *(
                {"address": address}
                for address in ("", "host.example", "0.0.0.0",  # noqa: S104 - refused, not bound
                                "127.0.0.1", "::", "::1", "224.0.0.1", "ff02::1",
                                "255.255.255.255", "240.0.0.1", "0.1.2.3", "::ffff:192.0.2.1", "::ffff:c000:201",
                                "::c000:201", "fe80::1%1", "fe80::1%eth0", "192.0.2.01", "2001:DB8::1", "192.0.2.1\n")
            ),
        )
    ),
    ("node", {"reachability": "sometimes"}),
    *(("ticket", {"secret": bytes(length)}) for length in (0, 15, 65)),
    ("ticket", {"coordinators": []}),
    ("ticket", {"coordinators": [COORDINATOR] * 5}),
    ("ticket", {"not_after": -1}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change"), GOOD, ids=lambda value: str(value)[:60])
def test_what_a_field_may_be(kind: str, change: dict[str, Any]) -> None:
    document = verify(resealed(kind, change), HOME.key).document
    assert sign(document, SIGNERS[kind]).document == document


@pytest.mark.parametrize(("kind", "change"), BAD, ids=lambda value: str(value)[:60])
def test_what_a_field_may_not_be(kind: str, change: dict[str, Any]) -> None:
    with pytest.raises(MalformedPacket):
        verify(resealed(kind, change), HOME.key)
