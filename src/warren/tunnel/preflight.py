"""What must be so before a tunnel is made, looked at before anything is touched: each failure is a line with its
remedy.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from warren.errors import OperationFailed
from warren.linux import capabilities
from warren.tunnel.config import TunnelConfig
from warren.tunnel.desired import default_versions
from warren.tunnel.host import Doors
from warren.tunnel.tables import number_of

_TUN = Path("/dev/net/tun")
_BASH = Path("/bin/bash")


def check_privilege() -> None:
    """Raises OperationFailed when this process may not configure networks."""
    if capabilities.CAP_NET_ADMIN not in capabilities.effective():
        raise OperationFailed(
            "a tunnel needs the right to configure networks (CAP_NET_ADMIN); run as root, e.g. with sudo"
        )


def check_tun(device: Path = _TUN) -> None:
    """Raises OperationFailed when there is no usable TUN device."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        remedy = "run `modprobe tun`, or give the container that device"
        raise OperationFailed(f"{device} is missing; {remedy}") from None
    except OSError as error:
        raise OperationFailed(
            f"{device} cannot be opened: {error.strerror}; run as root, and allow the device"
        ) from None


def check_config(config: TunnelConfig, doors: Doors) -> None:
    """Raises OperationFailed when the host lacks what ``config`` needs: a named table, a resolver, nftables, bash."""
    number_of(config.table)
    if config.dns_servers:
        doors.resolver()
    if default_versions(config):
        doors.nft()
    if (config.pre_up or config.post_up or config.pre_down or config.post_down) and not _BASH.exists():
        raise OperationFailed(f"{_BASH} is missing, which PreUp, PostUp … need; install bash or remove those lines")


async def check_interface(interface: str, doors: Doors) -> None:
    """Raises OperationFailed when the name is taken."""
    for link in await doors.netlink.links():
        if link.name == interface:
            kind = f" ({link.kind})" if link.kind else ""
            remedy = f"remove it (`ip link del {interface}`) or choose another --name"
            raise OperationFailed(f"interface {interface}{kind} exists already and is not ours; {remedy}")


async def check_addresses(config: TunnelConfig, interface: str, doors: Doors) -> None:
    """Raises OperationFailed when another interface has one of the addresses."""
    wanted = {address.ip for address in config.addresses}
    for address in await doors.netlink.addresses():
        if address.interface != interface and address.value.ip in wanted:
            remedy = "choose another Address or remove it there"
            raise OperationFailed(f"address {address.value.ip} is in use on {address.interface}; {remedy}")


def check_port(port: int) -> None:
    """Raises OperationFailed when UDP ``port`` is taken; 0 never is."""
    for family in _families() if port else ():
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    remedy = f"choose another ListenPort, or see `ss -lunp sport = {port}` for who has it"
                    raise OperationFailed(f"UDP port {port} is taken; {remedy}") from None
                if error.errno == errno.EACCES:
                    raise OperationFailed(
                        f"UDP port {port} may not be used by this user; choose one above 1023"
                    ) from None


def _families() -> Iterator[socket.AddressFamily]:
    yield socket.AF_INET
    if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
        yield socket.AF_INET6
