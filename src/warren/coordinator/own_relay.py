"""The relay that a coordinator brings: a process of its own, offered to the members of all networks.

It is started again when it has died. That it cannot be had (a port that is taken) is said, and no reason not to serve.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from warren import log
from warren.coordinator.problems import Problem
from warren.coordinator.service import Service
from warren.errors import WarrenError
from warren.files import write_atomically
from warren.model.documents import Relay
from warren.model.tunnel import IPAddress
from warren.relay.config import RelayConfig
from warren.relay.process import RelayProcess
from warren.relay.serve import Ready

_SHARED_FILE: Final = "relay.secret"
_NAME_FILE: Final = "relay.name"
AGAIN_FIRST_S: Final = 1.0
AGAIN_MAX_S: Final = 60.0
STEADY_S: Final = 60.0
HOSTS_MAX: Final = 8

_log = log.get("coordinator")


@dataclass(frozen=True, slots=True)
class OwnRelay:
    """What the operator decides. Ports that are None are not served."""

    udp_port: int | None = 3478
    """TCP is served at the same number, for who cannot use UDP."""
    tls_port: int | None = 443


@asynccontextmanager
async def relaying(
    wanted: OwnRelay | None, service: Service, state: Path, urls: Sequence[str]
) -> AsyncIterator[Ready | None]:
    """Relay meanwhile, at the hosts of ``urls``; what is served, or None: nothing is. None ``wanted``: what was offered
    before is taken back.
    """
    if wanted is None or wanted == OwnRelay(None, None):
        await _withdraw(service, state)
        yield None
        return
    keeper = _Keeper(wanted, service, state, urls)
    ready = await keeper.begin()
    task = asyncio.create_task(keeper.keep(), name="own relay")
    try:
        yield ready
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await keeper.end()


class _Keeper:
    def __init__(self, wanted: OwnRelay, service: Service, state: Path, urls: Sequence[str]) -> None:
        self._service = service
        self._state = state
        self._hosts = tuple(dict.fromkeys(host for url in urls if (host := urlsplit(url).hostname)))[:HOSTS_MAX]
        self._secret = _secret(state)
        self._config = RelayConfig(
            udp_port=wanted.udp_port,
            tcp_port=wanted.udp_port,
            tls_port=wanted.tls_port,
            external_addresses=_external(self._hosts),
            secrets=(self._secret,),
            state=state / "relay",
        )
        self._process: RelayProcess | None = None
        self._served = False

    async def begin(self) -> Ready | None:
        """Start it; without TLS when only that is in the way, and not at all when it cannot be."""
        whole = self._config
        try:
            return await self._start()
        except WarrenError as error:
            why = error
        if whole.tls_port is not None and whole.udp_port is not None:
            self._config = replace(whole, tls_port=None)
            try:
                ready = await self._start()
            except WarrenError as error:
                why, self._config = error, whole
            else:
                _log.warning("the relay does without TLS, which some networks that block UDP let out alone: %s", why)
                return ready
        _log.warning(
            "members get no relay from this coordinator as yet; it is tried again, and --no-relay does without: %s", why
        )
        return None

    async def keep(self) -> None:
        """Start it again whenever it ends, until cancelled."""
        loop = asyncio.get_running_loop()
        wait_s = AGAIN_FIRST_S
        while self._process is not None:
            began = loop.time()
            status = await self._process.wait_closed()
            if loop.time() - began >= STEADY_S:
                wait_s = AGAIN_FIRST_S
            if self._served:
                _log.warning("the relay ended (status %d); it is started again in %.0f s", status, wait_s)
            await self._process.stop()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, AGAIN_MAX_S)
            try:
                await self._start()
            except WarrenError as error:
                (_log.warning if self._served else _log.debug)("the relay cannot be started: %s", error)
            else:
                _log.info("the relay serves")

    async def end(self) -> None:
        if self._process is not None:
            await self._process.stop()

    async def _start(self) -> Ready:
        self._process = RelayProcess(self._config)
        ready = await self._process.start()
        relay = Relay(
            name=_name(self._state),
            hosts=self._hosts,
            udp_port=ready.udp_port,
            tcp_port=ready.tcp_port,
            tls_port=ready.tls_port,
            certificate_sha256=ready.certificate_sha256,
        )
        await self._service.offer_own_relay(relay, self._secret)
        self._served = True
        return ready


def _secret(state: Path) -> bytes:
    """Made at the first start. Raises OperationFailed."""
    file = state / _SHARED_FILE
    if not file.exists():
        write_atomically(file, secrets.token_hex(32).encode())
    return file.read_bytes()


def _name(state: Path) -> str:
    """By which this coordinator's relay is known, among those of its replicas."""
    file = state / _NAME_FILE
    if not file.exists():
        write_atomically(file, f"coordinator-{secrets.token_hex(2)}".encode())
    return file.read_text()


async def _withdraw(service: Service, state: Path) -> None:
    if (state / _NAME_FILE).exists():
        try:
            await service.withdraw_own_relay(_name(state))
        except Problem as problem:
            _log.warning("the relay of before is still offered: %s", problem)


def _external(hosts: Sequence[str]) -> tuple[IPAddress, ...]:
    """What relayed addresses look like from outside: the first of each family that ``hosts`` name, if any does."""
    found: dict[int, IPAddress] = {}
    for host in hosts:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            continue
        found.setdefault(address.version, address)
    return tuple(found.values())
