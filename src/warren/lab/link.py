"""Cables between lab hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warren.lab.configure import apply_ip, checked_interface_name
from warren.lab.host import Host
from warren.linux import netns
from warren.linux.offloads import switch_off_offloads


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: an interface of a host, and the addresses ("10.0.0.1/24", "fd00::1/64") it is given."""

    host: Host
    interface: str
    addresses: tuple[str, ...] = ()

    def configure(self, mtu: int) -> None:
        """Give the existing interface its addresses and MTU, and set it up."""
        lines = [f"link set {self.interface} mtu {mtu}"]
        lines += [f"address add {address} dev {self.interface}{_family_options(address)}" for address in self.addresses]
        lines += [f"link set {self.interface} up"]
        self.host.ip(*lines)


class Link:
    """A veth cable between two hosts, at the machine's full speed. Made by :meth:`Lab.link` and :meth:`Lab.attach`."""

    def __init__(self, a: End, b: End) -> None:
        self.ends = (a, b)

    def down(self) -> None:
        """Pull the cable: both interfaces go down. Addresses stay; the routes through them go, as they do on any Linux."""
        for end in self.ends:
            end.host.ip(f"link set {end.interface} down")

    def up(self) -> None:
        """Put the cable back: both interfaces come up, and the routes made with :meth:`Host.route` come back."""
        for end in self.ends:
            end.host.ip(f"link set {end.interface} up")
        for end in self.ends:
            end.host.restore_routes()


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
    for end in (a, b):
        if not offloads:
            with netns.network_of(end.host.pidfd):
                switch_off_offloads(end.interface)
        end.configure(mtu)
    return Link(a, b)


def _family_options(address: str) -> str:
    return " nodad" if ":" in address else ""
