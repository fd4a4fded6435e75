"""``warren tunnel``: puts the parts together and runs them in this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Final

from warren import log
from warren.engine.userspace.client import UserspaceEngine
from warren.linux.names import resolve
from warren.linux.netlink import open_netlink
from warren.linux.nft import LibNft
from warren.linux.sysctl import ProcSysctls
from warren.model.tunnel import TransportAddress
from warren.tunnel import preflight
from warren.tunnel.config import TunnelConfig
from warren.tunnel.controller import Controller
from warren.tunnel.desired import FIRST_TABLE, Choices, DefaultRoute, default_versions, desired, tunnel_mtu
from warren.tunnel.dns import find_resolver
from warren.tunnel.fields import Endpoint
from warren.tunnel.files import ConfigFile, load
from warren.tunnel.host import Doors
from warren.tunnel.items import Mtu
from warren.tunnel.journal import Journal, controlling
from warren.tunnel.tables import number_of
from warren.tunnel.world import DataPlane, World

STATE: Final = Path("/var/lib/warren/tunnel")
"""Where data planes keep the greatest timestamp they used, so that a clock set back locks no key out.

STATE_DIRECTORY in the environment, which systemd sets for a service, names another place.
"""

_log = log.get("tunnel")


class UserspaceEngines:
    """Data planes of our own, each a process."""

    async def start(self, interface: str, mtu: int) -> DataPlane:
        return await UserspaceEngine.start(interface, mtu=mtu, state=_state_directory())

    async def attach(self, interface: str) -> DataPlane:
        return await UserspaceEngine.attach(interface)


def run(file: ConfigFile) -> None:
    """Run the tunnel of ``file`` until SIGTERM or SIGINT. Raises WarrenError."""
    config = _load(file)
    preflight.check_privilege()
    asyncio.run(_run(file, config))


async def _run(file: ConfigFile, config: TunnelConfig) -> None:
    async with open_netlink() as netlink:
        with controlling(file.interface):
            doors = Doors(netlink, ProcSysctls(), LibNft, find_resolver)
            world = World(doors, UserspaceEngines(), _resolve)
            controller = Controller(file, config, world, Journal.read(file.interface))
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, controller.stop)
            loop.add_signal_handler(signal.SIGHUP, controller.reload)
            await controller.run()


async def _resolve(endpoint: Endpoint) -> tuple[TransportAddress, ...]:
    return await resolve(endpoint.host, endpoint.port, endpoint.zone)


def _load(file: ConfigFile) -> TunnelConfig:
    loaded = load(file.path)
    for warning in loaded.warnings:
        _log.warning("%s", warning)
    return loaded.config


def _state_directory() -> Path | None:
    directory = Path(os.environ.get("STATE_DIRECTORY") or STATE)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("%s cannot be made (%s): a clock set back may delay handshakes", directory, error.strerror)
        return None
    return directory


def describe(file: ConfigFile, *, as_json: bool) -> str:
    """What :func:`run` would do, without touching or asking the host. Raises WarrenError when the config is
    unusable.
    """
    config = _load(file)
    versions = default_versions(config)
    mark = config.fwmark or FIRST_TABLE
    default_route = DefaultRoute(mark, tuple((version, 32765) for version in sorted(versions))) if versions else None
    choices = Choices(config.mtu or tunnel_mtu([], None), number_of(config.table), default_route)
    steps = [
        f"{item} (or what the way to the peers allows)" if isinstance(item, Mtu) and config.mtu is None else str(item)
        for item in desired(config, file.interface, choices)
    ]
    peers = [
        {
            "public_key": peer.public_key.base64,
            "endpoint": None if peer.endpoint is None else str(peer.endpoint),
            "allowed_ips": [str(network) for network in peer.allowed_ips],
        }
        for peer in config.peers
    ]
    if as_json:
        return json.dumps({"interface": file.interface, "config": str(file.path), "peers": peers, "changes": steps})
    lines = [f"{file.path} is well-formed. It would make interface {file.interface} with"]
    lines += [f"  peer {peer['public_key']} at {peer['endpoint'] or 'wherever it calls from'}" for peer in peers]
    lines += [f"  {step}" for step in steps]
    return "\n".join(lines)
