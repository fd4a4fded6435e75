"""Configuring a host's network with iproute2 and nft: many lines in one process in the host's network namespace."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

from warren.errors import OperationFailed, UsageError
from warren.linux import netns

_TIMEOUT_S = 20
_INTERFACE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # a subset of what Linux takes that needs no quoting anywhere


def checked_interface_name(name: str) -> str:
    """``name`` itself. Raises UsageError when it is no interface name of 1 to 15 plain characters."""
    if not _INTERFACE_NAME.fullmatch(name) or name in (".", ".."):
        raise UsageError(f"interface name {name!r}: use 1 to 15 letters, digits, '.', '_' or '-'")
    return name


def apply_ip(pidfd: int, commands: Iterable[str], *, keep_going: bool = False) -> None:
    """Run ``ip`` subcommands, such as ``link set lo up``, in order.

    Raises OperationFailed at the first that fails, unless ``keep_going`` (then those that fail are left out).
    """
    lines = list(commands)
    arguments = ["ip", *(["-force"] if keep_going else []), "-batch", "-"]
    done = _feed(pidfd, arguments, "\n".join(lines), package="iproute2")
    if done.returncode != 0 and not keep_going:
        raise OperationFailed(f"the lab cannot configure its network: {_blame(done.stderr, lines)}")


def apply_nft(pidfd: int, ruleset: str) -> None:
    """Load an nftables ruleset as one transaction. Raises OperationFailed, nothing changed, when nft refuses."""
    done = _feed(pidfd, ["nft", "-f", "-"], ruleset, package="nftables")
    if done.returncode != 0:
        reason = (done.stderr.strip() or "no reason given").splitlines()[0]
        raise OperationFailed(f"the lab cannot set its packet filter: nft says: {reason}")


def _feed(pidfd: int, arguments: list[str], text: str, *, package: str) -> subprocess.CompletedProcess[str]:
    try:
        with netns.network_of(pidfd):
            return subprocess.run(
                arguments, input=text + "\n", capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
    except FileNotFoundError:
        raise OperationFailed(f"the lab needs the program `{arguments[0]}`: apt-get install {package}") from None
    except subprocess.TimeoutExpired:
        raise OperationFailed(f"`{arguments[0]}` did not end within {_TIMEOUT_S} s") from None


def _blame(stderr: str, lines: list[str]) -> str:
    """One sentence from what ``ip -batch`` says: a reason, then "Command failed -:LINE"."""
    reason = (stderr.strip() or "no reason given").splitlines()[0]
    place = re.search(r"Command failed -:(\d+)", stderr)
    return f"`ip {lines[int(place[1]) - 1]}`: {reason}" if place else f"ip says: {reason}"
