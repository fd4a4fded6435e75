"""Two addresses and two ports by which clients learn how their NAT behaves (RFC 5780)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from warren.errors import MalformedPacket, OperationFailed
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.stun.message import decode_untrusted
from warren.proto.stun.server import BindingServer, Discovery
from warren.proto.turn.server_values import Client, SocketAddress, transport_address
from warren.relay.sockets import TrainSocket, host_of, open_port

_BINDING_REQUEST: Final = b"\0\1"


class DiscoveryDoor:
    """Its ``sockets`` are ports of the relay like any other; whoever takes them closes them."""

    def __init__(self, addresses: Sequence[IPAddress], port: int, other_port: int) -> None:
        """Without addresses it has no sockets and answers nothing. Raises OperationFailed when a port is taken."""
        self.sockets: list[TrainSocket] = []
        self._by_place: dict[SocketAddress, TrainSocket] = {}
        self._server: BindingServer | None = None
        if not addresses:
            return
        # Its answers are longer than requests of the usual size; that is what the operator has asked for.
        self._server = BindingServer(discovery=[Discovery(tuple(addresses), (port, other_port))], any_size=True)
        try:
            for address in addresses:
                for one in (port, other_port):
                    sock = open_port(address.version, str(address), one)
                    self.sockets.append(sock)
                    self._by_place[str(address), one] = sock
        except OSError as error:
            for sock in self.sockets:
                sock.close()
            raise OperationFailed(
                f"{address} UDP port {one} cannot be had for discovery: {error.strerror}; see who has it: `ss -ulpn`"
            ) from None

    def answer(self, message: bytes, client: Client, ports: Sequence[TrainSocket], now: float) -> bool:
        """Whether it was a Binding request to one of these places; if so it has been dealt with."""
        if self._server is None or not message.startswith(_BINDING_REQUEST) or not isinstance(client.local, bytes):
            return False
        host, port = host_of(client.local), ports[client.listener].address[1]
        if (host, port) not in self._by_place:
            return False
        try:
            request = decode_untrusted(message)
        except MalformedPacket:
            return True
        local = TransportAddress(ip_address(host), port)
        reply = self._server.answer(request, transport_address(client.remote), local, now)
        if reply is not None:
            sock = self._by_place[str(reply.source.ip), reply.source.port]
            remote = (client.remote[0], reply.remote.port, *client.remote[2:])
            sock.send(reply.data, len(reply.data), remote)
        return True
