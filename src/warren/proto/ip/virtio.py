"""The virtio_net_hdr that precedes every packet read from or written to a TUN with IFF_VNET_HDR.

::

     0        1        2          4          6            8             10
     | flags  | type   | hdr_len  | gso_size | csum_start | csum_offset |

All fields are in the byte order of the machine (linux/virtio_net.h, legacy layout without num_buffers); ``csum_start``
counts from the first byte of the IP packet, ``csum_offset`` from ``csum_start``.
"""

from __future__ import annotations

import struct
from typing import Final

VNET: Final = 10
"""Bytes of the header."""

HEADER: Final = struct.Struct("=BBHHHH")
NO_OFFLOAD: Final = bytes(VNET)
"""The header of a packet that is complete as it stands."""

NEEDS_CSUM: Final = 1
"""Flag: the transport checksum field holds only the pseudo-header's sum."""

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80
"""Or-ed into a TCP type: the first segment carries CWR."""
