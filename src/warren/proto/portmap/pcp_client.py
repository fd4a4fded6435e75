"""Speaking PCP (RFC 6887) with one gateway: what is asked, and which answers are believed."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.portmap import pcp
from warren.proto.portmap.epoch import Epoch
from warren.proto.portmap.exchange import Script, ask
from warren.proto.portmap.natpmp import PORT
from warren.proto.portmap.values import (
    LIFETIME_WANTED_S,
    Gateway,
    Lease,
    ProtocolName,
    Refusal,
    external_untrusted,
    is_ipv4,
    lifetime_untrusted,
)

PROBE_WAITS_S: Final = (0.25, 0.5, 1.0)
"""A router on the same link answers in milliseconds or not at all. RFC 6887 §8.1.1 begins with 3 s, for a server
anywhere in a provider's network, and goes on for ever; we give up and ask again later.
"""
WAITS_S: Final = (0.25, 0.5, 1.0, 2.0)
RELEASE_WAITS_S: Final = (0.25, 0.5)
_ONLY_NAT_PMP: Final = pcp.Answer(pcp.Opcode.ANNOUNCE, pcp.Result.UNSUPP_VERSION, 0, 0, None)


class PcpClient:
    """Scripts for one gateway. ``nonce`` gives the mapping nonce of an internal port (RFC 6887 §11.2): always the same
    one for as long as the mapping lives, and known to nobody else.
    """

    name: ProtocolName = "pcp"

    def __init__(self, gateway: Gateway, nonce: Callable[[int], bytes]) -> None:
        self.detail = ""
        self.attempt: Lease | None = None
        """What has been asked for, and may have been given although no answer came."""
        self.began_anew = False
        """The last answer showed that the gateway has forgotten what it held."""
        self._gateway = gateway
        self._server = TransportAddress(gateway.address, PORT)
        self._nonce = nonce
        self._epoch = Epoch("pcp")

    def probe(self) -> Script[bool]:
        """Whether PCP is spoken."""
        answer = yield from self._ask(pcp.pack_announce_request(self._gateway.source), PROBE_WAITS_S, _read_any)
        return answer is not None and answer.result != pcp.Result.UNSUPP_VERSION

    def map(self, port: int, held: Lease | None) -> Script[Lease | Refusal]:
        """Ask for a way in to ``port``, or for more time for the one that is ``held``."""
        external = held.external if held else self._any_external(port)
        self.attempt = Lease("pcp", port, external, LIFETIME_WANTED_S)
        mapping = self._mapping(port, external)
        request = pcp.pack_request(self._gateway.source, mapping, int(LIFETIME_WANTED_S))
        answer = yield from self._ask(request, WAITS_S, lambda data: self._read(data, mapping))
        if answer is None:
            return Refusal("does not answer to PCP", silent=True)
        if answer.result or answer.mapping is None:
            self.attempt = None
            return Refusal(pcp.why(answer.result), float(answer.lifetime_s))
        given = answer.mapping.external
        try:
            address, double_nat = external_untrusted(given.ip, given.port)
            return Lease("pcp", port, address, lifetime_untrusted(answer.lifetime_s), double_nat=double_nat)
        except MalformedPacket as error:
            return Refusal(f"gives nonsense: {error}")

    def watch(self, lease: Lease) -> Script[Lease | Refusal | None]:
        """Ask for a sign that the gateway has not begun anew; :attr:`began_anew` tells. None: no answer."""
        answer = yield from self._ask(pcp.pack_announce_request(self._gateway.source), PROBE_WAITS_S, _read_any)
        return lease if answer is not None else None

    def release(self, lease: Lease) -> Script[bool]:
        """Give it back (RFC 6887 §15.1). True: the gateway has said so."""
        mapping = self._mapping(lease.internal_port, lease.external)
        request = pcp.pack_request(self._gateway.source, mapping, 0)
        answer = yield from self._ask(request, RELEASE_WAITS_S, lambda data: self._read(data, mapping))
        return answer is not None and not answer.result

    def announced_untrusted(self, data: bytes, now: float, held: Lease | None) -> bool:  # noqa: ARG002  NAT-PMP has use
        """Take what was told to all hosts (RFC 6887 §14.1.2). True: the gateway has begun anew.

        Raises MalformedPacket.
        """
        answer = pcp.unpack_answer_untrusted(data)
        return answer.opcode == pcp.Opcode.ANNOUNCE and self._epoch.is_reset_by(answer.epoch_s, now)

    def _ask(
        self, request: bytes, waits_s: tuple[float, ...], read: Callable[[bytes], pcp.Answer | None]
    ) -> Script[pcp.Answer | None]:
        self.began_anew = False

        def read_at(data: bytes, now: float) -> pcp.Answer | None:
            if pcp.is_nat_pmp_untrusted(data):
                return _ONLY_NAT_PMP
            answer = read(data)
            if answer is not None:
                self.began_anew = self._epoch.is_reset_by(answer.epoch_s, now)
            return answer

        return ask(((self._server, request),), waits_s, read_at, PORT)

    def _read(self, data: bytes, asked: pcp.Mapping) -> pcp.Answer | None:
        """The answer to this very request: nonce, protocol and port are its own (RFC 6887 §11.4), so is the host."""
        answer = pcp.unpack_answer_untrusted(data)
        given = answer.mapping
        if answer.opcode != pcp.Opcode.MAP or given is None:
            return None
        ours = (given.nonce, given.protocol, given.internal_port) == (asked.nonce, asked.protocol, asked.internal_port)
        for_another = any(code == pcp.Option.THIRD_PARTY for code, _ in answer.options)
        right_family = answer.result != 0 or given.external.ip.version == self._gateway.source.version
        return answer if ours and not for_another and right_family else None

    def _mapping(self, port: int, external: TransportAddress) -> pcp.Mapping:
        return pcp.Mapping(self._nonce(port), pcp.PROTOCOL_UDP, port, external)

    def _any_external(self, port: int) -> TransportAddress:
        """The same port, at whatever address the gateway has (RFC 6887 §11.1: all zeros of the family)."""
        return TransportAddress(IPv4Address(0) if is_ipv4(self._gateway) else IPv6Address(0), port)


def _read_any(data: bytes) -> pcp.Answer | None:
    """An answer that shows that the gateway is there: ANNOUNCE has no nonce, and promises nothing."""
    answer = pcp.unpack_answer_untrusted(data)
    return answer if answer.opcode == pcp.Opcode.ANNOUNCE else None
