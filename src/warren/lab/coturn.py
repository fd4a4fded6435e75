"""coturn on a lab host: a relay that others wrote, and the tool by which NATs are judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from warren.errors import OperationFailed
from warren.lab.host import Host
from warren.lab.program import Process

PORT: Final = 3478
_REALM: Final = "warren"
_PATIENCE_S: Final = 20.0


def start_coturn(
    host: Host,
    addresses: Sequence[str],
    *,
    secret: str | None = None,
    port: int = PORT,
    ports: tuple[int, int] = (49_152, 65_535),
    options: Sequence[str] = (),
) -> Process:
    """Start ``turnserver`` on ``addresses`` of ``host``, UDP and TCP, and wait until it answers.

    With ``secret`` it is a TURN server for time-limited names (``use-auth-secret``) whose relayed addresses have one of
    ``ports``; without one it answers STUN alone. With two addresses of a family it serves RFC 5780. Raises
    OperationFailed when it is not installed (Debian package coturn) or does not come up.
    """
    role = ["--stun-only"] if secret is None else ["--use-auth-secret", f"--static-auth-secret={secret}"]
    command = ["turnserver", "-n", *role, f"--realm={_REALM}", f"--listening-port={port}", *options]
    command += [f"--listening-ip={address}" for address in addresses]
    command += [f"--relay-ip={address}" for address in addresses]
    command += [f"--min-port={ports[0]}", f"--max-port={ports[1]}"]
    command += ["--no-tls", "--no-dtls", "--no-cli", "--log-file=stdout", "--simple-log", "--verbose"]
    command += [f"--pidfile={host.directory / 'turnserver.pid'}", f"--userdb={host.directory / 'turndb'}"]
    process = host.start(command, name="coturn")

    def listens() -> bool:
        found = host.run(["ss", "-Hlun", f"sport = :{port}"], check=False).stdout
        return process.returncode is not None or all(f"{_text(address)}:{port}" in found for address in addresses)

    host.wait_for(listens, _PATIENCE_S)
    if process.returncode is not None:
        raise OperationFailed(
            f"host {host.name}: coturn ended: {(process.output().strip() or 'it said nothing').splitlines()[-1]}"
        )
    return process


def _text(address: str) -> str:
    return f"[{address}]" if ":" in address else address
