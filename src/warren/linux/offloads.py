"""Switching segmentation and checksum offloads of a network interface, by ethtool's ioctl (linux/ethtool.h)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_SET_TX_CHECKSUM = 0x17
_SET_TSO = 0x1F
_SET_GSO = 0x24
_SET_GRO = 0x2C
_IFREQ_POINTER = struct.Struct("16sP16x")  # struct ifreq with ifr_data
_ETHTOOL_VALUE = struct.Struct("=II")  # struct ethtool_value: cmd, data


def switch_off_offloads(interface: str) -> None:
    """Make every packet on the wire one packet with a complete checksum: no TSO, GSO, GRO, USO, checksum offload.

    Acts on an interface of the calling thread's network namespace. A device without one of them is left as it is.
    Raises OSError when the interface is missing or the privilege is.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        # UDP segmentation has no command of its own: the kernel drops it together with transmit checksums.
        for command in (_SET_TX_CHECKSUM, _SET_TSO, _SET_GSO, _SET_GRO):
            value = ctypes.create_string_buffer(_ETHTOOL_VALUE.pack(command, 0))
            request = _IFREQ_POINTER.pack(interface.encode(), ctypes.addressof(value))
            try:
                fcntl.ioctl(control, _SIOCETHTOOL, request)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
