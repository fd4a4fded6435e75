"""``warren tunnel`` on lab hosts: configs for two ends, the running command, and what it leaves in a host."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from warren.identity.keys import PrivateKey
from warren.lab import Host, Process

PATIENCE_S = 40.0
INTERFACE = "home"


def private_key(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(name.encode()).digest())


def section(title: str, values: Mapping[str, str]) -> str:
    return "\n".join([f"[{title}]", *(f"{key} = {value}" for key, value in values.items()), ""])


def config(name: str, values: Mapping[str, str], *peers: tuple[str, Mapping[str, str]]) -> str:
    """The config of the end called ``name``; a peer is (its name, more keys)."""
    text = section("Interface", {"PrivateKey": private_key(name).base64, **values})
    for peer, more in peers:
        text += section("Peer", {"PublicKey": private_key(peer).public_key().base64, **more})
    return text


@dataclass
class TunnelCommand:
    """One ``warren tunnel`` on ``host``, its config and its environment."""

    host: Host
    path: Path
    process: Process | None = None

    @classmethod
    def on(cls, host: Host, text: str, interface: str = INTERFACE) -> TunnelCommand:
        command = cls(host, host.directory / f"{interface}.conf")
        command.write(text)
        return command

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self.path.chmod(0o600)

    @property
    def interface(self) -> str:
        return self.path.stem

    @property
    def arguments(self) -> list[str]:
        return [sys.executable, "-m", "warren", "tunnel", str(self.path)]

    @property
    def environment(self) -> dict[str, str]:
        return {"STATE_DIRECTORY": str(self.host.directory / "state")}

    def start(self, env: Mapping[str, str] | None = None, *, until: str = "is up:|took over") -> None:
        """Start it and wait until its log says so."""
        self.process = self.host.start(self.arguments, name="tunnel", env={**self.environment, **(env or {})})
        self.wait_said(until)

    def run(self, *more: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run it to its end; the exit status, and what it wrote."""
        done = self.host.run([*prefix, *self.arguments, *more], check=False, env=self.environment, timeout=60)
        return done.returncode, done.stdout + done.stderr

    @property
    def running(self) -> Process:
        assert self.process is not None
        return self.process

    def said(self, pattern: str) -> int:
        """How often a pattern is in the log."""
        return len(re.findall(pattern, self.running.output()))

    def wait_said(self, pattern: str, times: int = 1) -> None:
        process = self.running
        self.host.wait_for(lambda: self.said(pattern) >= times or process.returncode is not None, PATIENCE_S)
        assert self.said(pattern) >= times, process.output()

    def stop(self, signal: Signals = Signals.SIGTERM) -> int:
        """Signal the controller alone, as a terminal or a service manager does, and wait for its end."""
        self.running.signal(signal)
        return self.running.wait(PATIENCE_S)

    def kill(self) -> None:
        """SIGKILL to the controller alone; the data plane lives on."""
        self.running.signal(Signals.SIGKILL)
        self.running.wait(PATIENCE_S)

    def data_plane_pid(self) -> int:
        found = self.host.run(["pgrep", "-f", f"warren.engine.userspace {self.interface} "]).stdout.split()
        here = self.host.netns_path.stat().st_ino
        (pid,) = [int(pid) for pid in found if Path(f"/proc/{pid}/ns/net").stat().st_ino == here]
        return pid

    def ping(self, address: str, *, count: int = 1, interval_s: float = 0.1, wait_s: int = 15) -> bool:
        words = ["ping", "-nq", "-i", str(interval_s), "-c", str(count), "-W", str(wait_s), address]
        return self.host.run(words, check=False, timeout=60).returncode == 0


def traces(host: Host) -> dict[str, str]:
    """Everything a tunnel could leave behind in a host, as text that is equal when nothing is left."""
    commands = {
        "links": "ip -br link",
        "addresses": "ip -br address",
        "rules": "ip rule; ip -6 rule",
        "routes": "ip route show table all; ip -6 route show table all | grep -v multicast; true",
        "nft": "nft list ruleset",
        "sockets": "ls -A /run/wireguard",
        "settings": "cat /proc/sys/net/ipv4/conf/all/src_valid_mark",
    }
    return {name: host.run(["sh", "-c", command]).stdout for name, command in commands.items()}
