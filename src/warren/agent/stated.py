"""The public config: the operator's word on where this node stands, ``[public]`` in ``agent.toml``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated

import msgspec
from msgspec import Meta

from warren.model.tunnel import IPAddress, IPNetwork, TransportAddress
from warren.toml.settings import Unusable


class PublicTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[public]``."""

    addresses: Annotated[tuple[str, ...], Meta(max_length=32)] = ()
    gateway: str | None = None
    segment: str | None = None


@dataclass(frozen=True, slots=True)
class StatedAddress:
    """An address at which the operator says this node answers. ``port`` 0: the port the node listens on."""

    ip: IPAddress
    port: int = 0

    def at(self, listen_port: int) -> TransportAddress:
        return TransportAddress(self.ip, self.port or listen_port)

    def __str__(self) -> str:
        return str(TransportAddress(self.ip, self.port)) if self.port else str(self.ip)


@dataclass(frozen=True, slots=True)
class Stated:
    """The public config: the operator's word on where this node stands."""

    addresses: tuple[StatedAddress, ...] = ()
    gateway: IPAddress | None = None
    segment: IPNetwork | None = None

    def lines(self) -> tuple[str, ...]:
        """For status and reports."""
        return (
            *(f"address {address}" for address in self.addresses),
            *([f"gateway {self.gateway}"] if self.gateway else []),
            *([f"segment {self.segment}"] if self.segment else []),
        )


def stated_in(table: PublicTable) -> Stated:
    """Raises Unusable, with the key."""
    return Stated(
        tuple(_stated_address(text) for text in table.addresses),
        None if table.gateway is None else _gateway(table.gateway),
        None if table.segment is None else _segment(table.segment),
    )


def _stated_address(text: str) -> StatedAddress:
    key = "public.addresses"
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?", text)
    plain = re.fullmatch(r"([0-9.]+)(?::(\d{1,5}))?", text)
    match = bracketed or plain
    host, port = (match[1], int(match[2] or 0)) if match else (text, 0)
    try:
        ip: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        raise Unusable(key, f"{text!r} is no address; say 203.0.113.7, 2001:db8::7 or [2001:db8::7]:51820") from None
    if match and match[2] and not 1 <= port <= 65_535:
        raise Unusable(key, f"{text!r}: a port is 1 to 65535")
    if ip.is_unspecified or ip.is_loopback or ip.is_multicast or ip.is_link_local:
        raise Unusable(key, f"nobody else can reach this node at {ip}")
    return StatedAddress(ip, port)


def _gateway(text: str) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError:
        raise Unusable("public.gateway", f"{text!r} is no address") from None


def _segment(text: str) -> IPNetwork:
    try:
        found: IPv4Network | IPv6Network = ip_network(text)
    except ValueError as error:
        raise Unusable("public.segment", f"{error}; say 192.0.2.0/24") from None
    return found
