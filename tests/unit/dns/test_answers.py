"""Answers out of zones, read by dnspython as its own resolver would."""

from __future__ import annotations

from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.policy_node import member, network
from warren.dns.answers import EDNS_UDP_BYTES, HEADER_BYTES, Answers, Foreign
from warren.dns.names import Zone, records
from warren.model.services import Service

LAPTOP6 = ip_address("fd11:2233:4455:2::1").reverse_pointer


def _answers() -> Answers:
    answers = Answers()
    many = tuple(ip_address(f"fd11:2233:4455:9::{number:x}") for number in range(1, 200))
    addresses = {"many.big.internal": many, "some.big.internal": many[:25]}
    members = [member(2, "laptop"), member(3, "printer")]
    answers.set_zones([records(network(()), members), Zone("big.internal", addresses)])
    return answers


def _ask(query: dns.message.Message, *, tcp: bool = False) -> dns.message.Message:
    response = _answers().answer_untrusted(query.to_wire(), tcp=tcp)
    assert isinstance(response, bytes)
    message = dns.message.from_wire(response)
    assert query.is_response(message)
    return message


def _lines(sections: list[dns.rrset.RRset]) -> list[str]:
    return [line for section in sections for line in section.to_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("laptop.home.internal", "AAAA", ["laptop.home.internal. 30 IN AAAA fd11:2233:4455:2::1"]),
        ("laptop.home.internal", "A", ["laptop.home.internal. 30 IN A 10.7.0.2"]),
        ("LapTop.HOME.internal", "A", ["LapTop.HOME.internal. 30 IN A 10.7.0.2"]),
        (
            "laptop.home.internal",
            "ANY",
            ["laptop.home.internal. 30 IN AAAA fd11:2233:4455:2::1", "laptop.home.internal. 30 IN A 10.7.0.2"],
        ),
        ("3.0.7.10.in-addr.arpa", "PTR", ["3.0.7.10.in-addr.arpa. 30 IN PTR printer.home.internal."]),
        (LAPTOP6, "PTR", [f"{LAPTOP6}. 30 IN PTR laptop.home.internal."]),
        ("home.internal", "NS", ["home.internal. 30 IN NS home.internal."]),
        ("home.internal", "SOA", ["home.internal. 30 IN SOA home.internal. nobody.invalid. 1 3600 1200 604800 5"]),
    ],
)
def test_a_name_of_ours_is_answered(name: str, kind: str, answer: list[str]) -> None:
    response = _ask(dns.message.make_query(name, kind))
    assert _lines(response.answer) == answer
    assert not response.authority
    assert response.rcode() == dns.rcode.NOERROR
    assert response.flags & dns.flags.AA


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("laptop.home.internal", "MX", "NOERROR"),
        ("laptop.home.internal", "HTTPS", "NOERROR"),
        ("home.internal", "A", "NOERROR"),
        ("many.big.internal", "A", "NOERROR"),
        ("0.7.10.in-addr.arpa", "PTR", "NOERROR"),
        (LAPTOP6.split(".", 16)[-1], "PTR", "NOERROR"),
        ("nobody.home.internal", "A", "NXDOMAIN"),
        ("below.laptop.home.internal", "AAAA", "NXDOMAIN"),
        ("\\000.home.internal", "A", "NXDOMAIN"),
        ("77.0.7.10.in-addr.arpa", "PTR", "NXDOMAIN"),
        (f"f.{LAPTOP6.split('.', 17)[-1]}", "PTR", "NXDOMAIN"),
    ],
)
def test_what_is_not_there_is_told_apart(name: str, kind: str, code: str) -> None:
    """RFC 2308 §2: the SOA record says for how long; a name without such records is there all the same."""
    response = _ask(dns.message.make_query(name, kind))
    assert not response.answer
    assert response.rcode() == dns.rcode.from_text(code)
    (soa,) = response.authority
    assert soa.rdtype == dns.rdatatype.SOA
    assert dns.name.from_text(name).is_subdomain(soa.name)
    assert (soa.ttl, soa[0].minimum) == (5, 5)


def test_a_service_is_answered_like_a_member_and_the_label_above_it_is_there() -> None:
    service = Service(name="web", at=("members",), target="localhost:80")
    members = [member(2, "laptop"), member(3, "printer")]
    answers = Answers()
    answers.set_zones([records(msgspec.structs.replace(network(()), services=(service,)), members)])

    def ask(name: str, kind: str) -> dns.message.Message:
        response = answers.answer_untrusted(dns.message.make_query(name, kind).to_wire(), tcp=False)
        assert isinstance(response, bytes)
        return dns.message.from_wire(response)

    addresses = [str(one.service_address("web")) for one in members]
    assert sorted(_lines(ask("web.svc.home.internal", "AAAA").answer)) == [  # dnspython shuffles records of one name
        f"web.svc.home.internal. 30 IN AAAA {address}" for address in sorted(addresses)
    ]
    reverse = ip_address(addresses[0]).reverse_pointer
    assert _lines(ask(reverse, "PTR").answer) == [f"{reverse}. 30 IN PTR web.svc.home.internal."]
    for name, kind in (("web.svc.home.internal", "A"), ("svc.home.internal", "AAAA")):
        assert (ask(name, kind).rcode(), ask(name, kind).answer) == (dns.rcode.NOERROR, [])
    assert ask("db.svc.home.internal", "AAAA").rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    "name",
    ["example.org", "internal", ".", "home.internal.example.org", "nothome.internal", "a\\.home.internal", "arpa"],
)
def test_another_name_is_not_ours_to_answer(name: str) -> None:
    foreign = _answers().answer_untrusted(dns.message.make_query(name, "A").to_wire(), tcp=False)
    assert isinstance(foreign, Foreign)
    assert dns.message.from_wire(foreign.refused()).rcode() == dns.rcode.REFUSED
    assert dns.message.from_wire(foreign.failed()).rcode() == dns.rcode.SERVFAIL


def test_other_requests_are_refused_by_the_book() -> None:
    query = dns.message.make_query("laptop.home.internal", "A")
    query.set_opcode(dns.opcode.UPDATE)
    assert _ask_code(query) in {dns.rcode.NOTIMP, dns.rcode.FORMERR}
    query.set_opcode(dns.opcode.STATUS)
    assert _ask_code(query) == dns.rcode.NOTIMP
    assert _ask_code(dns.message.make_query("laptop.home.internal", "AXFR")) == dns.rcode.REFUSED
    assert _ask_code(dns.message.make_query("laptop.home.internal", "A", rdclass="CH")) == dns.rcode.REFUSED
    two = dns.message.make_query("laptop.home.internal", "A")
    two.question += dns.message.make_query("printer.home.internal", "A").question
    assert _ask_code(two) == dns.rcode.FORMERR
    none = dns.message.make_query("laptop.home.internal", "A")
    none.question.clear()
    assert _ask_code(none) == dns.rcode.FORMERR
    later = dns.message.make_query("laptop.home.internal", "A", use_edns=1)
    assert _ask_code(later) == dns.rcode.BADVERS


def _ask_code(query: dns.message.Message) -> dns.rcode.Rcode:
    response = _answers().answer_untrusted(query.to_wire(), tcp=False)
    assert isinstance(response, bytes)
    return dns.message.from_wire(response).rcode()


def test_an_answer_fits_what_the_asker_takes() -> None:
    def size(name: str, payload: int | None, *, tcp: bool = False) -> tuple[int, bool]:
        edns = {} if payload is None else {"use_edns": 0, "payload": payload}
        query = dns.message.make_query(name, "AAAA", **edns)
        response = _answers().answer_untrusted(query.to_wire(), tcp=tcp)
        assert isinstance(response, bytes)
        message = dns.message.from_wire(response)
        assert message.edns == query.edns
        truncated = bool(message.flags & dns.flags.TC)
        assert bool(message.answer) != truncated
        return len(response), truncated

    assert size("some.big.internal", None) <= (512, True)
    assert size("some.big.internal", 100) <= (512, True)
    length, truncated = size("some.big.internal", 1232)
    assert not truncated
    assert 512 < length <= EDNS_UDP_BYTES
    assert size("many.big.internal", 65_535)[1]
    length, truncated = size("many.big.internal", None, tcp=True)
    assert not truncated
    assert length > 199 * 28


def test_a_kept_answer_is_for_the_same_question_and_the_same_zones() -> None:
    answers = _answers()
    query = dns.message.make_query("laptop.home.internal", "A", id=1).to_wire()
    first = answers.answer_untrusted(query, tcp=False)
    assert answers.answer_untrusted(b"\0\2" + query[2:], tcp=False) == b"\0\2" + first[2:]
    big = dns.message.make_query("many.big.internal", "AAAA").to_wire()
    over_udp, over_tcp = (answers.answer_untrusted(big, tcp=tcp) for tcp in (False, True))
    assert len(over_udp) < len(over_tcp)
    answers.set_zones([records(network(()), [member(7, "laptop")])])
    changed = dns.message.from_wire(answers.answer_untrusted(query, tcp=False))
    assert _lines(changed.answer) == ["laptop.home.internal. 30 IN A 10.7.0.7"]
    answers.set_zones([])
    assert isinstance(answers.answer_untrusted(query, tcp=False), Foreign)


def test_what_is_kept_has_a_bound() -> None:
    answers = _answers()
    for number in range(5000):
        answers.answer_untrusted(dns.message.make_query(f"n{number}.home.internal", "A").to_wire(), tcp=False)
    assert len(answers._kept) <= 4096


def test_a_zone_with_an_impossible_name_takes_no_other_down() -> None:
    answers = Answers()
    answers.set_zones([Zone(".".join(["a" * 63] * 6)), records(network(()), [member(2, "laptop")])])
    assert isinstance(
        answers.answer_untrusted(dns.message.make_query("laptop.home.internal", "A").to_wire(), tcp=False), bytes
    )


def test_silence_for_what_is_no_query() -> None:
    query = dns.message.make_query("laptop.home.internal", "A").to_wire()
    response = _answers().answer_untrusted(query, tcp=False)
    assert isinstance(response, bytes)
    assert _answers().answer_untrusted(response, tcp=False) is None
    for length in range(HEADER_BYTES):
        assert _answers().answer_untrusted(query[:length], tcp=False) is None
    for length in range(HEADER_BYTES, len(query)):
        refused = _answers().answer_untrusted(query[:length], tcp=False)
        assert isinstance(refused, bytes)
        assert refused[:2] == query[:2]
        assert refused[3] & 0xF == dns.rcode.FORMERR
        assert len(refused) <= length


ANSWERS = _answers()
WIRE = dns.message.make_query("laptop.home.internal", "A", use_edns=0).to_wire()


@given(st.binary(max_size=300))
def test_hostile_bytes_raise_nothing(data: bytes) -> None:
    ANSWERS.answer_untrusted(data, tcp=False)


@given(st.integers(2, len(WIRE) - 1), st.integers(0, 255), st.integers(2, len(WIRE) - 1), st.integers(0, 255))
def test_damaged_queries_raise_nothing_and_gain_little(first: int, a: int, second: int, b: int) -> None:
    damaged = bytearray(WIRE)
    damaged[first], damaged[second] = a, b
    response = ANSWERS.answer_untrusted(bytes(damaged), tcp=False)
    if isinstance(response, Foreign):
        response = response.refused()
    assert response is None or len(response) <= EDNS_UDP_BYTES
