"""A lab host: network, mount and UTS namespaces in which programs and Python functions run."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TypeVar

from warren.errors import OperationFailed
from warren.lab.capture import Capture
from warren.lab.configure import apply_ip, apply_nft, checked_interface_name
from warren.lab.holder import Holder, end_holder, start_holder
from warren.lab.program import Command, Place, Process, describe, run_program, start_program
from warren.lab.remote import Call
from warren.linux import netns
from warren.linux.netns import NamespaceId

Result = TypeVar("Result")

RUN_TIMEOUT_S = 30.0
_FIRST_POLL_S, _SLOWEST_POLL_S = 0.005, 0.1
_PROBE_TIMEOUT_S = 10.0


class Host:
    """One machine of a lab. Made by :meth:`Lab.host`, ended by the lab.

    It shares the file system with the machine, except /run, /etc/resolv.conf and /sys, which are its own.
    """

    def __init__(self, name: str, *, artifacts: Path, scratch: Path) -> None:
        self.name = name
        self.artifacts = artifacts
        self.directory = scratch / name
        """The host's own directory for files such as configurations and keys; it ends with the lab."""
        self.directory.mkdir(exist_ok=True)
        self._holder: Holder = start_holder(name, scratch)
        self.place = Place(name, self._holder.pidfd)
        """Where its programs run; for the lab's own helpers."""
        self._routes: list[str] = []
        self._processes: list[Process] = []
        self._captures: list[Capture] = []
        self._calls: list[Call[Any]] = []

    def set_up(self) -> None:
        """What a kind of host configures in itself; the lab, which ends it should that fail, calls it once."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} pid {self.pid}>"

    @property
    def pid(self) -> int:
        """The process that holds the namespaces: for ``nsenter -t``, ``ip link … netns`` and the like."""
        return self._holder.pid

    @property
    def pidfd(self) -> int:
        """A pidfd of :attr:`pid`; the host owns it."""
        return self._holder.pidfd

    @property
    def netns_path(self) -> Path:
        return Path(f"/proc/{self.pid}/ns/net")

    @property
    def namespaces(self) -> frozenset[NamespaceId]:
        """The host's own namespaces, by which its processes are known."""
        return self._holder.namespaces

    # Programs

    def run(
        self,
        command: Command,
        *,
        input: str | None = None,  # noqa: A002  as subprocess.run has it
        timeout: float = RUN_TIMEOUT_S,
        check: bool = True,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CompletedProcess[str]:
        """Run a program to its end, with messages in English, ``input`` as its stdin (default: empty).

        ``user`` drops privileges to that account; ``env`` adds to the environment. Raises OperationFailed when the
        program is missing, takes more than ``timeout`` seconds or, with ``check``, ends with another status than 0.
        """
        return run_program(self.place, command, input=input, timeout=timeout, check=check, user=user, env=env)

    def start(
        self,
        command: Command,
        *,
        name: str | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a program in the background. Its output goes to HOST-NAME.log among the artifacts; see :meth:`run`.

        A second program of the same ``name`` (default: that of the program file) gets a number.
        """
        log = self.new_artifact(name or Path(command[0]).name, ".log")
        process = start_program(self.place, command, log, user=user, env=env)
        self._processes.append(process)
        return process

    def wait_for(self, condition: Callable[[], object] | Command, timeout: float = 30.0, *, what: str = "") -> None:
        """Wait until a function returns something true, or a command run on this host ends with status 0.

        Raises OperationFailed after ``timeout`` seconds, which names ``what`` was waited for: the condition by default.
        """
        deadline = time.monotonic() + timeout
        pause = _FIRST_POLL_S
        while not self._holds(condition):
            if time.monotonic() >= deadline:
                what = what or (_name_of(condition) if callable(condition) else describe(self.place, condition))
                raise OperationFailed(f"host {self.name}: waited {timeout:g} s in vain for {what}")
            time.sleep(pause)
            pause = min(2 * pause, _SLOWEST_POLL_S)

    def _holds(self, condition: Callable[[], object] | Command) -> bool:
        if callable(condition):
            return bool(condition())
        return self.run(condition, check=False, timeout=_PROBE_TIMEOUT_S).returncode == 0

    # Python

    def call(self, function: Callable[..., Result], *args: object, timeout: float = RUN_TIMEOUT_S) -> Result:
        """Run a function in a forked child inside the host; its result or exception must be picklable.

        What it changes in this program's memory is lost. Raises what the function raises, with the remote traceback
        as a note, and OperationFailed after ``timeout`` seconds.
        """
        return self.begin(function, *args).result(timeout)

    def begin(self, function: Callable[..., Result], *args: object) -> Call[Result]:
        """Start :meth:`call` in the background; ask the answer for its ``result(timeout)``."""
        call = Call(self.place, function, args)
        self._calls = [*(earlier for earlier in self._calls if not earlier.is_over), call]
        return call

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        """A socket of this host, to be used from here: it stays in the network namespace it was made in."""
        with netns.network_of(self.pidfd):
            return socket.socket(family, kind, protocol)

    # Network

    def ip(self, *commands: str) -> None:
        """Run ``ip`` subcommands (``"link set eth0 mtu 1400"``) in one process; stops at the first that fails."""
        apply_ip(self.pidfd, commands)

    def nft(self, ruleset: str) -> None:
        """Load an nftables ruleset as one transaction."""
        apply_nft(self.pidfd, ruleset)

    def route(
        self, destination: str, *, via: str | None = None, interface: str | None = None, metric: int | None = None
    ) -> None:
        """Add or replace a route; it also comes back after :meth:`Link.up`.

        ``destination`` is a prefix, or "default" for everything of the family of ``via`` (IPv4 without it). Routes to
        one destination stay beside each other if their ``metric`` differs; the smallest counts.
        """
        if destination == "default":
            destination = "::/0" if ":" in (via or "") else "0.0.0.0/0"
        line = f"route replace {destination}"
        line += f" via {via}" if via else ""
        line += f" dev {checked_interface_name(interface)}" if interface else ""
        line += f" metric {metric}" if metric is not None else ""
        self.ip(line)
        self._routes.append(line)

    def restore_routes(self) -> None:
        """Add again those routes of :meth:`route` that the kernel dropped with an interface and now takes back."""
        if self._routes:
            apply_ip(self.pidfd, self._routes, keep_going=True)

    def sysctl(self, name: str, value: int | str) -> None:
        """Set a network setting of this host by its dotted name. Raises OperationFailed when it does not exist."""
        path = Path("/proc/sys", *name.split("."))
        try:
            with netns.network_of(self.pidfd):
                path.write_text(str(value))
        except OSError as error:
            raise OperationFailed(f"host {self.name}: cannot set {name} to {value}: {error.strerror}") from error

    # Artifacts and end

    def capture(self, interface: str) -> Capture:
        """Start capturing the packets of an interface into HOST-INTERFACE.pcap among the artifacts.

        Raises OperationFailed when there is no such interface.
        """
        capture = Capture(self.place, interface, self.new_artifact(checked_interface_name(interface), ".pcap"))
        self._captures.append(capture)
        return capture

    def stop_captures(self) -> None:
        """Complete the files of all captures on this host."""
        for capture in self._captures:
            capture.stop()

    def new_artifact(self, stem: str, suffix: str) -> Path:
        """A new, empty file HOST-STEM.SUFFIX among the artifacts, with a number if that name is taken."""
        number = 1
        while True:
            path = self.artifacts / f"{self.name}-{stem}{f'-{number}' if number > 1 else ''}{suffix}"
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                number += 1
            else:
                return path

    def end(self) -> None:
        """Forget the host: its holder ends. The lab has ended the processes before."""
        for process in self._processes:
            process.kill()
        for call in self._calls:
            call.cancel()
        end_holder(self._holder)


def _name_of(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", repr(function))
