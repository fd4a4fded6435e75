"""A TUN interface that hands over and takes super-packets of up to 64 KB with a virtio header.

The layout of the header is ``struct virtio_net_hdr`` (OASIS virtio 1.2 §5.1.6) without ``num_buffers``: ten bytes
before every packet, in both directions. See ``Documentation/networking/tuntap.rst`` and
``include/uapi/linux/if_tun.h``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from warren.errors import OperationFailed

VIRTIO_HEADER_BYTES = 10
FRAME_BYTES_MAX = VIRTIO_HEADER_BYTES + 65535
"""No frame is larger: an IP packet ends at 65,535 bytes (jumbograms need a different offload)."""

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x0001, 0x1000, 0x4000, 0x8000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_TSO_ECN = 0x01, 0x02, 0x04, 0x08
_TUN_F_USO4, _TUN_F_USO6 = 0x20, 0x40
_TSO = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6 | _TUN_F_TSO_ECN
_INTERFACE_NAME_BYTES_MAX = 15  # IFNAMSIZ without the terminating NUL


class Tun:
    """One open TUN queue. The interface lives as long as this object: closing it removes the interface.

    ``udp_offload`` tells whether the kernel does UDP segmentation on this TUN (Linux 6.2), in both directions.
    """

    __slots__ = ("fd", "name", "udp_offload")

    def __init__(self, name: str, fd: int, *, udp_offload: bool) -> None:
        self.name = name
        self.fd = fd
        self.udp_offload = udp_offload

    @classmethod
    def create(cls, name: str, *, offloads: bool = True) -> Tun:
        """Make the interface ``name``, non-blocking, down, with every offload that this kernel has.

        Without ``offloads`` each frame is one finished packet and has no virtio header.

        Raises OperationFailed when the device file is missing, the privilege is, or the name is taken.
        """
        if not 0 < len(name.encode()) <= _INTERFACE_NAME_BYTES_MAX:
            raise OperationFailed(f"interface name {name!r}: Linux wants 1 to {_INTERFACE_NAME_BYTES_MAX} bytes")
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise OperationFailed(_why_no_device(error)) from error
        try:
            flags = _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL | (_IFF_VNET_HDR if offloads else 0)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            if offloads:
                fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VIRTIO_HEADER_BYTES))
            udp_offload = offloads and _switch_on_offloads(fd)
        except OSError as error:
            os.close(fd)
            raise OperationFailed(_why_no_interface(name, error)) from error
        return cls(name, fd, udp_offload=udp_offload)

    def fileno(self) -> int:
        return self.fd

    def read_into(self, frame: memoryview) -> int:
        """Read one frame; ``frame`` must have room for :data:`FRAME_BYTES_MAX`. Returns its length, 0 when there is
        none now.

        Raises OSError (EBADFD, EIO) once the interface is gone.
        """
        try:
            return os.readv(self.fd, (frame,))
        except BlockingIOError:
            return 0

    def write(self, frame: memoryview) -> bool:
        """Hand one frame to the host. False when the host refused it (interface down, malformed, out of memory)."""
        try:
            os.write(self.fd, frame)
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _switch_on_offloads(fd: int) -> bool:
    """Ask for segmentation offloads, the newest first; returns whether UDP segmentation is among them."""
    for offloads, has_udp in ((_TSO | _TUN_F_USO4 | _TUN_F_USO6, True), (_TSO, False), (0, False)):
        try:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, offloads)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            continue
        return has_udp
    return False


def _why_no_device(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return "there is no /dev/net/tun: `modprobe tun`, or give the container the device (--device /dev/net/tun)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "/dev/net/tun may not be opened: run as root or with CAP_NET_ADMIN"
    return f"/dev/net/tun cannot be opened: {error.strerror}"


def _why_no_interface(name: str, error: OSError) -> str:
    if error.errno == errno.EPERM:
        return f"interface {name} may not be made: run as root or with CAP_NET_ADMIN"
    if error.errno in (errno.EBUSY, errno.EEXIST):
        return f"interface {name} exists already: stop what owns it (`ip link show {name}`) or choose another name"
    if error.errno == errno.EINVAL:
        return f"interface {name} cannot be made: the name is taken or not allowed; choose another name"
    return f"interface {name} cannot be made: {error.strerror}"
