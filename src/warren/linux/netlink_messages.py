"""What rtnetlink's messages say, as values, and what values are in requests: the forms of pyroute2, no sockets.

Sources: ``if_link.h``, ``if_addr.h``, ``rtnetlink.h`` and ``fib_rules.h`` of ``include/uapi/linux``.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from warren.linux.netlink_values import TABLE_LOCAL, Address, Link, Route, Rule

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_IFF_UP = 1
_ARPHRD_ETHER = 1
_FIB_RULE_INVERT = 2
_SCOPE_LINK, _SCOPE_HOST = 253, 254
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_IFA_TEMPORARY = 0x01  # of IPv6; of IPv4 it says "secondary"
_IFA_PASSING = 0x08 | 0x20 | 0x40  # duplicate, deprecated, tentative
_IFA_F_NODAD = 0x02  # RFC 4862 §5.4: duplicate address detection
_NO_SUPPRESSION = 0xFFFFFFFF
_FOREVER = 0xFFFFFFFF
_FULL_MASK = 0xFFFFFFFF
_RULE_KEYS = frozenset(
    f"FRA_{key}" for key in ("TABLE", "PRIORITY", "FWMARK", "FWMASK", "SUPPRESS_PREFIXLEN", "PROTOCOL")
)


def link_of(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    return Link(
        message.get_attr("IFLA_IFNAME"),
        message["index"],
        bool(message["flags"] & _IFF_UP),
        message.get_attr("IFLA_MTU"),
        message.get_attr("IFLA_GSO_MAX_SEGS") or 0,
        kind or "",
        message.get_attr("IFLA_ADDRESS") or "" if message["ifi_type"] == _ARPHRD_ETHER else "",
    )


def address_of(message: Any, names: dict[int, str]) -> Address | None:
    """``names``: of interfaces, by index. None: of an interface that has none of them."""
    local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    if message["index"] not in names or local is None:
        return None
    value = ip_interface((local, message["prefixlen"]))
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    passing = flags & (_IFA_PASSING | (_IFA_TEMPORARY if value.version == 6 else 0))
    return Address(names[message["index"]], value, not passing)


def address_request(address: Address, index: int, *, adds: bool = False) -> dict[str, Any]:
    """To add an address to the interface ``index``, or to remove it there."""
    value = address.value
    request: dict[str, Any] = {"index": index, "address": str(value.ip), "prefixlen": value.network.prefixlen}
    if adds and value.version == 6:
        # A tunnel has nobody to ask whether the address is taken, and until it has asked the kernel lets none bind.
        request["flags"] = _IFA_F_NODAD
        if not address.lasting:
            request |= {"preferred_lft": 0, "valid_lft": _FOREVER}  # deprecated: the kernel then prefers others
    return request


def route_of(message: Any, names: dict[int, str]) -> Route | None:
    """As :func:`address_of`; None also for what is no unicast route, or the kernel's own."""
    table = message.get_attr("RTA_TABLE") or message["table"]
    interface = names.get(message.get_attr("RTA_OIF"))
    version = {family: version for version, family in FAMILIES.items()}.get(message["family"])
    local = message["type"] == _RTN_LOCAL
    if not (local or message["type"] == _RTN_UNICAST) or table == TABLE_LOCAL or interface is None or version is None:
        return None
    anywhere = "0.0.0.0" if version == 4 else "::"  # noqa: S104 - a route's destination
    gateway = message.get_attr("RTA_GATEWAY")
    return Route(
        ip_network((message.get_attr("RTA_DST") or anywhere, message["dst_len"])),
        interface,
        table,
        None if gateway is None else ip_address(gateway),
        route_mtu(message),
        message["proto"],
        local,
    )


def route_mtu(message: Any) -> int:
    """0: that of the interface."""
    metrics = message.get_attr("RTA_METRICS")
    return 0 if metrics is None else metrics.get_attr("RTAX_MTU") or 0


def route_request(route: Route, index: int) -> dict[str, Any]:
    """To add or remove a route by the interface ``index``."""
    request: dict[str, Any] = {
        "family": FAMILIES[route.network.version],
        "dst": str(route.network),
        "oif": index,
        "table": route.table,
        "proto": route.protocol,
    }
    if route.mtu:
        request["metrics"] = {"mtu": route.mtu}
    if route.local:
        request["type"] = _RTN_LOCAL
    if route.gateway is not None:
        request["gateway"] = str(route.gateway)
    elif route.local:
        request["scope"] = _SCOPE_HOST
    elif route.network.version == 4:
        request["scope"] = _SCOPE_LINK  # as ip-route(8) does for a route without a gateway
    return request


def rule_of(message: Any, version: int) -> Rule:
    mark, mask = message.get_attr("FRA_FWMARK") or 0, message.get_attr("FRA_FWMASK")
    suppress = message.get_attr("FRA_SUPPRESS_PREFIXLEN")
    keys = {name for name, _ in message["attrs"]}
    selects = message["dst_len"] or message["src_len"] or message["tos"] or not keys <= _RULE_KEYS
    return Rule(
        version,
        message.get_attr("FRA_PRIORITY") or 0,
        message.get_attr("FRA_TABLE"),
        mark,
        bool(message["flags"] & _FIB_RULE_INVERT),
        None if suppress in (None, _NO_SUPPRESSION) else suppress,
        bool(selects or (mark and mask != _FULL_MASK)),
    )


def rule_request(rule: Rule) -> dict[str, Any]:
    request: dict[str, Any] = {
        "family": FAMILIES[rule.version],
        "priority": rule.priority,
        "table": rule.table,
        "flags": _FIB_RULE_INVERT if rule.inverted else 0,
    }
    if rule.fwmark:
        request["fwmark"] = rule.fwmark
    if rule.suppress_prefixlength is not None:
        request["FRA_SUPPRESS_PREFIXLEN"] = rule.suppress_prefixlength
    return request
