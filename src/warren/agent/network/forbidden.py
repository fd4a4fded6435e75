"""Which open connections a network's policy has come to forbid; pure.

The table in nftables drops their packets, so whoever has them hears nothing more, and waits for minutes. The judgement
is that of the table: by who opened the connection and where to, which connection tracking knows. A look at the ports
would not do. What a wide rule lets this node open would save what others may not open any more, a program may connect
from the port at which it listens, and a port that the host redirects is another than the one that a rule speaks of.

What is not understood is left alone: it is better that a program waits than that a stream ends which is permitted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Network, IPv6Address

from warren.agent.streams.directory import Directory
from warren.l3.firewall import Own
from warren.l3.refusals import EPHEMERAL
from warren.linux.tcp_sockets import Opened, TcpSocket
from warren.model.tunnel import IPAddress, IPNetwork


@dataclass(frozen=True)
class Law:
    """What is judged by, all of one moment."""

    directory: Directory
    own: Own
    left: tuple[IPNetwork, ...] = ()
    """Subnets that were behind members until a moment ago."""

    @property
    def places(self) -> tuple[IPNetwork, ...]:
        """Where this node's ends of the network's connections are, and some more."""
        addresses = () if self.own.address4 is None else (IPv4Network(self.own.address4),)
        return (self.directory.own.prefix6, *addresses, *self.own.routes)

    def without_members(self) -> Law:
        """The same once this node is none any more: nobody may speak to anybody."""
        return replace(self, directory=replace(self.directory, members=(), peers={}), left=self.directory.behind)


def forbidden(sockets: Iterable[TcpSocket], law: Law) -> list[TcpSocket]:
    """Those of ``sockets`` that may not go on.

    =========================  ===================================================================================
    the other end is           and so it ends
    =========================  ===================================================================================
    not of the network         never
    this node's own            never: it does not leave the host
    of nobody (any more)       always
    a member's, or behind one  if the policy does not let whoever opened it reach the other. Where tracking has
                               no such connection, or takes this end for who opened it though its port is not one
                               of those who do: if it lets neither. Where it cannot be asked: never
    =========================  ===================================================================================
    """
    judged = _Judged(law)
    return [one for one in sockets if judged.is_forbidden(one)]


class _Whose(Enum):
    ELSEWHERE = 0
    OURS = 1
    NOBODYS = 2
    MEMBERS = 3


class _Judged:
    """Each address and each pair of them is looked at once; there are no more of them than connections."""

    def __init__(self, law: Law) -> None:
        self._law = law
        self._own = frozenset(law.own.addresses)
        self._addresses: dict[bytes, IPAddress] = {}
        self._whose: dict[bytes, _Whose] = {}
        self._permitted: dict[tuple[bytes, bytes, int], bool] = {}

    def is_forbidden(self, one: TcpSocket) -> bool:
        local, remote, local_port, remote_port = one.ends
        if self._of(local) is not _Whose.OURS:
            return False
        whose = self._of(remote)
        if whose is not _Whose.MEMBERS:
            return whose is _Whose.NOBODYS
        if one.opened == Opened.UNKNOWN:
            return not self._may(local, remote, remote_port) and not self._may(remote, local, local_port)
        if one.opened != Opened.KNOWN:
            return False
        if one.source == local:
            if local_port < EPHEMERAL and self._may(remote, local, local_port):
                return False  # a late answer, perhaps, in a connection that tracking has forgotten
            return not self._may(local, remote, remote_port)
        if one.source == remote and self._of(one.destination) is _Whose.OURS:
            return not self._may(remote, one.destination, one.port)
        return False

    def _may(self, source: bytes, destination: bytes, port: int) -> bool:
        key = (source, destination, port)
        found = self._permitted.get(key)
        if found is None:
            ends = self._address(source), self._address(destination)
            found = self._permitted[key] = self._law.directory.permits(*ends, "tcp", port)
        return found

    def _of(self, raw: bytes) -> _Whose:
        found = self._whose.get(raw)
        if found is None:
            found = self._whose[raw] = self._find(self._address(raw))
        return found

    def _find(self, address: IPAddress) -> _Whose:
        directory = self._law.directory
        if address in self._own or any(address in network for network in self._law.own.routes):
            return _Whose.OURS
        if directory.is_own(address):
            return _Whose.ELSEWHERE  # of a service that is not served here any more: the stream process sees to it
        if directory.has(address):
            return _Whose.NOBODYS if directory.holder(address) is None else _Whose.MEMBERS
        return _Whose.NOBODYS if any(address in network for network in self._law.left) else _Whose.ELSEWHERE

    def _address(self, raw: bytes) -> IPAddress:
        found = self._addresses.get(raw)
        if found is None:
            six = IPv6Address(raw)
            found = self._addresses[raw] = six.ipv4_mapped or six
        return found
