"""Looks at this host itself: interfaces, routes, kernel, clock. Nothing is changed, and an ordinary user may."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from warren.doctor.observed import Kernel, Nic
from warren.engine.choose import choose
from warren.errors import OperationFailed
from warren.linux import capabilities, userns
from warren.linux.netlink import Netlink
from warren.linux.netlink_values import Address, Link, Route
from warren.linux.nft import LibNft
from warren.linux.sysctl import ProcSysctls, Sysctls
from warren.proto.portmap.values import Gateway
from warren.reach.portmap_gateways import gateways_of

_TUN: Final = Path("/dev/net/tun")
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_TIMEX_BYTES: Final = 512  # struct timex has 208 on 64-bit Linux
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
_ORDINARY: Final = 1
"""A user and a group without rights; on most systems the account "daemon"."""
_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
_STRICT: Final = 1  # rp_filter, RFC 3704 §2.2


async def look_at_network(
    netlink: Netlink, ignored: Collection[str], sysctls: Sysctls | None = None
) -> tuple[tuple[Nic, ...], tuple[Gateway, ...]]:
    """The interfaces and the default routers. ``ignored``: patterns of those that lead to nobody else."""
    links = [
        link
        for link in await netlink.links()
        if link.up and link.name != "lo" and not any(fnmatchcase(link.name, pattern) for pattern in ignored)
    ]
    names = {link.name for link in links}
    addresses = [address for address in await netlink.addresses() if address.interface in names]
    routes = [route for route in await netlink.routes() if route.interface in names]
    nics = tuple(_nic(link, addresses, routes, sysctls or ProcSysctls()) for link in links)
    return nics, gateways_of(links, addresses, routes)


def _nic(link: Link, addresses: list[Address], routes: list[Route], sysctls: Sysctls) -> Nic:
    own = [
        address.value
        for address in addresses
        if address.interface == link.name and not (address.value.is_link_local or address.value.is_loopback)
    ]
    gateways = [
        str(route.gateway or "on-link")
        for route in routes
        if route.interface == link.name and route.network.prefixlen == 0
    ]
    return Nic(
        name=link.name,
        mtu=link.mtu,
        addresses=tuple(str(address) for address in own),
        gateways=tuple(dict.fromkeys(gateways)),
        advertisements=_advertisements(link.name),
        accepts_advertisements=_accepts_advertisements(link.name, sysctls),
    )


def _advertisements(interface: str) -> int | None:
    try:
        lines = Path(f"/proc/net/dev_snmp6/{interface}").read_text().splitlines()
    except OSError:
        return None
    counts = dict(line.split() for line in lines if len(line.split()) == 2)
    return int(counts["Icmp6InRouterAdvertisements"]) if "Icmp6InRouterAdvertisements" in counts else None


def _accepts_advertisements(interface: str, sysctls: Sysctls) -> bool | None:
    """Documentation/networking/ip-sysctl.rst: 1 means "unless forwarding", 2 "even then"."""
    accept = sysctls.get(f"net/ipv6/conf/{interface}/accept_ra")
    forwarding = sysctls.get(f"net/ipv6/conf/{interface}/forwarding")
    if accept is None:
        return None
    return accept == "2" or (accept == "1" and forwarding == "0")


def look_at_kernel(interfaces: Collection[str], sysctls: Sysctls | None = None) -> Kernel:
    """What there is for a tunnel, and what this process may."""
    sysctls = sysctls or ProcSysctls()
    buffer = sysctls.get("net/core/rmem_max")
    everywhere = _number(sysctls.get("net/ipv4/conf/all/rp_filter"))
    admin = capabilities.CAP_NET_ADMIN in capabilities.effective()
    strict = [
        name
        for name in interfaces
        if max(everywhere, _number(sysctls.get(f"net/ipv4/conf/{name}/rp_filter"))) == _STRICT
    ]
    return Kernel(
        release=os.uname().release,
        tun=_why_no_tun(),
        nftables=_why_no_nftables(admin=admin),
        admin=admin,
        gso=_has_option(_UDP_SEGMENT),
        gro=_has_option(_UDP_GRO),
        user_namespaces=_why_no_user_namespaces(sysctls),
        rootless=_why_not_rootless(),
        ipv6_disabled=not Path("/proc/net/if_inet6").exists() or sysctls.get("net/ipv6/conf/all/disable_ipv6") == "1",
        strict_reverse_path=tuple(strict),
        receive_buffer_bytes=None if buffer is None else int(buffer),
        clock_synchronised=_clock_synchronised(),
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _why_no_tun() -> str:
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "is missing"
    except PermissionError:
        return "may not be opened by this user"
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    return ""


def _why_no_nftables(*, admin: bool) -> str:
    try:
        nft = LibNft()
        if not admin:
            return "this user may not look at it"  # the library would say so on stderr by itself
        nft.tables()
    except OperationFailed as error:
        return str(error)
    return ""


def _has_option(option: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.setsockopt(_SOL_UDP, option, 1)
        except OSError:
            return False
    return True


def _why_no_user_namespaces(sysctls: Sysctls) -> str:
    if not Path("/proc/self/ns/user").exists() or sysctls.get("user/max_user_namespaces") == "0":
        return "the kernel has no user namespaces, or allows none"
    if os.geteuid() and sysctls.get("kernel/unprivileged_userns_clone") == "0":
        return "only root may make user namespaces (sysctl kernel.unprivileged_userns_clone)"
    if os.geteuid() and sysctls.get("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "AppArmor takes the powers of user namespaces away (sysctl kernel.apparmor_restrict_unprivileged_userns)"
    return ""


def _why_not_rootless() -> str:
    """Tries the rootless engine in a child process: as this user, or for root as one without rights."""
    return userns.in_child(_try_rootless) or ""


def _try_rootless() -> str | None:
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(_ORDINARY)
            os.setuid(_ORDINARY)
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else its own files in /proc stay root's
        choose("rootless")
    except OSError as error:
        return f"could not be tried as an ordinary user ({error.strerror})"
    except OperationFailed as error:
        return str(error)
    return None


def _clock_synchronised() -> bool | None:
    """By the kernel's word, which time daemons keep (adjtimex(2)); None: it does not say."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))  # all zero: only asks
    return None if state < 0 else state != _TIME_ERROR
