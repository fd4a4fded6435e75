"""Split DNS: this host asks our resolver for the names of its networks, and whom it asked before for all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from warren.dns.resolv_conf import ResolvConf, State
from warren.dns.resolved import ResolvedDns, resolved_is_asked, resolved_is_running
from warren.dns.upstream import Server
from warren.errors import OperationFailed
from warren.log import get
from warren.model.tunnel import IPAddress

Forward = Callable[[Sequence[Server]], None]
"""What takes the name servers for all other names, :meth:`warren.dns.resolver.Resolver.forward_to`."""

ETC: Final = Path("/etc")
RUN: Final = Path("/run/warren")
_log = get("dns")


class SplitDns(Protocol):
    """One for a node, for all its networks; its methods are called one at a time.

    Errors: OperationFailed, one sentence; the host's names then work as they did before.
    """

    description: str
    """By what, and why: for the status."""

    async def engage(self, interface: str, server: IPAddress, domains: tuple[str, ...]) -> None:
        """Ask ``server``, our resolver on the overlay ``interface``, for all names in ``domains``
        (:attr:`warren.dns.names.Zone.domains`). Both exist already. Called again, the last call counts.
        """

    async def disengage(self, interface: str) -> None:
        """Undo :meth:`engage` for one interface, which may be gone."""

    async def check(self) -> None:
        """Put right what others have changed meanwhile, taking over what they meant; call it now and then."""

    async def restore(self) -> None:
        """Undo everything."""


async def choose(forward: Forward, *, run: Path = RUN) -> SplitDns:
    """What this host has to offer. Call :func:`recover` before, with the same ``run``.

    ``run`` is the agent's run directory, which exists.
    """
    if not await resolved_is_running():
        reason = "there is no systemd-resolved on the system's D-Bus"
    elif resolved_is_asked(ETC):
        return ResolvedDns()
    else:
        reason = "systemd-resolved runs, but this host's programs do not ask it"
    return ResolvConfDns(forward, ResolvConf(ETC, run), reason)


async def recover(*, run: Path = RUN) -> str | None:
    """Undo what a killed agent has left behind; a sentence for the log when there was something.

    Only /etc/resolv.conf outlives an agent: what systemd-resolved was told ends with the interface or is told anew.
    Raises OperationFailed when it cannot be undone.
    """
    file = ResolvConf(ETC, run)
    if not file.has_traces():
        return None
    match file.give_back():
        case State.FOREIGN:
            return f"{file.path} has been changed since an agent was killed, and stays as it is"
        case _:
            return f"{file.path} is what it was before an agent was killed"


class ResolvConfDns:
    """By /etc/resolv.conf: every question comes to our resolver, which passes on those for other names.

    The former servers stay in the file behind ours, so that the host's names outlive an agent that is killed.
    """

    def __init__(self, forward: Forward, file: ResolvConf, reason: str) -> None:
        self._file = file
        self._forward = forward
        self._servers: dict[str, IPAddress] = {}
        self.description = f"{self._file.path}, kept and restored, since {reason}"

    async def engage(self, interface: str, server: IPAddress, domains: tuple[str, ...]) -> None:  # noqa: ARG002
        before = self._servers
        self._servers = {**before, interface: server}
        try:
            self._take()
        except OperationFailed:
            self._servers = before
            if not before:
                self._forward(())
            raise

    async def disengage(self, interface: str) -> None:
        if self._servers.pop(interface, None) is None:
            return
        if self._servers:
            self._take()
        else:
            await self.restore()

    async def check(self) -> None:
        if self._servers and not self._file.is_taken(self._asked):
            state = self._file.state()
            self._take()
            if state is not State.INTACT:
                _log.info("%s was changed by somebody else; that has been taken over", self._file.path)

    async def restore(self) -> None:
        self._servers = {}
        self._file.give_back()
        self._forward(())

    @property
    def _asked(self) -> list[IPAddress]:
        """One resolver is behind all of them; the first address will do."""
        return list(self._servers.values())[:1]

    def _take(self) -> None:
        self._forward(self._file.former().servers)
        if not self._file.is_taken(self._asked):
            self._file.take(self._asked)
