"""Opens the streams to relays that :class:`warren.reach.relays.Relays` wishes for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from warren.errors import OperationFailed, WarrenError
from warren.model.tunnel import TransportAddress
from warren.reach.bridge import StreamBridge
from warren.reach.bridge_connect import TlsPin
from warren.reach.proxy import Proxy
from warren.reach.relay_values import RelayPlace, Transport
from warren.reach.tcp import mapped_tcp_address, punch_tcp
from warren.reach.tcp_paths import PUNCH_S


async def open_bridge(
    place: RelayPlace, transport: Transport, plane_port: Callable[[], int], proxy: Proxy | None
) -> StreamBridge:
    """By the first of its hosts that answers. Raises OperationFailed, Unreachable: what is wrong with the last one."""
    failure: WarrenError = OperationFailed(f"the relay {place.name} has no port for {transport}")
    port = place.port(transport)
    for host in place.hosts if port is not None else ():
        tls = _pin(place, host) if transport == "tls" else None
        try:
            return await StreamBridge.open(host, port or 0, tls=tls, proxy=proxy, plane_port=plane_port)
        except WarrenError as error:
            failure = error
    raise failure


def _pin(place: RelayPlace, host: str) -> TlsPin:
    if place.certificate_sha256 is not None:
        return TlsPin(certificate_sha256=place.certificate_sha256)
    return TlsPin(hostname=host)


async def tcp_mapped(places: Sequence[RelayPlace], port: int) -> list[TransportAddress]:
    """How the first relay that answers over TCP sees this host's TCP port ``port``."""
    for place in places:
        for host in place.hosts if place.tcp_port is not None else ():
            seen = await mapped_tcp_address(host, place.tcp_port or 0, port)
            if seen is not None:
                return [seen]
    return []


async def punch(remote: Sequence[TransportAddress], key: bytes, controlling: bool, port: int) -> StreamBridge | None:
    """A connection to a peer that connects to us at about the same time; None: none came about."""
    return await punch_tcp(
        local_port=port,
        remote=remote,
        key=key,
        controlling=controlling,
        plane_port=lambda: port,
        timeout_s=PUNCH_S,
    )
