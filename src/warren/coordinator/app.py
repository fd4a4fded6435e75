"""The coordinator as a process: opens what it needs, serves until it is told to stop, and closes in order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from warren import log
from warren.coordinator import serve
from warren.coordinator.addresses import urls_for
from warren.coordinator.limits import Limits
from warren.coordinator.operator import network_ticket
from warren.coordinator.own_relay import OwnRelay, relaying
from warren.coordinator.service import Service
from warren.coordinator.store import open_store
from warren.coordinator.tls import Certificates, check_certificate, make_certificate, own_directory
from warren.coordinator.web import application
from warren.coordinator.web.auth import Gate
from warren.coordinator.web.hub import Hub
from warren.coordinator.web.metrics import Metrics
from warren.coordinator.web.node_session import Nodes
from warren.errors import OperationFailed, UsageError, WarrenError
from warren.model.tickets import Access, access_text
from warren.relay import serve as relays

_log = log.get("coordinator")

DATABASE_FILE: Final = "coordinator.db"
DEFAULT_LISTEN: Final = ("[::]:8443", "0.0.0.0:8443")
CERTIFICATE_EVERY_S: Final = 10.0
FEW_CONNECTIONS: Final = 5_000
FILES_BESIDES_CONNECTIONS: Final = 128
"""Databases, listening sockets, logs: what is open when nobody is connected, with room to spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What the operator decides."""

    state: Path
    database: str | None = None
    """None: an SQLite file in the state directory."""
    listen: tuple[str, ...] = ()
    """``ADDRESS:PORT``; empty: DEFAULT_LISTEN, as far as this machine has IPv6 and IPv4."""
    urls: tuple[str, ...] = ()
    """How others reach it; empty: by this machine's addresses."""
    certificate: Path | None = None
    key: Path | None = None
    network: str | None = None
    """A network to make, with one ticket, unless it is there."""
    relay: OwnRelay | None = None
    """The relay that it brings; None: none."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What the operator is told once, when the coordinator serves. ``access`` and ``ticket`` are secrets."""

    key: str
    listening: tuple[str, ...]
    urls: tuple[str, ...]
    access: str | None = field(repr=False)
    """Only at the very first start."""
    network: str | None
    ticket: str | None = field(repr=False)
    """Only when the network has no member yet."""
    relay: tuple[str, ...] = ()
    """What its own relay serves, such as ``UDP 3478``; empty: there is none."""


async def run(configuration: Configuration, announce: Callable[[Ready], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``announce`` is called once, when connections are accepted.

    Raises WarrenError when it cannot begin: nothing is left behind then.
    """
    files = _own_certificate(configuration)
    own_directory(configuration.state)
    sockets = _listen(configuration)
    try:
        listening = [one.getsockname()[:2] for one in sockets]
        urls = configuration.urls or urls_for(listening)
        if not urls:
            raise UsageError("this machine has no address that others can use; say how they reach it with --url")
        async with (
            _started(configuration, urls) as service,
            relaying(configuration.relay, service, configuration.state, urls) as relay,
        ):
            certificates = Certificates(*files or make_certificate(configuration.state), service.identity)
            await _serve(configuration, sockets, urls, service, certificates, relay, announce)
    finally:
        for one in sockets:
            one.close()


@dataclass(frozen=True, slots=True)
class Web:
    """The outer face, put together and not running yet: ``hub.run`` and ``server.serve`` make it live."""

    server: serve.Server
    hub: Hub
    metrics: Metrics


def assemble(
    service: Service,
    sockets: list[socket.socket],
    *,
    urls: tuple[str, ...],
    certificates: Certificates,
    limits: Limits,
) -> Web:
    """What serves ``service`` on ``sockets``, which the caller closes."""
    metrics = Metrics()
    metrics.add_source(lambda: _counted(service))
    gate = Gate(service, limits, metrics)
    hub = Hub(service, metrics)
    names = frozenset(urlsplit(url).hostname or "" for url in urls)
    web = application.build(
        service,
        Nodes(service, hub, gate, metrics),
        gate,
        hosts=lambda: names | certificates.current.names,
        limits=limits,
        metrics=metrics,
    )
    server = serve.Server(web, sockets, certificate=lambda: certificates.current, limits=limits, metrics=metrics)
    return Web(server, hub, metrics)


async def _serve(
    configuration: Configuration,
    sockets: list[socket.socket],
    urls: tuple[str, ...],
    service: Service,
    certificates: Certificates,
    relay: relays.Ready | None,
    announce: Callable[[Ready], None],
) -> None:
    limits = _within_files(configuration.limits)
    web = assemble(service, sockets, urls=urls, certificates=certificates, limits=limits)
    ready = await _prepare(configuration, service, urls, tuple(str(one) for one in web.server.addresses))
    ready = dataclasses.replace(ready, relay=_served_by(relay))
    with _signals(service, web.server, certificates):
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(work) for work in (web.hub.run(), service.run(), _watch(certificates))]
            serving = group.create_task(web.server.serve())
            await web.server.accepting.wait()
            announce(ready)
            _log.info("ready: %s serves on %s", service.identity.verify_key.short, ", ".join(ready.listening))
            await serving
            for task in background:
                task.cancel()
    _log.info("stopped")


@contextlib.asynccontextmanager
async def _started(configuration: Configuration, urls: tuple[str, ...]) -> AsyncIterator[Service]:
    store = await open_store(configuration.database or database_in(configuration.state))
    service = Service(store, urls=urls, wall_clock=time.time, random=os.urandom)
    try:
        await service.start()
        yield service
    finally:
        await service.close()


def database_in(state: Path) -> str:
    """The URL of the database that a coordinator keeps in its state directory."""
    return f"sqlite:///{state.absolute() / DATABASE_FILE}"


def _listen(configuration: Configuration) -> list[socket.socket]:
    """Raises UsageError, OperationFailed; nothing stays open then."""
    sockets: list[socket.socket] = []
    try:
        for text in configuration.listen or DEFAULT_LISTEN:
            try:
                sockets += serve.listen(serve.parse_address(text))
            except serve.NoSuchFamily:
                if configuration.listen:  # asked for by the operator, and not only by default
                    raise
        if not sockets:
            raise OperationFailed("this machine has neither IPv6 nor IPv4; say where to listen with --listen")
    except WarrenError:
        for one in sockets:
            one.close()
        raise
    return sockets


def _own_certificate(configuration: Configuration) -> tuple[Path, Path] | None:
    """The files of the operator's certificate and key; None: the coordinator makes its own. Raises UsageError."""
    certificate, key = configuration.certificate, configuration.key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("a certificate and its key come together; give both --tls-certificate and --tls-key")
    check_certificate(certificate, key)
    return certificate, key


async def _prepare(
    configuration: Configuration, service: Service, urls: tuple[str, ...], listening: tuple[str, ...]
) -> Ready:
    """Make what the very first start makes."""
    key = service.identity.verify_key
    first = await service.first_token()
    access = None if first is None else access_text(Access(urls=urls, key=key, secret=first))
    ticket = None if configuration.network is None else await network_ticket(service, configuration.network)
    return Ready(
        key=str(key), listening=listening, urls=urls, access=access, network=configuration.network, ticket=ticket
    )


def _served_by(relay: relays.Ready | None) -> tuple[str, ...]:
    if relay is None:
        return ()
    ports = {"UDP": relay.udp_port, "TCP": relay.tcp_port, "TLS": relay.tls_port}
    return tuple(f"{name} {port}" for name, port in ports.items() if port is not None)


def _counted(service: Service) -> Mapping[str, float]:
    counted = dataclasses.asdict(service.metrics)
    return {name if name == "sessions" else f"{name}_total": value for name, value in counted.items()}


def _within_files(limits: Limits) -> Limits:
    """As many connections as this process may have files open, having asked for as many as it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + FILES_BESIDES_CONNECTIONS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft >= wanted:
        return limits
    most = max(1, soft - FILES_BESIDES_CONNECTIONS)
    if most < FEW_CONNECTIONS:
        _log.warning("no more than %d nodes: the process may have %d files open (see `ulimit -n`)", most, soft)
    return dataclasses.replace(limits, connections=most)


async def _watch(certificates: Certificates) -> None:
    while True:
        await asyncio.sleep(CERTIFICATE_EVERY_S)
        if certificates.have_changed():
            _reload(certificates)


def _reload(certificates: Certificates) -> None:
    try:
        if certificates.reload():
            _log.info("new connections get the new certificate")
    except UsageError as error:
        _log.warning("the old certificate stays: %s", error)


@contextlib.contextmanager
def _signals(service: Service, server: serve.Server, certificates: Certificates) -> Iterator[None]:
    def stop() -> None:
        service.stopping()
        server.stop()

    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: lambda: _reload(certificates)}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
