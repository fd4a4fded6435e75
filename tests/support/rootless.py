"""An ordinary user on a lab host who takes part in a network with the rootless engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.support.labs import IS_ROOT
from warren.errors import OperationFailed
from warren.lab import Host, Process
from warren.lab.agent_socket import agent_status
from warren.lab.network import PATIENCE_S, Network, last_line, warren_command

USER = "daemon"
"""Is on every machine, has no rights and no home directory."""


class OrdinaryUser:
    """Runs ``warren`` on ``host`` with directories where the XDG specification has them.

    Without root on this machine a lab has one user only: then it is that one, who has to ask for the rootless engine.
    """

    def __init__(self, host: Host, network: Network) -> None:
        self.host = host
        self.network = network
        self.name = USER if IS_ROOT else None
        self.home = Path(f"/run/{USER}")
        self.run_directory = self.home / "run" / "warren"
        self.state = self.home / "state" / "warren"
        self.env: Mapping[str, str] = {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "XDG_STATE_HOME": str(self.home / "state"),
        }
        self._options = [] if IS_ROOT else ["--engine", "rootless"]
        self.command = warren_command()
        self.agent: Process | None = None
        host.run(["install", "-d", "-m", "700", *self._owner, self.home, self.home / "run"])
        if IS_ROOT:
            self._allow_tun()
        else:
            self.env = {**self.env, "WARREN_RUN": str(self.run_directory), "WARREN_STATE": str(self.state)}

    @property
    def _owner(self) -> list[str]:
        return ["-o", USER, "-g", USER] if IS_ROOT else []

    def _allow_tun(self) -> None:
        """As a stock system has it."""
        node = self.host.directory / "tun"
        self.host.run(["mknod", "-m", "666", node, "c", "10", "200"])
        self.host.run(["mount", "--bind", node, "/dev/net/tun"])

    # The agent

    def up(self, *arguments: str, wait: bool = True) -> Process:
        """``warren up`` in the background."""
        command = [*warren_command(), "up", *arguments, "--name", self.host.name, *self._options]
        agent = self.agent = self.host.start(command, user=self.name, env=self.env, name="agent")
        if wait:
            self.host.wait_for(lambda: agent.returncode is not None or self.is_up(), PATIENCE_S)
            assert agent.returncode is None, last_line(agent)
        return agent

    def join(self) -> None:
        self.up(self.network.ticket())

    def is_up(self) -> bool:
        try:
            return any(one["state"] == "up" for one in self.status()["networks"])
        except OperationFailed:
            return False

    def status(self) -> dict[str, Any]:
        """What the agent says of itself."""
        return agent_status(self.host.pid, f"{self.run_directory}/agent.sock", within_s=PATIENCE_S)

    @property
    def membership(self) -> dict[str, Any]:
        return dict(self.status()["networks"][0])

    def address(self, version: int = 6) -> str:
        """In the overlay."""
        texts = [str(text).partition("/")[0] for text in self.membership["addresses"]]
        return next(text for text in texts if (":" in text) == (version == 6))

    def failed_tasks(self) -> dict[str, str]:
        return {task["name"]: task["reason"] for task in self.membership["tasks"] if task["state"] == "failed"}

    # Programs

    def warren(self, *arguments: str, check: bool = True, timeout: float = PATIENCE_S) -> CompletedProcess[str]:
        return self.host.run(
            [*warren_command(), *arguments], user=self.name, env=self.env, check=check, timeout=timeout
        )

    def exec(self, *command: str, check: bool = True, timeout: float = PATIENCE_S) -> CompletedProcess[str]:
        """Run a program in the overlay."""
        return self.warren("exec", "--", *command, check=check, timeout=timeout)

    def start_exec(self, *command: str, name: str) -> Process:
        """In the background."""
        return self.host.start([*warren_command(), "exec", *command], user=self.name, env=self.env, name=name)

    # Its processes

    def pids(self, module: str) -> list[int]:
        """Of the processes of that module (``warren.engine.rootless``) on the host, whichever namespace they are in."""
        found = self.host.run(["pgrep", "-f", module], check=False).stdout.split()
        return [int(pid) for pid in found if self._is_here(int(pid))]

    def _is_here(self, pid: int) -> bool:
        """Other labs have the same paths: each host has a mount namespace of its own."""
        try:
            same = Path(f"/proc/{pid}/ns/mnt").stat().st_ino == Path(f"/proc/{self.host.pid}/ns/mnt").stat().st_ino
            return same and str(self.run_directory) in Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            return False

    def kill(self, pid: int) -> None:
        self.host.run(["kill", "-9", str(pid)])
