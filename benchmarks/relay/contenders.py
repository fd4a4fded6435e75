"""The relays that are compared, each on the same host and port, one at a time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path

from benchmarks.relay.clients import PASSWORD, PORT, USER
from warren.lab import Host, Process


class Relay(ABC):
    name: str

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot take part; None when it can."""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def start(self, host: Host) -> Process:
        """Returns when it serves. Raises OperationFailed when it does not."""


class Warren(Relay):
    name = "warren"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        question = "import platform, warren; print(warren.__version__, 'on Python', platform.python_version())"
        return (
            "Warren "
            + subprocess.run(
                [sys.executable, "-c", question], capture_output=True, text=True, check=True
            ).stdout.strip()
        )

    def start(self, host: Host) -> Process:
        config = host.directory / "relay.toml"
        config.write_text(
            f'udp_port = {PORT}\n[users]\n{USER} = "{PASSWORD}"\n[peers]\nallow = ["10.9.0.0/16"]\n'
            "[limits]\nallocations_per_user = 5000\nallocations_per_address = 5000\nallocations = 5000\n"
        )
        command = [sys.executable, "-m", "warren", "relay", "run", "--config", str(config)]
        process = host.start([*command, "--state", str(host.directory)], name="warren")
        host.wait_for(lambda: "relaying at" in process.log.read_text())
        return process


class Coturn(Relay):
    """With its defaults: as many relay threads as there are cores."""

    name = "coturn"

    def missing(self) -> str | None:
        return None if shutil.which("turnserver") else "there is no program turnserver"

    def version(self) -> str:
        output = subprocess.run(["turnserver", "--version"], capture_output=True, text=True, check=False).stdout
        return f"coturn {output.split()[-1] if output.split() else '(unknown version)'}"

    def start(self, host: Host) -> Process:
        log = Path(host.directory, "coturn.log")
        command = ["turnserver", "-n", "--lt-cred-mech", "-u", f"{USER}:{PASSWORD}", "-r", "bench", "--no-cli"]
        command += ["--no-tls", "--no-dtls", "-p", str(PORT), "--simple-log", "-l", str(log), "--no-stdout-log"]
        process = host.start([*command, "--pidfile", str(host.directory / "coturn.pid")], name="coturn")
        host.wait_for(["sh", "-c", f"ss -lun | grep -q ':{PORT} '"])
        return process


def all_relays() -> list[Relay]:
    return [Warren(), Coturn()]
