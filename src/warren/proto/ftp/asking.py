"""How a client asks for a data connection: PASV, EPSV, PORT, EPRT, and what is refused of that (RFC 2577)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.ftp.addresses import OtherProtocol, decode_eprt_untrusted, decode_port_untrusted, encode_pasv
from warren.proto.ftp.commands import Command

LOWEST_PORT: Final = 1024
"""Below are services that must not get what was meant as a file (RFC 2577 §3)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A data connection as the client wants it: it comes to the helper, or (``where``) is fetched."""

    verb: str
    where: TransportAddress | None = None

    def answer(self, announced: TransportAddress) -> bytes:
        """The reply once there is one. ``announced``: where the helper listens, as the client knows it."""
        if self.verb == "PASV":
            return b"227 Entering Passive Mode (" + encode_pasv(announced) + b")."
        if self.verb == "EPSV":
            return b"229 Entering Extended Passive Mode (|||%d|)" % announced.port
        return b"200 " + self.verb.encode("ascii") + b" command successful."


@dataclass(frozen=True, slots=True)
class NotGranted:
    """The reply instead, and if somebody seems to be up to something, the sentence for the log."""

    reply: bytes
    suspicion: str = ""


def understand(command: Command, *, client: IPAddress, local: IPAddress) -> Asked | NotGranted:
    """What one of the four commands asks for. Both addresses are of the control connection, IPv4 ones not mapped."""
    if command.verb == "PASV":
        return Asked("PASV") if local.version == 4 else _other_protocol(local)
    if command.verb == "EPSV":
        return _extended_passive(command, local)
    return _active(command, client)


def _extended_passive(command: Command, local: IPAddress) -> Asked | NotGranted:
    protocol = command.argument.strip()
    if protocol and not (protocol.isdigit() and len(protocol) <= 5):
        return NotGranted(b"501 EPSV takes 1, 2, ALL or nothing.")
    if protocol and int(protocol) != _protocol(local):
        return _other_protocol(local)
    return Asked("EPSV")


def _active(command: Command, client: IPAddress) -> Asked | NotGranted:
    try:
        decode = decode_port_untrusted if command.verb == "PORT" else decode_eprt_untrusted
        where = decode(command.argument)
    except OtherProtocol:
        return _other_protocol(client)
    except MalformedPacket:
        return NotGranted(b"501 No address and port.")
    if where.ip.version != client.version:
        return _other_protocol(client)
    if where.ip != client:
        return NotGranted(
            b"504 Data connections go to the address that the control connection comes from.",
            f"{command.verb} names {where.ip}, which is not who asks",
        )
    if where.port < LOWEST_PORT:
        return NotGranted(
            b"504 Data connections go to no port below 1024.", f"{command.verb} names port {where.port}, below 1024"
        )
    return Asked(command.verb, where)


def _protocol(address: IPAddress) -> int:
    return 1 if address.version == 4 else 2


def _other_protocol(address: IPAddress) -> NotGranted:
    return NotGranted(b"522 Network protocol not supported here, use (%d)." % _protocol(address))
