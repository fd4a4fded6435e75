"""Addresses of hosts that are named in documents."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from warren.errors import OperationFailed
from warren.model.tunnel import IPAddress


async def resolve_hosts(hosts: Sequence[str]) -> tuple[IPAddress, ...]:
    """All addresses of ``hosts`` (addresses or names), each once. Raises OperationFailed when there is none."""
    found: dict[IPAddress, None] = {}
    why = "there is no name to look up"
    for host in hosts:
        try:
            found[ip_address(host)] = None
            continue
        except ValueError:
            pass
        try:
            answers = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        except OSError as error:
            why = f"the name {host} cannot be looked up: {error.strerror or error}"
            continue
        for *_, place in answers:
            found[ip_address(str(place[0]).partition("%")[0])] = None
    if not found:
        raise OperationFailed(why)
    return tuple(found)
