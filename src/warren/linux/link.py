"""What the data plane needs to know of its own interface, without a netlink library in its process.

The controller configures interfaces through ``linux/netlink.py``; this door only watches one link and sets its MTU and
segmentation limit, by the ioctls of ``netdevice(7)`` and two fixed rtnetlink messages (``rtnetlink(7)``).
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

_SIOCGIFFLAGS, _SIOCGIFMTU, _SIOCSIFMTU, _SIOCGIFINDEX = 0x8913, 0x8921, 0x8922, 0x8933
_IFF_UP = 0x1
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV4_ROUTE = 0x1, 0x10, 0x40
_RTMGRP_IPV6_IFADDR, _RTMGRP_IPV6_ROUTE = 0x100, 0x400
_RTM_NEWLINK, _NLM_F_REQUEST = 16, 1
_IFLA_GSO_MAX_SEGS = 40
_READS_MAX = 64  # notifications drained at a time; the rest wakes the loop again


class LinkState(NamedTuple):
    up: bool
    mtu: int


class LinkWatch:
    """Tells that links, addresses or routes of this namespace have changed; what changed is then asked for.

    The socket says only *that* something changed: an overflow of its buffer loses nothing, since the answer is read
    afresh.
    """

    def __init__(self, interface: str, open_socket: Callable[[int, int, int], socket.socket] = socket.socket) -> None:
        """``open_socket`` makes sockets of the network that the interface is in; what it raises is raised here."""
        self.interface = interface
        self._open = open_socket
        self._request = struct.pack("16s24x", interface.encode())
        self._control = open_socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        self._notices = self._netlink()
        self._notices.setblocking(False)
        groups = _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_IFADDR | _RTMGRP_IPV6_ROUTE
        self._notices.bind((0, groups))

    def fileno(self) -> int:
        return self._notices.fileno()

    def drain(self) -> None:
        """Forget the notices received so far."""
        with contextlib.suppress(OSError):  # EAGAIN: empty; ENOBUFS: some were lost, which does not matter here
            for _ in range(_READS_MAX):
                self._notices.recv(65536)

    def state(self) -> LinkState | None:
        """Whether the interface is up and its MTU in bytes; None when it is gone."""
        try:
            flags = struct.unpack_from("16xH", fcntl.ioctl(self._control, _SIOCGIFFLAGS, self._request))[0]
            mtu = struct.unpack_from("16xi", fcntl.ioctl(self._control, _SIOCGIFMTU, self._request))[0]
        except OSError:
            return None
        return LinkState(bool(flags & _IFF_UP), mtu)

    def set_mtu(self, mtu: int) -> None:
        """Raises OSError when the kernel refuses ``mtu`` (EINVAL) or the privilege is missing (EPERM)."""
        fcntl.ioctl(self._control, _SIOCSIFMTU, struct.pack("16si20x", self.interface.encode(), mtu))

    def limit_segments(self, segments: int) -> None:
        """Ask the kernel for super-packets of at most ``segments`` packets, so that each fits one UDP_SEGMENT send.

        A wish: a kernel that refuses it hands over larger ones, which the sender then cuts in two.
        """
        attribute = struct.pack("=HHI", 8, _IFLA_GSO_MAX_SEGS, segments)
        index = struct.unpack_from("16xi", fcntl.ioctl(self._control, _SIOCGIFINDEX, self._request))[0]
        link = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)
        length = 16 + len(link) + len(attribute)
        header = struct.pack("=IHHII", length, _RTM_NEWLINK, _NLM_F_REQUEST, 0, 0)
        with contextlib.suppress(OSError), self._netlink() as door:
            door.sendto(header + link + attribute, (0, 0))

    def _netlink(self) -> socket.socket:
        return self._open(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)

    def close(self) -> None:
        self._notices.close()
        self._control.close()
