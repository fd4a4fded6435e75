"""News of the kernel's packet filter: that somebody has taken rules away, as ``nft flush ruleset`` does."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator
from typing import Final

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NFNLGRP_NFTABLES: Final = 7
_NFNL_SUBSYS_NFTABLES: Final = 10
_REMOVALS: Final = frozenset(_NFNL_SUBSYS_NFTABLES << 8 | message for message in (2, 5, 8))
"""NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN and NFT_MSG_DELRULE (linux/netfilter/nf_tables.h)."""
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_READ_BYTES: Final = 1 << 16


async def removals() -> AsyncIterator[None]:
    """Yields after tables, chains or rules of nftables were removed in the network namespace of the calling thread, by
    this process or another; what happens before the next one is asked for counts as one. Raises OSError where that
    cannot be watched.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as news:
        news.setblocking(False)
        news.bind((0, 0))
        news.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
        while True:
            told = await _readable(loop, news)
            while (data := _pending(news)) is not None:
                told |= tells_of_removal(data)
            if told:
                yield


def tells_of_removal(data: bytes) -> bool:
    """Whether one of the netlink messages in ``data`` says so; what is cut off is taken for it."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if kind in _REMOVALS or length < _HEADER.size:
            return True
        at += (length + 3) & ~3
    return False


async def _readable(loop: asyncio.AbstractEventLoop, news: socket.socket) -> bool:
    """Wait for a message; whether it tells of a removal."""
    try:
        return tells_of_removal(await loop.sock_recv(news, _READ_BYTES))
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return True  # some were lost


def _pending(news: socket.socket) -> bytes | None:
    try:
        return news.recv(_READ_BYTES)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return bytes(_HEADER.size)  # some were lost: reads as a removal
