"""Tunnel ends on lab hosts, Warren's and wireguard-go's, behind one face: both are driven by the stock ``wg``."""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from warren.identity.keys import PresharedKey, PrivateKey
from warren.lab import Host, Process

PATIENCE_S = 40.0
INTERFACE = "wg0"
needs_wireguard_go = pytest.mark.skipif(
    shutil.which("wireguard-go") is None or shutil.which("wg") is None,
    reason="the Debian packages wireguard-go and wireguard-tools are not installed",
)


def private_key(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(name.encode()).digest())


PSK = PresharedKey(hashlib.sha256(b"psk").digest())


@dataclass
class TunnelEnd:
    """One running data plane on ``host``. ``inner`` are its addresses in the tunnel."""

    host: Host
    process: Process
    inner: tuple[str, ...]
    port: int = 51820
    key: PrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = private_key(self.host.name)

    def wg(self, *words: str) -> str:
        return self.host.run(["wg", *words]).stdout

    def set(self, *words: str) -> None:
        self.wg("set", INTERFACE, *words)

    def peer(self, other: TunnelEnd, *words: str, psk: bool = False) -> None:
        """Make ``other`` a peer with its inner addresses, and whatever else ``words`` say."""
        allowed = ",".join(address.split("/")[0] for address in other.inner)
        if psk:
            words = (*words, "preshared-key", str(secret_file(self.host, "psk", PSK.base64)))
        self.set("peer", other.key.public_key().base64, "allowed-ips", allowed, *words)

    def dump(self) -> list[list[str]]:
        """The peers as ``wg show dump`` prints them: key, psk, endpoint, allowed IPs, handshake, rx, tx, keepalive."""
        return [line.split("\t") for line in self.wg("show", INTERFACE, "dump").splitlines()[1:]]

    def handshake_time(self) -> int:
        return int(self.dump()[0][4])

    def endpoint(self) -> str:
        return self.dump()[0][2]

    def statistics(self) -> dict[str, int]:
        """The counters of a Warren data plane."""
        return self.host.call(_statistics, INTERFACE)

    def ping(self, address: str, *, count: int = 1, wait_s: int = 15, size: int = 56) -> bool:
        done = self.host.run(
            ["ping", "-n", "-q", "-i", "0.1", "-c", str(count), "-W", str(wait_s), "-s", str(size), address],
            check=False,
            timeout=60,
        )
        return done.returncode == 0


def readdress(host: Host, old: str, new: str) -> None:
    """Replace an address of eth0, as a new DHCP lease would."""
    host.run(["ip", "address", "add", f"{new}/24", "dev", "eth0"])
    # Without it the kernel deletes a secondary address along with its primary.
    host.run(["sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1"])
    host.run(["ip", "address", "del", f"{old}/24", "dev", "eth0"])


def secret_file(host: Host, name: str, text: str) -> Path:
    path = host.directory / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def _statistics(interface: str) -> dict[str, int]:
    import asyncio

    from warren.engine.userspace.client import UserspaceEngine

    async def ask() -> dict[str, int]:
        return dict(await (await UserspaceEngine.attach(interface)).statistics())

    return asyncio.run(ask())


def warren_end(
    host: Host, *inner: str, port: int = 51820, mtu: int = 1420, clock_rate: float = 1.0, state: Path | None = None
) -> TunnelEnd:
    """Start Warren's data plane on ``host``, addressed and up."""
    command = [
        sys.executable,
        "-m",
        "warren.engine.userspace",
        INTERFACE,
        "--mtu",
        str(mtu),
        "--clock-rate",
        str(clock_rate),
    ]
    if state is not None:
        command += ["--state", str(state)]
    return _brought_up(host, host.start(command, name="warren"), inner, port, mtu)


def wireguard_go_end(host: Host, *inner: str, port: int = 51820, mtu: int = 1420) -> TunnelEnd:
    """Start Debian's wireguard-go on ``host``, addressed and up."""
    command = ["env", "WG_PROCESS_FOREGROUND=1", "LOG_LEVEL=verbose", "wireguard-go", INTERFACE]
    return _brought_up(host, host.start(command, name="wireguard-go"), inner, port, mtu)


def _brought_up(host: Host, process: Process, inner: tuple[str, ...], port: int, mtu: int) -> TunnelEnd:
    host.wait_for(["wg", "show", INTERFACE], timeout=PATIENCE_S)  # its socket may still be that of one killed before
    end = TunnelEnd(host, process, inner, port)
    end.set("private-key", str(secret_file(host, "private", end.key.base64)), "listen-port", str(port))
    for address in inner:
        host.run(["ip", "address", "add", address, "dev", INTERFACE, *(["nodad"] if ":" in address else [])])
    host.run(["ip", "link", "set", INTERFACE, "up", "mtu", str(mtu)])
    return end
