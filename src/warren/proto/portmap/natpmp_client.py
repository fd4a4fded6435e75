"""Speaking NAT-PMP (RFC 6886) with one gateway: what is asked, and which answers are believed."""

from __future__ import annotations

from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.portmap import natpmp
from warren.proto.portmap.epoch import Epoch
from warren.proto.portmap.exchange import Script, ask
from warren.proto.portmap.values import (
    LIFETIME_WANTED_S,
    Gateway,
    Lease,
    ProtocolName,
    Refusal,
    external_untrusted,
    lifetime_untrusted,
)

PROBE_WAITS_S: Final = (0.25, 0.5)
"""A gateway that is there has mostly said so when it was asked in PCP."""
WAITS_S: Final = (0.25, 0.5, 1.0, 2.0)  # RFC 6886 §3.1: 250 ms, doubling; we ask again later instead of nine times
RELEASE_WAITS_S: Final = (0.25, 0.5)


class NatPmpClient:
    """Scripts for one IPv4 gateway. There is no nonce: each request leaves from a fresh port instead."""

    name: ProtocolName = "nat-pmp"

    def __init__(self, gateway: Gateway) -> None:
        self.detail = ""
        self.attempt: Lease | None = None
        """What has been asked for, and may have been given although no answer came."""
        self.began_anew = False
        """The last answers showed that the gateway has forgotten what it held."""
        self._server = TransportAddress(gateway.address, natpmp.PORT)
        self._epoch = Epoch("nat-pmp")

    def probe(self) -> Script[bool]:
        """Whether NAT-PMP is spoken."""
        answer = yield from self._external_address(PROBE_WAITS_S)
        return answer is not None and (isinstance(answer, natpmp.ExternalAddress) or answer.result != 1)

    def map(self, port: int, held: Lease | None) -> Script[Lease | Refusal]:
        """Ask for a way in to ``port``, or for more time for the one that is ``held``."""
        self.attempt = None
        where = yield from self._external_address(WAITS_S)
        if not isinstance(where, natpmp.ExternalAddress):
            return _refusal(where)
        anew = self.began_anew
        wanted = held.external.port if held else port
        self.attempt = Lease("nat-pmp", port, TransportAddress(where.address, wanted), LIFETIME_WANTED_S)
        answer = yield from self._map(port, wanted, int(LIFETIME_WANTED_S), WAITS_S)
        self.began_anew |= anew
        if not isinstance(answer, natpmp.Mapping):
            self.attempt = None
            return _refusal(answer)
        try:
            address, double_nat = external_untrusted(where.address, answer.external_port)
            return Lease("nat-pmp", port, address, lifetime_untrusted(answer.lifetime_s), double_nat=double_nat)
        except MalformedPacket as error:
            return Refusal(f"gives nonsense: {error}")

    def watch(self, lease: Lease) -> Script[Lease | Refusal | None]:
        """Ask for a sign that the gateway neither began anew nor has another address; the latter is a Refusal.

        None: no answer.
        """
        answer = yield from self._external_address(PROBE_WAITS_S)
        if isinstance(answer, natpmp.ExternalAddress) and answer.address != lease.external.ip:
            return Refusal("has another address now")
        return lease if answer is not None else None

    def release(self, lease: Lease) -> Script[bool]:
        """Give it back (RFC 6886 §3.4). True: the gateway has said so."""
        answer = yield from self._map(lease.internal_port, 0, 0, RELEASE_WAITS_S)
        return isinstance(answer, natpmp.Mapping)

    def announced_untrusted(self, data: bytes, now: float, held: Lease | None) -> bool:
        """Take what was told to all hosts (RFC 6886 §3.2.1). True: what was ``held`` is gone or lies elsewhere.

        Raises MalformedPacket.
        """
        answer = natpmp.unpack_answer_untrusted(data)
        if not isinstance(answer, natpmp.ExternalAddress):
            return False
        elsewhere = held is not None and held.external.ip != answer.address
        return self._epoch.is_reset_by(answer.epoch_s, now) or elsewhere

    def _external_address(self, waits_s: tuple[float, ...]) -> Script[natpmp.ExternalAddress | natpmp.Refused | None]:
        answer = yield from self._ask(natpmp.pack_external_address_request(), waits_s)
        return None if isinstance(answer, natpmp.Mapping) else answer

    def _map(
        self, port: int, external_port: int, lifetime_s: int, waits_s: tuple[float, ...]
    ) -> Script[natpmp.Mapping | natpmp.Refused | None]:
        answer = yield from self._ask(natpmp.pack_map_request(port, external_port, lifetime_s), waits_s, port)
        return None if isinstance(answer, natpmp.ExternalAddress) else answer

    def _ask(self, request: bytes, waits_s: tuple[float, ...], port: int = 0) -> Script[natpmp.Answer | None]:
        """With a ``port`` the answer is a mapping of it, without it is the external address; or a refusal of that."""
        self.began_anew = False

        def read(data: bytes, now: float) -> natpmp.Answer | None:
            answer = natpmp.unpack_answer_untrusted(data)
            match answer:
                case natpmp.Refused(operation=operation):
                    ours = operation == request[1]
                case natpmp.Mapping(internal_port=internal_port):
                    ours = port == internal_port  # never 0
                case natpmp.ExternalAddress():
                    ours = not port
            if ours:
                self.began_anew = self._epoch.is_reset_by(answer.epoch_s, now)
            return answer if ours else None

        return ask(((self._server, request),), waits_s, read, natpmp.PORT)


def _refusal(answer: natpmp.Refused | None) -> Refusal:
    return Refusal("does not answer to NAT-PMP", silent=True) if answer is None else Refusal(answer.why)
