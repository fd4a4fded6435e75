"""Name servers of a tunnel: handed to resolvconf(8) as wg-quick does, or to systemd-resolved where that runs."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from warren.errors import OperationFailed
from warren.tunnel.items import Dns

_TIMEOUT_S = 10.0
_INTERFACE_ORDER = Path("/etc/resolvconf/interface-order")
_RESOLVED = Path("/run/systemd/resolve")


class Resolver(Protocol):
    """What decides which name servers this host asks. Errors: OperationFailed with the program's own reason."""

    async def set(self, dns: Dns) -> None:
        """Ask these servers, and no others, from now on."""

    async def unset(self, interface: str) -> None:
        """Forget what was set for that interface; the host asks the servers it asked before."""


def find_resolver(which: Callable[[str], str | None] = shutil.which, resolved: Path = _RESOLVED) -> Resolver:
    """The host's resolver manager. Raises OperationFailed when it has none."""
    if which("resolvconf"):
        return Resolvconf()
    if which("resolvectl") and resolved.is_dir():
        return SystemdResolved()
    raise OperationFailed(
        "DNS is in the config, but neither resolvconf nor systemd-resolved is here to take it; "
        "install one (Debian: apt install openresolv) or remove the DNS line"
    )


class Resolvconf:
    """resolvconf(8), Debian's or openresolv's."""

    async def set(self, dns: Dns) -> None:
        lines = [f"nameserver {server}" for server in dns.servers]
        if dns.search:
            lines.append(f"search {' '.join(dns.search)}")
        # -m 0 and -x: before all others and exclusively (openresolv; Debian's takes and ignores them).
        await _run(["resolvconf", "-a", _record(dns.interface), "-m", "0", "-x"], "\n".join([*lines, ""]))

    async def unset(self, interface: str) -> None:
        await _run(["resolvconf", "-d", _record(interface), "-f"])


def _record(interface: str) -> str:
    """The record's name: Debian's resolvconf sorts by prefix, and the first wildcard of its list is for tunnels."""
    try:
        prefixes = re.findall(r"^([A-Za-z0-9-]+)\*$", _INTERFACE_ORDER.read_text(), re.MULTILINE)
    except OSError:
        prefixes = []
    return f"{prefixes[0]}.{interface}" if prefixes else interface


class SystemdResolved:
    """systemd-resolved(8) by resolvectl(1)."""

    async def set(self, dns: Dns) -> None:
        await _run(["resolvectl", "dns", dns.interface, *(str(server) for server in dns.servers)])
        # "~." routes every name to these servers.
        await _run(["resolvectl", "domain", dns.interface, *dns.search, "~."])
        await _run(["resolvectl", "default-route", dns.interface, "yes"])

    async def unset(self, interface: str) -> None:
        if interface in (name for _, name in socket.if_nameindex()):  # else systemd-resolved has forgotten it by itself
            await _run(["resolvectl", "revert", interface])


async def _run(command: Sequence[str], text: str = "") -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(_TIMEOUT_S):
            _, errors = await process.communicate(text.encode())
    except OSError as error:
        raise OperationFailed(f"{command[0]} cannot be run: {error.strerror}") from None
    except TimeoutError:
        process.kill()
        raise OperationFailed(f"`{' '.join(command)}` does not end; is the resolver running?") from None
    if process.returncode:
        reason = errors.decode(errors="replace").strip().splitlines()
        raise OperationFailed(f"`{' '.join(command)}` failed: {reason[-1] if reason else 'it gives no reason'}")
