"""Ends what is open in one network and its policy has come to forbid, at this node's end of it.

TCP connections of this node end at once. Other flows of it, and those of hosts behind it, are refused from then on:
whoever sends the next packet on this side hears of it.

Each end does so for itself, after its firewall has changed: the reset that the kernel sends to the other end is one of
the packets that are dropped now.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from warren import log
from warren.agent.network.desired import Wanted
from warren.agent.network.forbidden import Law, forbidden
from warren.agent.streams.directory import Directory
from warren.errors import WarrenError
from warren.l3.refusals import Refusals
from warren.linux.tcp_sockets import END_MAX, Opened, TcpSockets

SETTLE_S: Final = 0.5
"""From the last change to the first look. Documents come one after the other, and what the next one permits again
should not have been ended.
"""
SETTLED_BY_S: Final = 5.0
"""Then it is looked whatever else changes."""
INFORMED_S: Final = 3.0
"""The same after a coordinator was found, who first tells what has changed meanwhile, and not that nothing has."""
AGAIN_S: Final = 5.0
"""To the second look: for what was opened while other nodes did not know yet."""
PAUSE_RATIO: Final = 3.0
"""How much longer than looking is not looking: among very many connections that takes seconds."""
CHECK_S: Final = 30.0
"""At least so long between two looks whether somebody has taken the refusals away."""
_LOOKS: Final = 2

_log = log.get("agent")


class Ending:
    """Single owner. ``tcp`` None: nothing is ever ended. ``refusals`` None: nothing is ever refused."""

    def __init__(self, name: Callable[[], str], tcp: TcpSockets | None, refusals: Refusals | None = None) -> None:
        """``name``: of the network, for the log."""
        self._name = name
        self._tcp = tcp
        self._refusals = refusals
        self._refusing = False
        self._check_at = 0.0
        self._want: Wanted | None = None
        self._facts: object = None
        self._law: Law | None = None
        self._judge = False
        """Whether what the law forbids ends."""
        self._looks = 0
        self._informed = False
        self._settle_s = INFORMED_S
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._took_s = 0.0
        self._said: set[str] = set()
        self._trouble = self._refusals_trouble = ""

    def follow(self, want: Wanted, directory: Directory | None, *, informed: bool) -> None:
        """The host has been made as ``want`` says, of which ``directory`` is. Nothing ends while this node is not
        ``informed`` by a coordinator: leases of others then seem to end that were renewed. But that it was revoked is
        certain, and no coordinator speaks to it any more.
        """
        if self._tcp is None:
            return
        if want is not self._want:
            self._want = want
            self._take(want, directory)
        self._informed = informed or want.state == "revoked"
        self._keep_refusing()
        if not self._informed:
            self._settle_s = INFORMED_S
        elif self._looks and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work(), name="ending what is forbidden")

    async def everything(self) -> None:
        """The node has left the network, so nothing of it will ever go on. Its interface is still there: the resets of
        the kernel tell the other ends.
        """
        await self.close()
        if self._law is not None:
            self._law, self._judge = self._law.without_members(), True
            self._looks = 0
            await self._look(self._law)

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _take(self, want: Wanted, directory: Directory | None) -> None:
        facts = (want.state, want.rules, want.own, {node: peer.allowed_ips for node, peer in want.peers.items()})
        if facts == self._facts:
            return
        self._facts = facts
        self._refuse_no_more()
        before = self._law
        if want.state == "up" and directory is not None:
            left = () if before is None else (*before.directory.behind, *(before.left if self._looks else ()))
            self._law = Law(directory, want.own, tuple(dict.fromkeys(left)))
            self._judge = True
        elif want.state == "revoked":
            self._law = None if before is None else before.without_members()
            self._judge = True
        else:
            self._judge = False  # once the lease of this node is renewed, everything goes on
        self._looks = _LOOKS if self._judge and self._law is not None else 0
        self._changed.set()

    async def _work(self) -> None:
        while self._looks:
            self._changed.clear()
            if self._looks == _LOOKS:
                await self._settle()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S):
                        await self._changed.wait()
                        continue
            law = self._law
            if not self._looks or law is None or not self._informed:
                return
            self._settle_s = SETTLE_S
            self._looks -= 1
            await self._look(law)
            await self._refuse(law)

    async def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLED_BY_S
        while True:
            self._changed.clear()
            await asyncio.sleep(max(self._settle_s, PAUSE_RATIO * self._took_s))
            if not self._changed.is_set() or loop.time() >= until:
                return

    async def _look(self, law: Law) -> None:
        tcp = self._tcp
        if tcp is None:
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            sockets = await tcp.connections(law.places)
            if any(one.opened == Opened.UNTOLD for one in sockets):
                self._say_once("does not tell how connections were opened (nf_conntrack_netlink)")
            chosen = await asyncio.to_thread(forbidden, sockets, law)
            ended = 0
            for start in range(0, len(chosen), END_MAX):
                if self._law is not law or not self._judge:
                    break
                count = await tcp.end(chosen[start : start + END_MAX])
                if count is None:
                    self._say_once("does not end connections for others (CONFIG_INET_DIAG_DESTROY)")
                    return
                ended += count
            self._trouble = ""
            if ended:
                _log.info("%s: connections ended that its policy does not permit any more: %d", self._name(), ended)
        except WarrenError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.warning("%s: connections that are not permitted any more stay open: %s", self._name(), error)
        finally:
            self._took_s = loop.time() - began

    async def _refuse(self, law: Law) -> None:
        """Nothing of which this node is a member no more, or not sure: it is silent then, as to anybody else."""
        want = self._want
        if self._refusals is None or self._refusing or want is None or not want.rules or not self._holds(law):
            return
        try:
            await self._refusals.put(want.own, want.rules)
        except WarrenError as error:
            if not self._refusals_trouble:
                self._refusals_trouble = str(error)
                _log.info("%s: what its policy comes to forbid is dropped in silence: %s", self._name(), error)
            return
        self._refusals_trouble = ""
        self._refusing = True
        self._check_at = asyncio.get_running_loop().time() + CHECK_S
        if not self._holds(law):
            self._refuse_no_more()

    def _holds(self, law: Law) -> bool:
        return self._law is law and self._judge and self._informed

    def _refuse_no_more(self) -> None:
        """By the law of before, which may have been milder or stricter."""
        if self._refusing and self._refusals is not None:
            self._refusing = False
            with contextlib.suppress(WarrenError):  # the policy's own table takes it along
                self._refusals.remove()

    def _keep_refusing(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._refusing or now < self._check_at or self._refusals is None:
            return
        self._check_at = now + CHECK_S
        with contextlib.suppress(WarrenError):
            if not self._refusals.is_there():
                self._refusing = False
                self._looks = max(self._looks, 1)

    def _say_once(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            _log.info("%s: this kernel %s: what is forbidden ends at its next packet", self._name(), what)
