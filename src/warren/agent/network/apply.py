"""The thin driver below the plan: reads what is there of one network, and carries out one change at a time.

Every change is told to a :class:`Ledger`, done or failed and why: that is what the node reports as its tasks (R12).
"""

from __future__ import annotations

from collections.abc import Sequence

from warren import log
from warren.agent.network.plan import Add, Change, Item, Mtu, PathMtu, Policy, Up, observed_on, plan
from warren.errors import OperationFailed
from warren.l3.table import PolicyTable
from warren.linux.netlink import Netlink
from warren.linux.netlink_values import Address, Route
from warren.linux.nft import Command, Nft
from warren.linux.sysctl import Sysctls
from warren.proto.control.messages import Task

_ADDRESS_BY_HAND = "1"  # IN6_ADDR_GEN_MODE_NONE: no link-local address, as the kernel's own WireGuard has it
_ROUNDS_MAX = 4
"""Removing an address takes routes along in the kernel; each round puts back what went by itself."""
_REASON_CHARACTERS_MAX = 1024

_log = log.get("agent")


class Ledger:
    """The tasks of one network, by name, in the order in which they first came up."""

    def __init__(self, network: str) -> None:
        self._network = network
        self._tasks: dict[str, Task] = {}

    def done(self, name: str) -> None:
        before = self._tasks.get(name)
        if before is not None and before.state == "failed":
            _log.info("%s: %s: done now", self._network, name)
        self._tasks[name] = Task(name=name[:256], state="done")

    def failed(self, name: str, reason: object) -> None:
        """Logs it once, not at each try."""
        task = Task(name=name[:256], state="failed", reason=str(reason)[:_REASON_CHARACTERS_MAX])
        if self._tasks.get(name) != task:
            _log.warning("%s: %s: %s", self._network, name, reason)
        self._tasks[name] = task

    def keep(self, names: Sequence[str], within: tuple[str, ...]) -> None:
        """Forget the tasks whose names begin with one of ``within`` and are not in ``names``: nobody wants them."""
        wanted = set(names)
        for name in [name for name in self._tasks if name.startswith(within) and name not in wanted]:
            del self._tasks[name]

    def settle(self, name: str, trouble: str) -> None:
        """Failed because of ``trouble``; without any there is nothing to tell."""
        if trouble:
            self.failed(name, trouble)
        else:
            self.forget(name)

    def forget(self, name: str) -> None:
        self._tasks.pop(name, None)

    def failing(self) -> bool:
        return any(task.state == "failed" for task in self._tasks.values())

    def tasks(self) -> tuple[Task, ...]:
        return tuple(self._tasks.values())


class Host:
    """The host as one network's interface sees it. ``table`` is that of its policy."""

    def __init__(self, interface: str, netlink: Netlink, nft: Nft, sysctls: Sysctls, ledger: Ledger) -> None:
        self.interface = interface
        self.table = PolicyTable(nft, interface)
        self._netlink = netlink
        self._sysctls = sysctls
        self._ledger = ledger

    async def reach(self, desired: Sequence[Item], policy: Sequence[Command], closed: Sequence[Command]) -> int:
        """Make the host as desired as far as it goes; what does not is in the ledger. Returns the number of changes.

        ``policy`` is the document behind the :class:`~warren.agent.network.plan.Policy` in ``desired``, ``closed`` the
        one that lets nothing in, for when that is refused. Raises OperationFailed when the host cannot even be looked
        at.
        """
        names = [_task(item) for item in desired]
        self._ledger.keep(names, ("address ", "route ", "interface ", "MTU ", "path MTU "))
        refused: set[Change] = set()
        count = 0
        for _ in range(_ROUNDS_MAX):
            changes = [
                change for change in plan(desired, await self._observe(desired, policy)) if change not in refused
            ]
            if not changes:
                break
            for change in changes:
                if await self._carry_out(change, policy, refused):
                    count += 1
                elif _is_policy(change):
                    await self._close(closed)
        for item in desired:
            if Add(item) not in refused:
                self._ledger.done(_task(item))
        return count

    async def _observe(self, desired: Sequence[Item], policy: Sequence[Command]) -> frozenset[Item]:
        wanted = next((item.digest for item in desired if isinstance(item, Policy)), None)
        try:
            present = wanted if self.table.is_in_place(policy) else self.table.digest()
        except OperationFailed:
            present = None
        return observed_on(
            self.interface,
            await self._netlink.links(),
            await self._netlink.addresses(),
            await self._netlink.routes(),
            present,
        )

    async def _carry_out(self, change: Change, policy: Sequence[Command], refused: set[Change]) -> bool:
        try:
            if isinstance(change, Add):
                if isinstance(change.item, Up) and self.table.digest() is None:
                    raise OperationFailed("the policy is not in place, so nothing may come in yet")  # fail closed
                await self._add(change.item, policy)
            else:
                await self._remove(change.item)
        except OperationFailed as error:
            refused.add(change)
            self._ledger.failed(_task(change.item), error)
            return False
        _log.debug("%s", change)
        return True

    async def _add(self, item: Item, policy: Sequence[Command]) -> None:
        match item:
            case Policy():
                self.table.put(policy)
            case Mtu(interface, value):
                await self._netlink.set_link(interface, mtu=value)
            case Address():
                await self._netlink.add_address(item)
            case Up(interface):
                name = f"net/ipv6/conf/{interface}/addr_gen_mode"
                if self._sysctls.get(name) is not None:
                    self._sysctls.set(name, _ADDRESS_BY_HAND)
                await self._netlink.set_link(interface, up=True)
            case Route():
                await self._netlink.add_route(item)
            case PathMtu():
                await self._netlink.remove_route(item.any_route)  # the network's own route carries on in between
                await self._netlink.add_route(item.route)

    async def _remove(self, item: Item) -> None:
        match item:
            case Address():
                await self._netlink.remove_address(item)
            case Route():
                await self._netlink.remove_route(item)
            case PathMtu():
                await self._netlink.remove_route(item.any_route)
            case _:
                raise OperationFailed(f"{item} goes with its interface; it cannot be removed alone")

    async def _close(self, closed: Sequence[Command]) -> None:
        """A policy that cannot be put in place counts as a broken one: nothing passes."""
        try:
            self.table.put(closed)
        except OperationFailed:
            await self._netlink.set_link(self.interface, up=False)


def _is_policy(change: Change) -> bool:
    return isinstance(change, Add) and isinstance(change.item, Policy)


def _task(item: Item) -> str:
    """What a task is called: without the interface, which is the network's."""
    return str(item).partition(" on ")[0].partition(" dev ")[0]
