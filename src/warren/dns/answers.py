"""Answers to DNS queries out of the zones of networks; pure, bytes in and bytes out (RFC 1034, RFC 1035).

What a query gets::

    shorter than a header, or itself a response   nothing
    does not parse; not one question              FORMERR
    another operation than QUERY                  NOTIMP
    EDNS of a later version                       BADVERS (RFC 6891 §6.1.3)
    another class than IN; a zone transfer        REFUSED
    a name of ours                                its records, or none and the SOA record (RFC 2308 §2.2)
    below one of our zones, but no name of ours   NXDOMAIN and the SOA record
    another name                                  is the caller's to forward or refuse

Answers are kept packed, by all of the query but its number: the next one costs a look-up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rrset
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType
from dns.rrset import RRset

from warren.dns.names import Zone

HEADER_BYTES: Final = 12
PLAIN_UDP_BYTES: Final = 512  # RFC 1035 §2.3.4
EDNS_UDP_BYTES: Final = 1232  # what fits IPv6's least MTU (DNS Flag Day 2020)
TCP_BYTES: Final = 65_535
TTL_S: Final = 30
"""Short, since a member that joins anew has another address."""
NEGATIVE_TTL_S: Final = 5
"""A member that joins is found this soon by who has asked for it before."""
_ANSWERS_MAX: Final = 4096
"""Packed answers that are kept; each is some 100 bytes."""

_SOA: Final = f"nobody.invalid. 1 3600 1200 604800 {NEGATIVE_TTL_S}"
"""After the zone's own name: it is its own server, and nobody is responsible (RFC 6303 §3)."""
_RESPONSE: Final = 0x80
_TRANSFERS: Final = frozenset({RdataType.AXFR, RdataType.IXFR})


class Answers:
    """Owned by one task; zones are replaced as a whole, between two queries."""

    def __init__(self) -> None:
        self._zones: tuple[_Names, ...] = ()
        self._kept: dict[tuple[bytes, bool], bytes] = {}

    def set_zones(self, zones: Iterable[Zone]) -> None:
        """From now on answer from these, and from no others. A zone whose name DNS cannot have is passed over."""
        names = (_Names.of(zone) for zone in zones)
        self._zones = tuple(one for one in names if one is not None)
        self._kept.clear()

    def answer_untrusted(self, query: bytes, *, tcp: bool) -> bytes | Foreign | None:
        """The response to ``query``, whatever it is; a :class:`Foreign` for a name of nobody's here; None for silence.

        Never raises. A UDP response is no longer than the asker takes, with TC set when something is missing.
        """
        key = (query[2:], tcp)
        kept = self._kept.get(key)
        if kept is not None:
            return query[:2] + kept
        if not is_query(query):
            return None
        try:
            message = dns.message.from_wire(query, ignore_trailing=False)
        except Exception:  # noqa: BLE001  hostile bytes: dnspython promises DNSException, and has raised others
            return _bare(query, dns.rcode.FORMERR)
        try:
            response = self._answer(message)
            if isinstance(response, Foreign):
                return response
            packed = _packed(message, response, tcp=tcp)
        except (dns.exception.DNSException, ValueError):
            return _bare(query, dns.rcode.SERVFAIL)
        if len(self._kept) >= _ANSWERS_MAX:
            self._kept.clear()
        self._kept[key] = packed[2:]
        return packed

    def _answer(self, query: dns.message.Message) -> dns.message.Message | Foreign:
        response = dns.message.make_response(query, our_payload=EDNS_UDP_BYTES)
        if query.opcode() != dns.opcode.QUERY:
            return _with(response, dns.rcode.NOTIMP)
        if len(query.question) != 1:
            return _with(response, dns.rcode.FORMERR)
        if query.edns > 0:
            response.use_edns(0, 0, EDNS_UDP_BYTES)
            return _with(response, dns.rcode.BADVERS)
        (question,) = query.question
        if question.rdclass != RdataClass.IN or question.rdtype in _TRANSFERS:
            return _with(response, dns.rcode.REFUSED)
        for zone in self._zones:
            origin = zone.origin_of(question.name)
            if origin is not None:
                response.flags |= dns.flags.AA
                return zone.fill(response, question, origin)
        return Foreign(query)


def is_query(data: bytes) -> bool:
    """Whether it has a header that asks. Nothing else is answered, so that two servers never talk in circles."""
    return len(data) >= HEADER_BYTES and not data[2] & _RESPONSE


def refusal(query: bytes) -> bytes:
    """The response to somebody who may not ask: a header, so that it is never longer than the question."""
    return _bare(query, dns.rcode.REFUSED)


class Foreign:
    """A query that parses and asks for a name of none of our networks."""

    def __init__(self, query: dns.message.Message) -> None:
        self._query = query

    def refused(self) -> bytes:
        """The response when nobody else is to be asked."""
        return self._respond(dns.rcode.REFUSED)

    def failed(self) -> bytes:
        """The response when whoever was asked did not answer."""
        return self._respond(dns.rcode.SERVFAIL)

    def _respond(self, code: dns.rcode.Rcode) -> bytes:
        return _with(dns.message.make_response(self._query, our_payload=EDNS_UDP_BYTES), code).to_wire()


class _Names:
    """A zone to look names up in; they compare without regard to case (RFC 4343). Raises DNSException when DNS cannot
    have its name.
    """

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._origins = frozenset(dns.name.from_text(domain) for domain in zone.domains)
        self._depths = sorted({len(origin) for origin in self._origins}, reverse=True)
        domains = set(zone.domains)
        # A name between the origin and one of ours exists, and has no records (RFC 8020 §2).
        self._between: set[str] = set()
        for name in (*zone.addresses, *zone.pointers):
            above = name.partition(".")[2]
            while above and above not in domains and above not in self._between:
                self._between.add(above)
                above = above.partition(".")[2]

    @staticmethod
    def of(zone: Zone) -> _Names | None:
        try:
            return _Names(zone)
        except dns.exception.DNSException:
            return None

    def origin_of(self, name: dns.name.Name) -> dns.name.Name | None:
        """Which of the zone's origins ``name`` is below, or is."""
        for depth in self._depths:
            if len(name) >= depth and (origin := name.split(depth)[1]) in self._origins:
                return origin
        return None

    def fill(self, response: dns.message.Message, question: RRset, origin: dns.name.Name) -> dns.message.Message:
        """Answer ``question``, whose name is below ``origin``."""
        name, soa = question.name, f"{origin} {_SOA}"
        if name == origin:
            found = {RdataType.SOA: [soa], RdataType.NS: [str(origin)]}
        else:
            text = name.to_text(omit_final_dot=True).lower()
            found = self._records(text)
            if not found and text not in self._between:
                response.set_rcode(dns.rcode.NXDOMAIN)
        for kind, texts in found.items():
            if question.rdtype in {kind, RdataType.ANY}:
                response.answer.append(dns.rrset.from_text_list(name, TTL_S, RdataClass.IN, kind, texts))
        if not response.answer:
            response.authority.append(dns.rrset.from_text(origin, NEGATIVE_TTL_S, RdataClass.IN, RdataType.SOA, soa))
        return response

    def _records(self, name: str) -> dict[RdataType, list[str]]:
        records: dict[RdataType, list[str]] = {}
        for address in self._zone.addresses.get(name, ()):
            records.setdefault(RdataType.AAAA if address.version == 6 else RdataType.A, []).append(str(address))
        if name in self._zone.pointers:
            records[RdataType.PTR] = [f"{self._zone.pointers[name]}."]
        return records


def _with(response: dns.message.Message, code: dns.rcode.Rcode) -> dns.message.Message:
    response.set_rcode(code)
    return response


def _packed(query: dns.message.Message, response: dns.message.Message, *, tcp: bool) -> bytes:
    limit = TCP_BYTES
    if not tcp:
        limit = min(max(query.payload, PLAIN_UDP_BYTES), EDNS_UDP_BYTES) if query.edns >= 0 else PLAIN_UDP_BYTES
    try:
        return response.to_wire(max_size=limit)
    except dns.exception.TooBig:
        response.answer.clear()
        response.authority.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=limit)


def _bare(query: bytes, code: dns.rcode.Rcode) -> bytes:
    """A header alone: the query's number, operation and wish for recursion, and what was wrong (RFC 1035 §4.1.1)."""
    return query[:2] + bytes([_RESPONSE | (query[2] & 0x79), int(code)]) + bytes(8)
