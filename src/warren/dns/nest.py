"""Names in a network that no host is in but its own programs: the nest of the rootless engine.

Nothing of the host changes. Programs that run in the nest have a resolv.conf(5) of their own, which names our resolver;
it passes questions for other names on to the servers that the host itself asks, from the host's side.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from warren.dns.resolv_conf import Former, ResolvConf
from warren.dns.split import Forward
from warren.dns.upstream import SERVERS_MAX
from warren.errors import OperationFailed
from warren.model.tunnel import IPAddress

_READABLE_BY_ALL: Final = 0o644


class NestDns:
    """A :class:`warren.dns.split.SplitDns` that writes ``file``, and reads what ``host`` has."""

    def __init__(self, forward: Forward, file: Path, host: ResolvConf) -> None:
        self._forward = forward
        self._file = file
        self._host = host
        self._servers: dict[str, IPAddress] = {}
        self._former: Former | None = None
        self.description = f"{file}, which `warren exec` gives to programs in the overlay"

    async def engage(self, interface: str, server: IPAddress, domains: tuple[str, ...]) -> None:  # noqa: ARG002
        """See :class:`warren.dns.split.SplitDns`."""
        self._servers[interface] = server
        self._take()

    async def disengage(self, interface: str) -> None:
        """See :class:`warren.dns.split.SplitDns`."""
        self._servers.pop(interface, None)
        if self._servers:
            self._take()
        else:
            await self.restore()

    async def check(self) -> None:
        """Take over what the host asks now."""
        if self._servers and self._host.former() != self._former:
            self._take()

    async def restore(self) -> None:
        """See :class:`warren.dns.split.SplitDns`."""
        self._servers = {}
        self._forward(())
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            raise OperationFailed(f"{self._file} cannot be removed: {error.strerror}; remove it by hand") from None

    def _take(self) -> None:
        former = self._host.former()
        try:
            _write(self._file, resolv_conf(self._servers.values(), former))
        except OSError as error:
            raise OperationFailed(
                f"{self._file} cannot be written: {error.strerror}; let this user write to {self._file.parent}"
            ) from None
        self._forward(former.servers)
        self._former = former


def resolv_conf(servers: Iterable[IPAddress], former: Former) -> str:
    """The file for programs in the nest: the host's name servers cannot be asked from there, so only ours are named."""
    names = dict.fromkeys(map(str, servers))
    lines = ["# Warren answers here, and asks the name servers of the host for names that are not of its networks."]
    lines += [f"nameserver {name}" for name in [*names][:SERVERS_MAX]]
    return "".join(f"{line}\n" for line in [*lines, *former.other_lines])


def _write(path: Path, text: str) -> None:
    """In place: programs that run already have the file itself mounted over theirs. It is never seen empty."""
    data = text.encode(errors="surrogateescape")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _READABLE_BY_ALL)
    try:
        os.fchmod(fd, _READABLE_BY_ALL)
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)
