"""An authority for certificates (RFC 8555) of tests: Pebble, with the names that it finds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from tests.support.certificates import make_certificate
from warren.lab import Host

MISSING: Final = [program for program in ("caddy", "pebble", "pebble-challtestsrv") if shutil.which(program) is None]
ENVIRONMENT: Final = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""In front of a command: it ends with the thread that started it, however that ends. On a lab host the lab sees to it,
whose threads end at once.
"""


def names_command(dns: str, management: str, *, everything: str = "") -> list[str]:
    """A name server at ``dns`` that is told its names at ``management``; all others are at ``everything``, if given."""
    off = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "", "-defaultIPv4", everything]
    return ["pebble-challtestsrv", *off, "-dns01", dns, "-management", management]


def pebble_command(
    directory: Path,
    address: str,
    *,
    api: int,
    management: int,
    dns: str,
    http: int = 80,
    https: int = 443,
    valid_s: int | None = None,
) -> tuple[list[str], Path]:
    """Pebble at ``address``, which looks at web servers at the ports ``http`` and ``https``; and the certificate that
    its own API has. ``valid_s``: of what it gives; None: some years.
    """
    names = ("localhost", ip_address(address))
    certificate, key = make_certificate("pebble", names=names).write(directory, "api")
    settings = {"httpPort": http, "tlsPort": https, "certificate": str(certificate), "privateKey": str(key)}
    settings |= {"listenAddress": f"{address}:{api}", "managementListenAddress": f"{address}:{management}"}
    if valid_s is not None:
        settings["certificateValidityPeriod"] = valid_s
    config = directory / "pebble.json"
    config.write_text(json.dumps({"pebble": settings}))
    return ["pebble", "-config", str(config), "-dnsserver", dns, "-strict"], certificate


class Authority:
    """On a lab host of its own: Pebble, and the name server that it asks and that others may ask too."""

    def __init__(self, host: Host, address: str) -> None:
        self.host = host
        self.address = address
        self.directory = f"https://{address}:14000/dir"
        command, self.certificate = pebble_command(
            host.directory, address, api=14000, management=15000, dns=f"{address}:53"
        )
        self.processes = [
            host.start(names_command(f"{address}:53", f"{address}:8055"), name="names"),
            host.start(command, name="pebble", env=ENVIRONMENT),
        ]

    @property
    def log(self) -> str:
        return self.processes[1].output()

    def root(self) -> Path:
        """The file with the root of the certificates that it gives, when it runs."""
        for port in (14000, 15000, 8055):
            self.host.wait_for(["sh", "-c", f"ss -Hltn 'sport = :{port}' | grep -q ."])
        text = self.host.run(["curl", "-sSk", f"https://{self.address}:15000/roots/0"]).stdout
        path = self.host.directory / "root.pem"
        path.write_text(text)
        return path

    def point(self, name: str, *addresses: str) -> None:
        """Have ``name`` lead to ``addresses``, in this order."""
        for what, body in (("clear-a", {"host": f"{name}."}), ("add-a", {"host": name, "addresses": addresses})):
            self.host.run(["curl", "-sS", "--data", json.dumps(body), f"http://{self.address}:8055/{what}"])

    def use_names(self, hosts: Sequence[Host]) -> None:
        """Have these hosts ask for names here."""
        for host in hosts:
            host.run(["sh", "-c", f"echo nameserver {self.address} > /etc/resolv.conf"])
