"""A relay in this process: opens what is configured, gives privileges up, and relays until a signal."""

from __future__ import annotations

import gc
import logging
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass

from warren.linux import capabilities
from warren.model.tunnel import IPAddress
from warren.relay.config import RelayConfig
from warren.relay.plane import Plane

_log = logging.getLogger("warren.relay")


@dataclass(frozen=True, slots=True)
class Ready:
    """What a relay serves, once it does. A port is None when it is not served."""

    udp_port: int | None
    tcp_port: int | None
    tls_port: int | None
    metrics_port: int | None
    certificate_sha256: bytes | None
    addresses: tuple[IPAddress, ...]
    """Of relayed addresses, as peers see them."""


def run(config: RelayConfig, announce: Callable[[Plane, Ready], None]) -> str:
    """Relay until SIGTERM or SIGINT, or until the plane is stopped otherwise; returns why it ended.

    ``announce`` is called once when everything is open and before anything is relayed. Raises OperationFailed or
    UsageError for what cannot be had.
    """
    raise_file_limit()
    plane = Plane(config)
    try:
        # The sockets of clients are bound to the relay's port while it runs, which may be a low one.
        capabilities.keep_only(frozenset({capabilities.CAP_NET_BIND_SERVICE}))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _: plane.stop(signal.Signals(received).name))
        gc.collect()
        gc.freeze()  # what lives now lives for ever: keep the collector away from it
        announce(plane, ready(plane))
        why = plane.run()
    finally:
        plane.close()
    _log.info("stopped: %s", why)
    return why


def ready(plane: Plane) -> Ready:
    return Ready(
        plane.udp_port,
        plane.tcp_port,
        plane.tls_port,
        plane.metrics_port,
        plane.certificate_sha256,
        plane.addresses,
    )


def raise_file_limit() -> None:
    """As many open files as the host allows: an allocation takes up to three."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
