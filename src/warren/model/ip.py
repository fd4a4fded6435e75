"""IP addresses as they are compared, and as they are written with a port."""

from __future__ import annotations

from ipaddress import IPv6Address

from warren.model.tunnel import IPAddress


def unmapped(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv4-mapped one means (``::ffff:192.0.2.7``, RFC 4291 §2.5.5.2), as dual-stack sockets
    write it; any other as it is.
    """
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def join_host_port(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address (RFC 3986 §3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
