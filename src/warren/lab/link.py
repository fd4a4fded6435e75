"""Cables between lab hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from warren.errors import OperationFailed, UsageError
from warren.lab.carrier import MESSAGE_BYTES_MAX, carry, decode_answer, encode_request
from warren.lab.configure import apply_ip, checked_interface_name
from warren.lab.direction import Counters, Direction
from warren.lab.host import Host
from warren.lab.impairment import Impairment
from warren.lab.worker import Worker
from warren.linux import netns
from warren.linux.offloads import switch_off_offloads
from warren.linux.tun import Tun

_TUN_QUEUE_PACKETS = 2000
"""Before an impaired link: long enough for a burst of TCP at a gigabit while the process sleeps, some 20 ms."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: an interface of a host, and the addresses ("10.0.0.1/24", "fd00::1/64") it is given."""

    host: Host
    interface: str
    addresses: tuple[str, ...] = ()

    def configure(self, properties: str) -> None:
        """Give the existing interface link ``properties`` ("mtu 1400") and its addresses, and set it up."""
        lines = [f"link set {self.interface} {properties}"]
        lines += [f"address add {address} dev {self.interface}{_family_options(address)}" for address in self.addresses]
        lines += [f"link set {self.interface} up"]
        self.host.ip(*lines)


class Link:
    """A veth cable between two hosts, at the machine's full speed. Made by :meth:`Lab.link` and :meth:`Lab.attach`."""

    def __init__(self, a: End, b: End) -> None:
        self.ends = (a, b)

    def end(self) -> None:
        """Stop what carries the packets. The interfaces go with their hosts."""

    def down(self) -> None:
        """Pull the cable: both interfaces go down. Addresses stay; routes through them go, as they do on any Linux."""
        for end in self.ends:
            end.host.ip(f"link set {end.interface} down")

    def up(self) -> None:
        """Put the cable back: both interfaces come up, and the routes made with :meth:`Host.route` come back."""
        for end in self.ends:
            end.host.ip(f"link set {end.interface} up")
        for end in self.ends:
            end.host.restore_routes()


class ImpairedLink(Link):
    """A cable that treats packets badly: two TUN interfaces with a process between them.

    Every packet of the wire is one decision: segmentation offload is off. Both directions begin with the same
    impairment.
    """

    def __init__(self, a: End, b: End, worker: Worker) -> None:
        super().__init__(a, b)
        self._worker = worker

    def set(self, impairment: Impairment, *, toward: Host | None = None) -> None:
        """Change the impairment from now on, in both directions or only in the one toward a host."""
        self._ask((impairment, impairment) if toward is None else self._only(impairment, toward))

    def counters(self, *, toward: Host) -> Counters:
        """What has become so far of the packets toward a host."""
        return self._ask((None, None))[self._direction(toward)]

    def end(self) -> None:
        self._worker.end()

    def _ask(self, impairments: tuple[Impairment | None, Impairment | None]) -> tuple[Counters, Counters]:
        try:
            self._worker.control.send(encode_request(impairments))
            answer = self._worker.control.recv(MESSAGE_BYTES_MAX)
        except OSError:
            answer = b""
        if not answer:
            names = " and ".join(end.host.name for end in self.ends)
            raise OperationFailed(f"the link of {names} has ended: one of its interfaces was deleted")
        return decode_answer(answer)

    def _only(self, impairment: Impairment, toward: Host) -> tuple[Impairment | None, Impairment | None]:
        return (impairment, None) if self._direction(toward) == 0 else (None, impairment)

    def _direction(self, toward: Host) -> int:
        """Direction 0 is what the first end sends."""
        if toward is self.ends[1].host:
            return 0
        if toward is self.ends[0].host:
            return 1
        raise UsageError(f"host {toward.name} is not at an end of this link")


def make_end(host: Host, interface: str, addresses: Sequence[str] | str) -> End:
    """An end from what a caller wrote. Raises UsageError for a name that is not one."""
    listed = (addresses,) if isinstance(addresses, str) else tuple(addresses)
    return End(host, checked_interface_name(interface), listed)


def connect_veth(lab: int, a: End, b: End, *, indexes: tuple[int, int], mtu: int, offloads: bool) -> Link:
    """Make a veth pair whose ends appear directly in the two hosts, with the given interface indexes.

    ``lab`` is a pidfd of the process that runs the lab. The indexes must differ: for a pair with equal ones the kernel
    announces the carrier up to a second late (``linkwatch_urgent_event``), and IPv6 does not answer before.
    """
    near = f"link add {a.interface} index {indexes[0]} netns {a.host.pid}"
    far = f"type veth peer name {b.interface} index {indexes[1]} netns {b.host.pid}"
    apply_ip(lab, [f"{near} {far}"])
    try:
        for end in (a, b):
            if not offloads:
                with netns.network_of(end.host.pidfd):
                    switch_off_offloads(end.interface)
            end.configure(f"mtu {mtu}")
    except BaseException:
        a.host.ip(f"link delete {a.interface}")
        raise
    return Link(a, b)


def connect_impaired(a: End, b: End, *, mtu: int, impairment: Impairment, seed: str) -> ImpairedLink:
    """Make a TUN interface in each host and the process between them. ``seed`` decides the fate of every packet."""
    directions = Direction(impairment, f"{seed} forth"), Direction(impairment, f"{seed} back")
    with contextlib.ExitStack() as opened:
        tuns = []
        for end in (a, b):
            with netns.network_of(end.host.pidfd):
                tun = Tun.create(end.interface, offloads=False)
            opened.callback(tun.close)
            tuns.append(tun.fd)
        first, second = tuns
        worker = Worker(a.host.place, lambda control: carry((first, second), directions, control), tuns)
    try:
        for end in (a, b):
            end.configure(f"mtu {mtu} txqueuelen {_TUN_QUEUE_PACKETS}")
    except BaseException:
        worker.end()
        raise
    return ImpairedLink(a, b, worker)


def _family_options(address: str) -> str:
    return " nodad" if ":" in address else ""
