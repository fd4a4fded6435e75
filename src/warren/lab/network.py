"""A Warren network on lab hosts, run by the real program through its command line, as a person would.

network = Network(server, "home", url="https://10.9.0.1:8443")
network.start()
network.join(alice)
network.join(bob)
alice.run(["ping", "-c1", network.address(bob)])
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final
from urllib.parse import urlsplit

from warren.errors import OperationFailed
from warren.lab import coturn
from warren.lab.agent_socket import agent_status
from warren.lab.host import Host
from warren.lab.program import Process

PORT: Final = 8443
RELAY_PORT: Final = 3478
RELAY_TLS_PORT: Final = 443
PATIENCE_S: Final = 30.0
_WITHOUT_RIGHTS: Final = ("setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all", "--no-new-privs", "--")
"""No capabilities but the one without which root, unlike others, may not map himself into a user namespace
(user_namespaces(7)), and no way to get any others.
"""
_RUN: Final = "/run/warren"
_SOCKET: Final = "agent.sock"
_STATUS_WITHIN_S: Final = 10.0
_LISTENS: Final = "0A"
"""TCP_LISTEN (proc_pid_net(5))."""
_ACCESS: Final = re.compile(r"warren-access:[A-Za-z0-9_-]+")
_TICKET: Final = re.compile(r"warren-ticket:[A-Za-z0-9_-]+")


@dataclass
class Node:
    """An agent on a lab host."""

    host: Host
    name: str
    process: Process


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that the members of a network may use; ``ports`` are options of ``warren network relay add``."""

    name: str
    addresses: tuple[str, ...]
    secret: str = field(repr=False)
    ports: tuple[str, ...] = ()


class Network:
    """A coordinator on ``server`` and the nodes that joined its network ``name``. The lab ends all of it."""

    def __init__(self, server: Host, name: str = "home", *, url: str, prefix4: str | None = "10.77.0.0/16") -> None:
        self.server = server
        self.name = name
        self.url = url
        self.prefix4 = prefix4
        self.access = ""
        self.coordinator: Process | None = None
        self.nodes: dict[str, Node] = {}
        self.relays: list[Relay] = []

    # The coordinator

    def start(self, *options: str) -> None:
        """Start the coordinator and make the network. Raises OperationFailed when it does not come up."""
        self.run_coordinator(*options)
        self.create()

    def create(self) -> None:
        """Make the network, on a coordinator that runs and whose ``access`` is known."""
        self.warren(self.server, "network", "create", self.name, *(["--ipv4", self.prefix4] if self.prefix4 else []))

    def run_coordinator(self, *options: str, host: Host | None = None) -> Process:
        """Start a coordinator (again) and wait until it serves; the first start's access string is kept.

        Raises OperationFailed when it ends instead.
        """
        host = host or self.server
        state = ["--state", str(host.directory / "coordinator")]
        command = [*warren_command(), "coordinator", "run", *state, "--url", self.url, *options]
        process = host.start(command, name="coordinator")
        port = urlsplit(self.url).port or 443
        what = "the coordinator to serve"
        host.wait_for(lambda: process.returncode is not None or serves(host, port), PATIENCE_S, what=what)
        if process.returncode is not None:
            raise OperationFailed(f"the coordinator ended: {last_line(process)}")
        if not self.access:
            host.wait_for(lambda: _ACCESS.search(process.output()), PATIENCE_S, what="the access string")
            found = _ACCESS.search(process.output())
            self.access = found.group() if found else ""
        if host is self.server:
            self.coordinator = process
        return process

    # Relays

    def start_relay(
        self, host: Host, *, addresses: Sequence[str], name: str | None = None, options: Sequence[str] = ()
    ) -> Process:
        """Run ``warren relay run`` on ``host`` at ``addresses``, and have the network's members use it.

        It serves UDP and TCP on port 3478 and TLS on 443; ``options`` are lines of its configuration. Returns when the
        coordinator knows of it. Raises OperationFailed when it does not come up.
        """
        directory = host.directory / "relay"
        directory.mkdir(exist_ok=True)
        secret = secrets.token_hex(32)
        (directory / "secret").write_text(secret)
        lines = [f"listen = {json.dumps(list(addresses))}", f"secret_file = {json.dumps(str(directory / 'secret'))}"]
        lines += [f"tcp_port = {RELAY_PORT}", f"tls_port = {RELAY_TLS_PORT}", *options]
        config = directory / "relay.toml"
        config.write_text("\n".join([*lines, ""]))
        command = [*warren_command(), "relay", "run", "--config", str(config), "--state", str(directory / "state")]
        process = host.start(command, name="relay")
        what = "the relay to serve"
        host.wait_for(lambda: process.returncode is not None or serves(host, RELAY_TLS_PORT), PATIENCE_S, what=what)
        if process.returncode is not None:
            raise OperationFailed(f"the relay on {host.name} ended: {last_line(process)}")
        digest = host.call(_certificate_sha256, addresses[0], RELAY_TLS_PORT)
        ports = ["--tcp-port", str(RELAY_PORT), "--tls-port", str(RELAY_TLS_PORT), "--certificate-sha256", digest]
        self.add_relay(Relay(name or host.name, tuple(addresses), secret, tuple(ports)))
        return process

    def start_coturn(
        self, host: Host, *, addresses: Sequence[str], secret: str | None = None, name: str | None = None
    ) -> Process:
        """Run coturn on ``host`` in a relay's place, over UDP and TCP; as :meth:`start_relay`."""
        secret = secret or secrets.token_hex(32)
        process = coturn.start_coturn(host, addresses, secret=secret)
        self.add_relay(Relay(name or host.name, tuple(addresses), secret, ("--tcp-port", str(coturn.PORT))))
        return process

    def add_relay(self, relay: Relay) -> None:
        """Have the members use a relay that runs: ``warren network relay add``."""
        command = ["network", "relay", "add", self.name, relay.name, *relay.addresses, *relay.ports]
        self.warren(self.server, *command, "--secret-file", "-", input=f"{relay.secret}\n")
        self.relays.append(relay)

    def relay_pids(self, host: Host) -> list[int]:
        """The processes on ``host`` that serve TURN over UDP, whoever started them."""
        shown = host.run(["ss", "-Hlunp", f"sport = :{RELAY_PORT}"]).stdout
        return sorted({int(pid) for pid in re.findall(r"pid=(\d+)", shown)})

    # Nodes

    def ticket(self, *options: str) -> str:
        """A new invite's ticket; ``options`` are those of ``warren network invite``."""
        said = self.warren(self.server, "network", "invite", self.name, *options, "--json").stdout
        found = _TICKET.search(said)
        if found is None:
            raise OperationFailed(f"no ticket in what `warren network invite` said: {said[:200]}")
        return found.group()

    def join(
        self,
        host: Host,
        *options: str,
        ticket: str | None = None,
        wait: bool = True,
        env: Mapping[str, str] | None = None,
        rights: bool = True,
    ) -> Node:
        """Join ``host`` by a ticket and leave its agent running there, with ``env`` in its environment; ``options`` are
        those of ``warren up``. Without ``rights`` it has no more of them than an ordinary user.
        """
        node = self.up(host, ticket or self.ticket(), *options, wait=False, env=env, rights=rights)
        if wait:
            self.wait_up(host)
        return node

    def up(
        self,
        host: Host,
        *arguments: str,
        wait: bool = True,
        env: Mapping[str, str] | None = None,
        rights: bool = True,
    ) -> Node:
        """Start the agent of ``host``: ``warren up`` with a ticket, or without when it is a member already."""
        command = [*warren_command(), "up", *arguments, *_state(host), "--name", host.name]
        command = command if rights else [*_WITHOUT_RIGHTS, *command]
        node = Node(host, host.name, host.start(command, name="agent", env=env))
        self.nodes[host.name] = node
        if wait:
            self.wait_up(host)
        return node

    def wait_up(self, host: Host) -> None:
        """Returns when ``host`` is up in a network. Raises OperationFailed when its agent ends, or takes too long."""
        process = self.nodes[host.name].process
        what = "the agent to say that a network is up"
        host.wait_for(lambda: process.returncode is not None or self._is_up(host), PATIENCE_S, what=what)
        if process.returncode is not None:
            raise OperationFailed(f"the agent on {host.name} ended: {last_line(process)}")

    def _is_up(self, host: Host) -> bool:
        try:
            answer = whole_status(host)
        except OperationFailed:
            return False
        return any(one["state"] == "up" for one in answer["networks"])

    # Commands

    def warren(
        self,
        host: Host,
        *arguments: str,
        check: bool = True,
        timeout: float = PATIENCE_S,
        input: str | None = None,  # noqa: A002  as subprocess.run has it
    ) -> CompletedProcess[str]:
        """Run ``warren`` on ``host`` with the administrator's access and that host's agent."""
        env = {"WARREN_ACCESS": self.access, **environment(host)}
        return host.run([*warren_command(), *arguments], check=check, env=env, timeout=timeout, input=input)

    def status(self, host: Host) -> dict[str, Any]:
        """What the agent of ``host`` says of this network (proto/control/local.py). OperationFailed: nothing."""
        for membership in whole_status(host)["networks"]:
            if membership["network"] == self.name:
                return dict(membership)
        raise OperationFailed(f"{host.name} is not in the network {self.name}")

    def address(self, host: Host, version: int = 6) -> str:
        """The overlay address of ``host``, without a prefix length. Raises OperationFailed for none."""
        for address in self.status(host)["addresses"]:
            if (":" in address) == (version == 6):
                return str(address).partition("/")[0]
        raise OperationFailed(f"{host.name} has no IPv{version} address in {self.name}")

    def peer(self, host: Host, other: Host) -> dict[str, Any]:
        """What the agent of ``host`` says of ``other``; OperationFailed: nothing."""
        for peer in self.status(host)["peers"]:
            if peer["name"] == other.name:
                return dict(peer)
        raise OperationFailed(f"{host.name} does not know {other.name} in {self.name}")

    def fqdn(self, host: Host) -> str:
        return f"{host.name}.{self.name}.internal"

    def knows(self, host: Host, others: Sequence[Host]) -> bool:
        """Whether the agent of ``host`` has all ``others`` on its map, with a way to try."""
        peers = {peer["name"]: peer for peer in self.status(host)["peers"]}
        return all(other.name in peers and peers[other.name]["state"] != "unknown" for other in others)


def warren_command() -> list[str]:
    return [sys.executable, "-m", "warren"]


def environment(host: Host) -> dict[str, str]:
    """State of its own for each lab host: they share the machine's file system, except /run."""
    return {"WARREN_STATE": str(host.directory / "state"), "WARREN_RUN": _RUN}


def _state(host: Host) -> list[str]:
    return ["--state", str(host.directory / "state"), "--run", _RUN]


def whole_status(host: Host) -> dict[str, Any]:
    """All that the agent of ``host`` knows, as ``warren status --json`` prints it. OperationFailed: no answer."""
    return agent_status(host.pid, f"{_RUN}/{_SOCKET}", within_s=_STATUS_WITHIN_S)


def serves(host: Host, port: int = PORT) -> bool:
    """Whether something on ``host`` listens on that TCP port."""
    return any(
        fields[1].endswith(f":{port:04X}") and fields[3] == _LISTENS
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/{host.pid}/net/{table}").read_text().splitlines()[1:])
    )


def _certificate_sha256(address: str, port: int) -> str:
    """Of the certificate that a TLS server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is looked at in order to be pinned
    with (
        socket.create_connection((address, port), PATIENCE_S) as connection,
        context.wrap_socket(connection) as secured,
    ):
        return hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()


def last_line(process: Process) -> str:
    return (process.output().strip().splitlines() or ["it said nothing"])[-1]


def forget_state(host: Host) -> None:
    """Remove what the agent of ``host`` knows, as a new machine has it."""
    shutil.rmtree(Path(environment(host)["WARREN_STATE"]), ignore_errors=True)
