"""Split DNS by systemd-resolved's interface on D-Bus (org.freedesktop.resolve1(5)).

The overlay's interface gets our resolver as its name server, and its domains as routing-only ones: questions for them
go there and nowhere else, and no other question does. What is set belongs to the interface: it ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from warren.errors import OperationFailed
from warren.model.tunnel import IPAddress

if TYPE_CHECKING:
    from jeepney.io.asyncio import DBusRouter

_TIMEOUT_S: Final = 5.0
_SERVICE: Final = "org.freedesktop.resolve1"
_PATH: Final = "/org/freedesktop/resolve1"
_MANAGER: Final = "org.freedesktop.resolve1.Manager"
_LINK: Final = "org.freedesktop.resolve1.Link"
_STUBS: Final = frozenset({"127.0.0.53", "127.0.0.54"})
_UNKNOWN: Final = "org.freedesktop.DBus.Error.UnknownMethod"


class Wanted(NamedTuple):
    server: IPAddress
    domains: tuple[str, ...]


async def resolved_is_running() -> bool:
    """Whether systemd-resolved is on the system bus. It is not started by asking."""
    try:
        async with _bus() as bus:
            answer = await _call(
                bus, "NameHasOwner", "s", (_SERVICE,), to=("org.freedesktop.DBus", "/org/freedesktop/DBus")
            )
            return bool(answer[0])
    except OperationFailed:
        return False


def resolved_is_asked(etc: Path = Path("/etc")) -> bool:
    """Whether the host's programs ask systemd-resolved: by /etc/resolv.conf, or by nsswitch.conf(5)."""
    servers = re.findall(r"^\s*nameserver\s+(\S+)", _text(etc / "resolv.conf"), re.MULTILINE)
    if servers and _STUBS.issuperset(servers):
        return True
    return re.search(r"^\s*hosts:.*\bresolve\b", _text(etc / "nsswitch.conf"), re.MULTILINE) is not None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


class ResolvedDns:
    """See :class:`warren.dns.split.SplitDns`."""

    description = "systemd-resolved, by its interface on D-Bus"

    def __init__(self) -> None:
        self._wanted: dict[str, Wanted] = {}

    async def engage(self, interface: str, server: IPAddress, domains: tuple[str, ...]) -> None:
        wanted = Wanted(server, domains)
        async with _bus() as bus:
            try:
                await _set(bus, interface, wanted)
            except OperationFailed:
                await _revert(bus, interface)
                raise
        self._wanted[interface] = wanted

    async def disengage(self, interface: str) -> None:
        if self._wanted.pop(interface, None) is not None:
            async with _bus() as bus:
                await _revert(bus, interface)

    async def check(self) -> None:
        if not self._wanted:
            return
        trouble: OperationFailed | None = None
        async with _bus() as bus:
            for interface, wanted in self._wanted.items():
                try:
                    if await _observed(bus, interface) != wanted:
                        await _set(bus, interface, wanted)
                except OperationFailed as error:  # the others are not to suffer from it
                    trouble = error
        if trouble is not None:
            raise trouble

    async def restore(self) -> None:
        interfaces = list(self._wanted)
        self._wanted.clear()
        if interfaces:
            async with _bus() as bus:
                for interface in interfaces:
                    await _revert(bus, interface)


async def _set(bus: DBusRouter, interface: str, wanted: Wanted) -> None:
    index = _index(interface)
    domains = [(domain, True) for domain in wanted.domains]  # True: for routing only, not for searching
    await _call(bus, "SetLinkDNS", "ia(iay)", (index, [(_family(wanted.server), wanted.server.packed)]))
    await _call(bus, "SetLinkDomains", "ia(sb)", (index, domains))
    await _call(bus, "SetLinkDefaultRoute", "ib", (index, False))
    # The overlay carries no multicast; our zones are not signed, nor is the way to them in need of TLS.
    for method in ("SetLinkLLMNR", "SetLinkMulticastDNS", "SetLinkDNSSEC", "SetLinkDNSOverTLS"):
        await _call(bus, method, "is", (index, "no"), may_be_unknown=True)
    await _call(bus, "FlushCaches", "", ())


async def _revert(bus: DBusRouter, interface: str) -> None:
    with contextlib.suppress(OperationFailed):  # without the interface there is nothing left to revert
        await _call(bus, "RevertLink", "i", (_index(interface),))


async def _observed(bus: DBusRouter, interface: str) -> Wanted | None:
    """What is set now; None when it is nothing that :meth:`ResolvedDns.engage` sets."""
    (path,) = await _call(bus, "GetLink", "i", (_index(interface),))
    properties = (_SERVICE, path, "org.freedesktop.DBus.Properties")
    ((_, servers),) = await _call(bus, "Get", "ss", (_LINK, "DNS"), to=properties)
    ((_, domains),) = await _call(bus, "Get", "ss", (_LINK, "Domains"), to=properties)
    if len(servers) != 1 or not all(routing_only for _, routing_only in domains):
        return None
    return Wanted(ip_address(bytes(servers[0][1])), tuple(name for name, _ in domains))


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        raise OperationFailed(f"there is no interface {interface} for systemd-resolved to ask through") from None


def _family(address: IPAddress) -> int:
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET


@contextlib.asynccontextmanager
async def _bus() -> AsyncIterator[DBusRouter]:
    """The system bus (DBUS_SYSTEM_BUS_ADDRESS, or where it usually is). Raises OperationFailed when there is none."""
    from jeepney.io.asyncio import DBusRouter, open_dbus_connection

    try:
        async with asyncio.timeout(_TIMEOUT_S):
            connection = await open_dbus_connection(bus="SYSTEM")
    except (OSError, EOFError, TimeoutError, RuntimeError, ValueError) as error:
        raise OperationFailed(f"the system's D-Bus cannot be reached: {str(error) or 'no answer in time'}") from None
    try:
        async with DBusRouter(connection) as router:
            yield router
    finally:
        await connection.close()


async def _call(
    bus: DBusRouter,
    method: str,
    signature: str,
    body: tuple[object, ...],
    *,
    to: tuple[str, ...] = (_SERVICE, _PATH, _MANAGER),
    may_be_unknown: bool = False,
) -> tuple[Any, ...]:
    """Raises OperationFailed with the service's reason."""
    from jeepney import DBusAddress, DBusErrorResponse, new_method_call
    from jeepney.low_level import MessageFlag
    from jeepney.wrappers import unwrap_msg

    service, path, *interface = to
    address = DBusAddress(path, service, interface[0] if interface else service)
    call = new_method_call(address, method, signature or None, body)
    call.header.flags |= MessageFlag.no_auto_start
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            answer: tuple[Any, ...] = unwrap_msg(await bus.send_and_get_reply(call))
            return answer
    except DBusErrorResponse as error:
        if may_be_unknown and error.name == _UNKNOWN:
            return ()
        reason = error.data[0] if error.data else error.name
        raise OperationFailed(f"systemd-resolved refuses {method}: {reason}") from None
    except (OSError, EOFError, TimeoutError) as error:
        raise OperationFailed(
            f"systemd-resolved does not answer {method}: {str(error) or 'no answer in time'}"
        ) from None
