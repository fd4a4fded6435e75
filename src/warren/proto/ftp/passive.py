"""Getting a port for data from a server: EPSV, and PASV where that is not known (RFC 6384 §3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import IPAddress
from warren.proto.ftp.addresses import epsv_reply_untrusted, pasv_reply_untrusted
from warren.proto.ftp.asking import LOWEST_PORT
from warren.proto.ftp.replies import Part

_NOT_LOGGED_IN: Final = 530


@dataclass(frozen=True, slots=True)
class Port:
    """Where the server listens. ``suspicion``: what to say in the log of how it put that."""

    number: int
    suspicion: str = ""


@dataclass(frozen=True, slots=True)
class NoPort:
    """The reply for the client instead."""

    reply: bytes
    suspicion: str = ""


class PassiveMode:
    """Of one server. What it refuses once is not asked again."""

    def __init__(self, server: IPAddress) -> None:
        self._server = server
        self._knows_epsv = True
        self._named_other = False

    def question(self) -> bytes:
        """The command to send."""
        return b"EPSV" if self._knows_epsv else b"PASV"

    def answer(self, part: Part) -> Port | NoPort | None:
        """What the last line of the reply gives; None: ask again, with another :meth:`question`."""
        code = 229 if self._knows_epsv else 227
        lasting = 500 <= part.code != _NOT_LOGGED_IN
        if part.code >= 400 and not (self._knows_epsv and lasting):
            return NoPort(part.text)
        try:
            if part.code != code:
                raise MalformedPacket("not what was asked for")
            return self._port(part.text[4:])
        except MalformedPacket:
            if self._knows_epsv:
                self._knows_epsv = False
                return None
            return NoPort(b"425 The server has no passive mode.")

    def _port(self, text: bytes) -> Port | NoPort:
        port, suspicion = (epsv_reply_untrusted(text), "") if self._knows_epsv else self._port_beside_address(text)
        if port < LOWEST_PORT:
            return NoPort(
                b"425 The server offers a port below 1024.", f"the server names port {port}, below {LOWEST_PORT}"
            )
        return Port(port, suspicion)

    def _port_beside_address(self, text: bytes) -> tuple[int, str]:
        """The address is not used: a server behind a NAT names another than its own in good faith, others do not."""
        where = pasv_reply_untrusted(text)
        if where.ip == self._server or where.ip.is_unspecified or self._named_other:
            return where.port, ""
        self._named_other = True
        return where.port, f"the server names {where.ip} for data: not gone to, only to where it is itself"
