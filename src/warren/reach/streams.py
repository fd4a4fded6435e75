"""Opens the streams to relays that :class:`warren.reach.relays.Relays` wishes for."""

from __future__ import annotations

from collections.abc import Callable

from warren.errors import OperationFailed, WarrenError
from warren.reach.bridge import StreamBridge
from warren.reach.bridge_connect import TlsPin
from warren.reach.proxy import Proxy
from warren.reach.relay_values import RelayPlace, Transport


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
