"""A table of nftables that tells this side of the overlay which of its open flows the policy has come to forbid.

The policy's own table (:mod:`warren.l3.firewall`) drops what is forbidden, and both ends would wait until they give up.
This one answers the next packet of a flow that was open where it comes from: a program of this host, or a host behind
it. TCP is reset; anything else hears that it is prohibited (ICMP; a program's own call fails with EPERM). Nobody in the
overlay is answered, and nobody who only tries: what belongs to a flow without an answer is dropped.

It lets nothing through. Where it is not sure, packets are left to that one: those of flows whose addresses this host
has yet to translate, for here they are not what the overlay will see; and those that connection tracking takes for this
side's own, where they may be late answers in a permitted flow that it has forgotten. More than some each second are
dropped without an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from warren.l3.document import (
    ACCEPT,
    Document,
    Expression,
    among,
    ct,
    differs,
    goto,
    is_,
    is_equal,
    meta,
    removal_of,
)
from warren.l3.firewall import Own, refusals_of
from warren.l3.judging import by_version, judge, ranged
from warren.linux.nft import Command, Nft
from warren.model.policy import ResolvedRule

EPHEMERAL: Final = 32_768
"""From this port on are those of who opens a flow (ip(7), ip_local_port_range): hardly anybody answers from there."""
PER_SECOND: Final = 100
"""Of either kind: a flow needs one, and who has thousands hears of the rest at their next packets."""
_AFTER_FILTER: Final = 10
"""What the host's own firewall drops is not answered."""
_RESET: Final[Expression] = {"reject": {"type": "tcp reset"}}
_PROHIBITED: Final[Expression] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
_RATE: Final[Expression] = {"limit": {"rate": PER_SECOND, "per": "second", "burst": PER_SECOND}}


def refusals(interface: str, own: Own, rules: Iterable[ResolvedRule]) -> list[Command]:
    """The document that puts the table in place, replacing an earlier one."""
    table = refusals_of(interface)
    document = Document(table)
    document.chain("pass", hook="forward", priority=_AFTER_FILTER)
    document.chain("send", hook="output", priority=_AFTER_FILTER)
    for name in ("ours", "opening", "late", "answering", "refuse"):
        document.chain(name)
    open_flow = among(ct("state"), "established")
    into = is_("oifname", interface)
    document.rule("pass", differs(meta("iifname"), interface), into, open_flow, goto("ours"))
    document.rule("send", into, open_flow, goto("ours"))
    ours = by_version((*own.addresses, *own.routes))
    for version in (6, 4):
        document.rule("ours", *document.outside("saddr", ours.get(version, ()), version), ACCEPT)
    for direction, translated, chain in (("original", "snat", "opening"), ("reply", "dnat", "answering")):
        document.rule("ours", is_equal(ct("direction"), direction), among(ct("status"), translated), ACCEPT)
        document.rule("ours", is_equal(ct("direction"), direction), goto(chain))
    judged = ranged(rules)
    for chain, answers, denied in (("opening", False, goto("late")), ("answering", True, goto("refuse"))):
        judge(document, chain, judged, ours, inbound=False, answers=answers, denied=denied)
        document.rule(chain, denied)
    for protocol in ("tcp", "udp"):
        source_port: Expression = {"payload": {"protocol": protocol, "field": "sport"}}
        document.rule("late", is_equal(source_port, {"range": [EPHEMERAL, 65_535]}), goto("refuse"))
    document.rule("late", goto("answering"))
    document.rule("refuse", is_equal(meta("l4proto"), 6), _RATE, _RESET)
    document.rule("refuse", differs(meta("l4proto"), 6), _RATE, _PROHIBITED)
    return [*removal_of(table), *document.commands()]


class Refusals:
    """The table of one network's interface, which goes when the policy's is replaced. Owned by one task.

    Errors: OperationFailed with nftables' reason, e.g. for a kernel without nft_reject; nothing is refused then.
    """

    def __init__(self, nft: Nft, interface: Callable[[], str]) -> None:
        """``interface``: its name; empty while there is none."""
        self._nft = nft
        self._interface = interface

    async def put(self, own: Own, rules: Iterable[ResolvedRule]) -> None:
        """It is put to its end: whoever is cancelled meanwhile ends when it is there, so that what takes it away comes
        after it.
        """
        interface = self._interface()
        if not interface:
            return
        done = asyncio.ensure_future(asyncio.to_thread(lambda: self._nft.run(refusals(interface, own, rules))))
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.gather(done, return_exceptions=True)
            raise

    def is_there(self) -> bool:
        interface = self._interface()
        return not interface or refusals_of(interface) in self._nft.tables()

    def remove(self) -> None:
        interface = self._interface()
        if interface:
            self._nft.run(removal_of(refusals_of(interface)))
