"""What is compared: each contender makes a tunnel over a link between two lab hosts, with its defaults and one MTU.

Host ``a`` has the inner address 10.66.0.1 and makes the first contact, ``b`` has 10.66.0.2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from warren.errors import OperationFailed
from warren.identity.keys import PrivateKey, PublicKey
from warren.lab import Host, Process

OUTER = ("10.9.0.1", "10.9.0.2")
INNER = ("10.66.0.1", "10.66.0.2")
# Of WireGuard's choosing: an inner packet of this size still fits an Ethernet frame when the outer header is IPv6.
INNER_MTU = 1420
PORT = 51820
START_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two lab hosts with a plain link between their OUTER addresses, and a directory for config files of their own."""

    a: Host
    b: Host
    directory: Path

    @property
    def ends(self) -> tuple[Host, Host]:
        return self.a, self.b


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A contender ready for use: ``target`` is b's address as ``client`` (host a) reaches it through the tunnel."""

    client: Host
    target: str
    processes: tuple[Process, ...] = ()

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in self.processes)


class Contender(ABC):
    """One line of the comparison. ``name`` is its name in tables and files."""

    has_peers = True

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot take part on this machine, in a few words; None when it can."""

    @abstractmethod
    def version(self) -> str:
        """What exactly takes part, in one line. Only asked when nothing is missing."""

    @abstractmethod
    def open(self, pair: Pair, peers: int) -> Tunnel:
        """Start both ends, each knowing ``peers`` peers of which one exists.

        Raises OperationFailed when one does not start.
        """


class PlainVeth(Contender):
    """No tunnel at all: what the machine can do."""

    has_peers = False

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return f"Linux {os.uname().release}"

    def open(self, pair: Pair, _peers: int) -> Tunnel:
        return Tunnel(pair.a, OUTER[1])


class WireGuard(Contender):
    """Anything that serves a WireGuard interface when run as ``command INTERFACE``; the stock ``wg`` sets it up."""

    interface = "wg0"

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        super().__init__(name)
        self._command = tuple(command)
        self._environment = dict(environment or {})

    def missing(self) -> str | None:
        for program in (self._command[0], "wg"):
            if shutil.which(program) is None:
                return f"there is no program {program}"
        return None

    def version(self) -> str:
        return _first_line([self._command[0], "--version"])

    def open(self, pair: Pair, peers: int) -> Tunnel:
        keys = [PrivateKey(os.urandom(32)) for _ in pair.ends]
        strangers = [PrivateKey(os.urandom(32)).public_key() for _ in range(peers - 1)]
        processes = []
        for end, host in enumerate(pair.ends):
            name = f"{self.name}-{end}"
            process = host.start([*self._command, self.interface], name=name, env=self._environment)
            _wait(host, ["wg", "show", self.interface], process)
            config = pair.directory / f"{name}.conf"
            config.touch(mode=0o600)
            config.write_text(_wireguard_config(keys, end, strangers))
            host.run(["wg", "setconf", self.interface, str(config)])
            host.run(["ip", "address", "add", f"{INNER[end]}/24", "dev", self.interface])
            host.run(["ip", "link", "set", self.interface, "mtu", str(INNER_MTU), "up"])
            processes.append(process)
        return Tunnel(pair.a, INNER[1], tuple(processes))


class Warren(WireGuard):
    """Our data plane as a process of its own, compiled or in pure Python."""

    def __init__(self, name: str, *, pure: bool) -> None:
        # The variable must be absent, not empty, where the compiled functions are wanted: `env -u` sees to that.
        switch = ["WARREN_PURE=1"] if pure else ["-u", "WARREN_PURE"]
        self._python = ("env", *switch, sys.executable)
        self._pure = pure
        super().__init__(name, [*self._python, "-m", "warren.engine.userspace", "--log-level", "warning"])

    def missing(self) -> str | None:
        question = "from warren.proto.datapath import COMPILED; print(COMPILED)"
        answer = subprocess.run([*self._python, "-c", question], capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            return (answer.stderr.strip() or "its data path cannot be imported").splitlines()[-1]
        if answer.stdout.strip() != str(not self._pure):
            return (
                "the speedups are not compiled here"
                if not self._pure
                else "WARREN_PURE=1 did not choose the pure functions"
            )
        return super().missing()

    def version(self) -> str:
        question = "import platform, warren; print(warren.__version__, 'on Python', platform.python_version())"
        kind = "pure Python" if self._pure else "with compiled speedups"
        return f"Warren {_first_line([*self._python, '-c', question])}, {kind}"


class Nebula(Contender):
    """Nebula as its example config has it; its MTU, 1300 by default, is raised to that of the others."""

    interface = "nebula1"

    def missing(self) -> str | None:
        absent = [program for program in ("nebula", "nebula-cert") if shutil.which(program) is None]
        return f"there is no program {absent[0]}" if absent else None

    def version(self) -> str:
        return "nebula " + _first_line(["nebula", "-version"]).removeprefix("Version: ")

    def open(self, pair: Pair, peers: int) -> Tunnel:
        self._certify(pair.directory)
        processes = []
        for end, host in enumerate(pair.ends):
            config = pair.directory / f"{self.name}-{end}.yaml"
            config.write_text(self._config(pair.directory, end, peers))
            process = host.start(["nebula", "-config", str(config)], name=f"{self.name}-{end}")
            _wait(host, ["ip", "-4", "route", "get", INNER[1 - end], "from", INNER[end]], process)
            processes.append(process)
        return Tunnel(pair.a, INNER[1], tuple(processes))

    def _certify(self, directory: Path) -> None:
        """A throw-away authority and one certificate per end."""
        _nebula_cert(directory, "ca", "-name", "bench", "-out-crt", "ca.crt", "-out-key", "ca.key")
        for end, address in enumerate(INNER):
            files = ["-ca-crt", "ca.crt", "-ca-key", "ca.key", "-out-crt", f"{end}.crt", "-out-key", f"{end}.key"]
            _nebula_cert(directory, "sign", "-name", f"end{end}", "-ip", f"{address}/16", *files)

    def _config(self, directory: Path, end: int, peers: int) -> str:
        # Nebula is not told its peers, it meets them: entries of the static host map come nearest to idle peers.
        hosts = [f'  "{INNER[1 - end]}": ["{OUTER[1 - end]}:{PORT}"]']
        hosts += [f'  "10.66.{1 + index // 250}.{1 + index % 250}": ["192.0.2.1:{PORT}"]' for index in range(peers - 1)]
        return "\n".join(
            [
                f"pki: {{ca: {directory}/ca.crt, cert: {directory}/{end}.crt, key: {directory}/{end}.key}}",
                "static_host_map:",
                *hosts,
                "lighthouse: {am_lighthouse: false, hosts: []}",
                f"listen: {{host: 0.0.0.0, port: {PORT}}}",
                f"tun: {{dev: {self.interface}, mtu: {INNER_MTU}}}",
                "logging: {level: warning}",
                "firewall:",
                "  outbound: [{port: any, proto: any, host: any}]",
                "  inbound: [{port: any, proto: any, host: any}]",
                "",
            ]
        )


def standard_contenders() -> list[Contender]:
    """Everyone who needs no naming, in the order of the tables."""
    return [
        PlainVeth("veth"),
        WireGuard("wireguard-go", ["wireguard-go", "-f"], {"LOG_LEVEL": "error"}),
        Nebula("nebula"),
        Warren("warren", pure=False),
        Warren("warren-pure", pure=True),
    ]


def newer_wireguard_go(name: str, path: str) -> Contender:
    """Another build of wireguard-go, named on the command line."""
    return WireGuard(name, [path, "-f"], {"LOG_LEVEL": "error"})


def _wireguard_config(keys: Sequence[PrivateKey], end: int, strangers: Sequence[PublicKey]) -> str:
    """A file for ``wg setconf``. The strangers have an address each and no endpoint."""
    lines = ["[Interface]", f"PrivateKey = {keys[end].base64}", f"ListenPort = {PORT}"]
    lines += ["[Peer]", f"PublicKey = {keys[1 - end].public_key()}", f"AllowedIPs = {INNER[1 - end]}/32"]
    lines += [f"Endpoint = {OUTER[1 - end]}:{PORT}"]
    for index, stranger in enumerate(strangers):
        lines += ["[Peer]", f"PublicKey = {stranger}", f"AllowedIPs = 10.66.{1 + index // 250}.{1 + index % 250}/32"]
    return "\n".join([*lines, ""])


def _wait(host: Host, probe: Sequence[str], process: Process) -> None:
    """Wait until ``probe`` succeeds on the host. Raises OperationFailed, with the last words of one that ended."""

    def ready() -> bool:
        if process.returncode is not None:
            said = process.output().strip().splitlines() or ["without a word"]
            raise OperationFailed(f"{probe[0]}: the tunnel process ended with status {process.returncode}: {said[-1]}")
        return host.run(probe, check=False).returncode == 0

    host.wait_for(ready, START_LIMIT_S)


def _nebula_cert(directory: Path, *arguments: str) -> None:
    done = subprocess.run(["nebula-cert", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OperationFailed(f"nebula-cert {arguments[0]}: {(done.stderr or done.stdout).strip()}")


def _first_line(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]
