"""The lab: a small Internet of network namespaces, in which real programs run."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, overload

from warren.errors import UsageError
from warren.lab.bridge import Bridge
from warren.lab.host import Host
from warren.lab.impairment import Impairment
from warren.lab.link import End, ImpairedLink, Link, connect_impaired, connect_veth, make_end
from warren.lab.reaper import end_processes
from warren.lab.router import Router
from warren.linux import netns
from warren.linux.offloads import switch_off_offloads

Addresses = Sequence[str] | str
AnyHost = TypeVar("AnyHost", bound=Host)

MTU = 1500
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}")  # a file name and a host name (RFC 1123 §2.1) at once
_ARTIFACTS = "_artifacts"  # beside the directories of the hosts, none of which can have this name
_GRACE_S = 1.0
_FIRST_INTERFACE_INDEX = 100  # above what a host makes by itself


class Lab:
    """Hosts, links and programs that end together.

    ``seed`` decides, with the names at both ends, what an impaired link does to each packet. ``artifacts`` is the
    directory for logs and captures, made if missing; without one they end with the lab.

    With ``captures`` the packets of every link are captured at its first end, which slows down the fast ones.

    Leaving the with-block ends every process in the lab's hosts: SIGTERM, and SIGKILL a second later. When the program
    ends in any other way, each host notices by itself and does the same, at once.
    """

    def __init__(
        self, name: str = "lab", *, seed: int = 1, artifacts: Path | None = None, captures: bool = False
    ) -> None:
        _check_name(name)
        self.name = name
        self.seed = seed
        self._captures = captures
        self._scratch = Path(tempfile.mkdtemp(prefix=f"warren-{name}-"))
        self.artifacts = artifacts or self._scratch / _ARTIFACTS
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.hosts: dict[str, Host] = {}
        self.links: list[Link] = []
        self._indexes = itertools.count(_FIRST_INTERFACE_INDEX)
        self._owner = os.getpid()
        self._pidfd = os.pidfd_open(self._owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def host(self, name: str) -> Host:
        """A new host, with nothing but a loopback interface. Its name is also its host name.

        Raises OperationFailed when namespaces cannot be made, UsageError for a name that is taken or not one.
        """
        return self._make(Host, name)

    def bridge(self, name: str) -> Bridge:
        """A new switch, with a name from the same set as hosts; raises as :meth:`host` does."""
        return self._make(Bridge, name)

    def router(self, name: str) -> Router:
        """A new host that forwards IPv4 and IPv6 between its interfaces; raises as :meth:`host` does."""
        return self._make(Router, name)

    @overload
    def link(
        self,
        a: Host,
        b: Host,
        a_addresses: Addresses = ...,
        b_addresses: Addresses = ...,
        *,
        interfaces: tuple[str, str] = ...,
        mtu: int = ...,
        impairment: Impairment,
    ) -> ImpairedLink: ...

    @overload
    def link(
        self,
        a: Host,
        b: Host,
        a_addresses: Addresses = ...,
        b_addresses: Addresses = ...,
        *,
        interfaces: tuple[str, str] = ...,
        mtu: int = ...,
        offloads: bool = ...,
        impairment: Impairment | None = ...,
    ) -> Link: ...

    def link(
        self,
        a: Host,
        b: Host,
        a_addresses: Addresses = (),
        b_addresses: Addresses = (),
        *,
        interfaces: tuple[str, str] = ("eth0", "eth0"),
        mtu: int = MTU,
        offloads: bool = True,
        impairment: Impairment | None = None,
    ) -> Link:
        """Connect two hosts; the addresses ("10.0.0.1/24", "fd00::1/64") are usable when this returns.

        Without an impairment the link is a veth pair at full speed; there ``offloads=False`` makes every packet on
        the wire one packet with a complete checksum, for packet-exact work. With one (``Impairment()`` has no faults
        yet) it is a TUN pair whose faults can be changed, and offloads are always off.
        """
        ends = make_end(a, interfaces[0], a_addresses), make_end(b, interfaces[1], b_addresses)
        if impairment is None:
            return self._connect(*ends, mtu=mtu, offloads=offloads)
        seed = " ".join([str(self.seed), *(f"{end.host.name}/{end.interface}" for end in ends)])
        return self._keep(connect_impaired(*ends, mtu=mtu, impairment=impairment, seed=seed))

    def attach(
        self,
        host: Host,
        bridge: Bridge,
        *addresses: str,
        interface: str = "eth0",
        mtu: int = MTU,
        offloads: bool = True,
    ) -> Link:
        """Connect a host to a bridge by a veth pair. The addresses are those of the host's ``interface``."""
        port = make_end(bridge, bridge.new_port(), ())
        link = self._connect(make_end(host, interface, addresses), port, mtu=mtu, offloads=offloads)
        bridge.take_port(port.interface)
        return link

    def switch_off_offloads(self) -> None:
        """From now on every packet on every present link is one packet with a complete checksum, as with
        ``offloads=False``: what counts packets or looks at their size needs it.
        """
        for link in self.links:
            if not isinstance(link, ImpairedLink):
                for end in link.ends:
                    with netns.network_of(end.host.pidfd):
                        switch_off_offloads(end.interface)

    def close(self) -> None:
        """End everything. Harmless when called twice, or in a forked child of the program that made the lab."""
        if self._pidfd < 0 or os.getpid() != self._owner:
            return
        hosts = list(self.hosts.values())
        for host in hosts:
            host.stop_captures()
        namespaces = frozenset().union(*(host.namespaces for host in hosts))
        end_processes(namespaces, spare={host.pid for host in hosts}, grace_s=_GRACE_S)
        for link in self.links:
            link.end()
        for host in hosts:
            host.end()
        self.hosts.clear()
        self.links.clear()
        os.close(self._pidfd)
        self._pidfd = -1
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _connect(self, a: End, b: End, *, mtu: int, offloads: bool) -> Link:
        indexes = next(self._indexes), next(self._indexes)
        return self._keep(connect_veth(self._pidfd, a, b, indexes=indexes, mtu=mtu, offloads=offloads))

    def _keep(self, link: Link) -> Link:
        self.links.append(link)
        if self._captures:
            first = link.ends[0]
            first.host.capture(first.interface)
        return link

    def _make(self, kind: type[AnyHost], name: str) -> AnyHost:
        _check_name(name)
        if name in self.hosts:
            raise UsageError(f"host name {name!r} is taken in this lab: choose another")
        host = kind(name, artifacts=self.artifacts, scratch=self._scratch)
        self.hosts[name] = host
        host.set_up()
        return host


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(f"name {name!r}: use 1 to 32 letters, digits and '-', beginning with no '-'")
