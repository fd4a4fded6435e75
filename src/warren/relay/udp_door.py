"""The UDP ports of a relay: where clients come in that have no socket of their own yet, and STUN is asked."""

from __future__ import annotations

import errno

from warren.errors import OperationFailed
from warren.relay.config import RelayConfig
from warren.relay.discovery import DiscoveryDoor
from warren.relay.pollers import Pollers
from warren.relay.sockets import TrainSocket, open_port


class UdpDoor:
    """``ports`` are numbered: that is :attr:`Client.listener <warren.proto.turn.server_values.Client>`."""

    def __init__(self, config: RelayConfig, hosts: list[tuple[int, str]], pollers: Pollers) -> None:
        """Raises OperationFailed when a port cannot be had."""
        self.ports: list[TrainSocket] = []
        self.by_fd: dict[int, int] = {}
        """The number of a port by its file descriptor."""
        self.port = config.udp_port
        self.discovery: DiscoveryDoor | None = None
        self._pollers = pollers
        if config.udp_port is None:
            return
        try:
            self.port = self._listen(hosts, config.udp_port)
            self.discovery = DiscoveryDoor(config.discovery_addresses, self.port, config.discovery_port)
            for sock in self.discovery.sockets:
                self._add(sock)
            if not self.ports:
                raise OperationFailed("this host has neither IPv4 nor IPv6: there is nothing to listen on")
        except BaseException:
            self.close()
            raise

    def _listen(self, hosts: list[tuple[int, str]], port: int) -> int:
        for family, host in hosts:
            sock = _opened_port(family, host, port)
            if sock is not None:
                port = port or sock.address[1]
                self._add(sock)
        return port

    def _add(self, sock: TrainSocket) -> None:
        self.by_fd[sock.fileno()] = len(self.ports)
        self.ports.append(sock)
        self._pollers.add(sock.fileno())

    def close(self) -> None:
        for sock in self.ports:
            sock.close()


def _opened_port(family: int, host: str, port: int) -> TrainSocket | None:
    """None: the host lacks the family, and no address of it was asked for."""
    try:
        return open_port(family, host, port)
    except OSError as error:
        if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL} and not host:
            return None
        where = f"{host} UDP port {port}" if host else f"UDP port {port}"
        raise OperationFailed(f"{where} cannot be had: {error.strerror}; see who has it with `ss -ulpn`") from None
