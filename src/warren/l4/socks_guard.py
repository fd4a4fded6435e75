"""What a SOCKS server refuses: programs of other users, places outside the overlay, and what the policy forbids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from warren.l4.config import Entry
from warren.l4.kinds import Goal, Incoming, Refused, Tools
from warren.l4.limits import allowed
from warren.linux.sock_diag import owner_of
from warren.model.tunnel import IPAddress, TransportAddress

_ADDRESSES_MAX: Final = 8
"""Of one name; a service has an address at each serving member."""


async def overlay_addresses(host: IPAddress | str, goal: Goal, entry: Entry, tools: Tools) -> Sequence[IPAddress]:
    """The addresses of ``host`` that ``entry`` may go to, and at which the policy permits ``goal``. Raises Refused."""
    if not isinstance(host, str):
        check_place(host, entry)
    inside = [ip for ip in await tools.permitted(host, goal) if _is_in_overlay(ip, entry)][:_ADDRESSES_MAX]
    if not inside:
        raise Refused("policy", f"{host} is not in the overlay")
    return inside


def check_place(ip: IPAddress, entry: Entry) -> None:
    """Raises Refused for what is not in the overlay, whose prefixes are Entry.allowed; this host never is."""
    if not _is_in_overlay(ip, entry):
        raise Refused("policy", f"{ip} is not in the overlay")


def check_stream(incoming: Incoming, entry: Entry) -> None:
    """Raises Refused for a connection of another user, where the entry is for one user's alone."""
    # A Unix socket has a mode instead.
    if entry.owner_uid is not None and incoming.client is not None and incoming.local is not None:
        _check(incoming.client, owner_of(incoming.client, incoming.local), entry)


def check_datagram(client: TransportAddress, local: TransportAddress, entry: Entry) -> None:
    """The same for who sends datagrams from ``client`` to ``local``."""
    if entry.owner_uid is not None:
        _check(client, owner_of(client, local, "udp"), entry)


def _is_in_overlay(ip: IPAddress, entry: Entry) -> bool:
    special = ip.is_loopback or ip.is_unspecified or ip.is_multicast or ip.is_link_local
    return not special and allowed(ip, entry.allowed)


def _check(client: TransportAddress, uid: int | None, entry: Entry) -> None:
    if uid is None or uid not in (entry.owner_uid, 0):
        who = "no user of this host" if uid is None else f"user {uid}"
        raise Refused("source", f"{client} is of {who}, and this is for user {entry.owner_uid}")
