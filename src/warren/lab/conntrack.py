"""The connection tracking table of a lab host, by netlink."""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from warren.errors import OperationFailed
from warren.lab.host import Host

# linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h
_NETLINK_NETFILTER: Final = 12  # linux/netlink.h
_DELETE: Final = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_NLM_F_REQUEST, _NLM_F_ACK = 0x1, 0x4
_NLMSG: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_NFGENMSG: Final = struct.Struct("!BBH")  # family, version, resource
_ERROR: Final = struct.Struct("=i")


def flush(host: Host) -> None:
    """Forget every flow. Raises OperationFailed when the kernel refuses."""
    payload = _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0)
    length = _NLMSG.size + len(payload)
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        flags = _NLM_F_REQUEST | _NLM_F_ACK
        netlink.send(_NLMSG.pack(length, _DELETE, flags, 1, 0) + payload)
        (error,) = _ERROR.unpack_from(netlink.recv(4096), _NLMSG.size)
    if error:
        raise OperationFailed(f"host {host.name}: cannot forget its flows: {os.strerror(-error)}")
