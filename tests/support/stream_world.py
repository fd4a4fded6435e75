"""An Internet on which streams are carried: gateways, a hidden rootless member with services, and an outsider.

========== ===================================================================================================
server     public: the coordinator and its relay
gw1, gw2   public members that may publish services of others
hidden     behind a NAT that lets in answers only; its agent has no rights, and so the rootless engine
visitor    public, IPv4 only, no member of anything
========== ===================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from warren.errors import OperationFailed
from warren.lab import Host, Impairment, Lab
from warren.lab.network import Network, whole_status
from warren.lab.site import Internet

PATIENCE_S: Final = 40.0
GATEWAY: Final = '[gateway]\nenabled = true\ndomain = "{domain}"\n'


class StreamWorld:
    """Hosts are made at once, and join when :meth:`start` is called; ``network`` is called home."""

    def __init__(
        self,
        lab: Lab,
        *,
        gateways: Sequence[str] = ("gw1",),
        members: Sequence[str] = (),
        home: Impairment | None = None,
    ) -> None:
        """``home``: what the uplink of the hidden member's site does to packets; it can be changed later."""
        self.lab = lab
        self.internet = Internet(lab)
        self.server = self.internet.server("server")
        self.gateways = [self.internet.server(name) for name in gateways]
        self.members = [self.internet.server(name) for name in members]
        self.hidden = self.internet.site("home", "port-restricted", impairment=home).host("hidden")
        self.visitor = self.internet.server("visitor", families="4")
        self.network = Network(self.server, "home", url=f"https://{self.internet.address('server')}:8443")
        self.agent_toml = GATEWAY
        """Of gateways."""

    def start(self) -> None:
        """Coordinator, gateways, members, the hidden one; returns when all know each other."""
        self.network.start()
        joining = [*self.gateways, *self.members, self.hidden]
        for host in self.gateways:
            configure(host, self.agent_toml.format(domain=f"{host.name}.example.com"))
        ticket = self.network.ticket("--uses", str(len(joining)))
        for host in joining:
            self.network.join(host, ticket=ticket, wait=False, rights=host is not self.hidden)
        for host in joining:
            self.network.wait_up(host)
        for host in joining:
            host.wait_for(partial(self.network.knows, host, [one for one in joining if one is not host]), PATIENCE_S)

    def restart(self, host: Host) -> None:
        """Start the agent of ``host`` again."""
        self.network.up(host, rights=host is not self.hidden)

    def address(self, host: Host) -> str:
        """Where the Internet reaches a public host, by IPv4."""
        return self.internet.address(host.name)

    def service(self, name: str, *options: str) -> None:
        """``warren service add``."""
        self.network.warren(self.server, "service", "add", "home", name, "--wait", "0", *options)

    def connector(self, name: str, *options: str) -> None:
        """``warren connector add``."""
        self.network.warren(self.server, "connector", "add", "home", name, "--wait", "0", *options)

    def task(self, host: Host, name: str) -> dict[str, Any]:
        """What ``host`` says of its task with that name; empty: it has none."""
        for task in self.network.status(host)["tasks"]:
            if task["name"] == name:
                return dict(task)
        return {}

    def wait_done(self, host: Host, name: str) -> None:
        """Until the task is done; its reason is in the error otherwise."""
        wait(host, lambda: self.task(host, name).get("state") == "done", lambda: f"{name}: {self.task(host, name)}")


def configure(host: Host, text: str) -> None:
    """Write ``agent.toml`` of that host."""
    state = host.directory / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    (state / "agent.toml").write_text(text)


def wait(host: Host, condition: Callable[[], object], what: Callable[[], str]) -> None:
    try:
        host.wait_for(condition, PATIENCE_S)
    except OperationFailed:
        raise OperationFailed(f"waited {PATIENCE_S:.0f} s on {host.name} in vain: {what()}") from None


def agent_status(host: Host) -> dict[str, Any]:
    """All that ``warren status`` knows."""
    return whole_status(host)


def processes(host: Host, pattern: str) -> list[str]:
    """The numbers of the processes of that host whose command line has ``pattern`` in it: of all of its namespaces, but
    with the host's files.
    """
    own = Path(f"/proc/{host.pid}/ns/mnt").stat().st_ino
    found = []
    for line in host.run(["ps", "-eo", "pid=,mntns=,args="]).stdout.splitlines():
        pid, mounts, arguments = line.split(None, 2)
        if mounts == str(own) and pattern in arguments and int(pid) != host.pid:
            found.append(pid)
    return found


def kill(host: Host, pattern: str) -> None:
    """``kill -9`` for those, which must be there."""
    numbers = processes(host, pattern)
    if not numbers:
        raise OperationFailed(f"nothing called {pattern} runs on {host.name}")
    host.run(["kill", "-9", *numbers])
