"""Whether the domains of a gateway's web sites lead to it: an authority for certificates comes by them, and so do
visitors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

from warren import log
from warren.errors import OperationFailed
from warren.model.tunnel import IPAddress

AGAIN_S: Final = 60.0
"""Before a domain that leads here is looked up again: names change in minutes, and resolvers remember answers."""
WRONG_AGAIN_S: Final = 5.0
"""The same of one that does not: somebody may be just correcting it, and waits for it to work."""
LOOKUP_WITHIN_S: Final = 15.0
_SHOWN_MAX: Final = 4

Resolve = Callable[[Sequence[str]], Awaitable[Sequence[IPAddress]]]

_log = log.get("agent")


def objection(domain: str, addresses: Collection[IPAddress], own: Collection[IPAddress]) -> str:
    """Why ``domain``, which has ``addresses``, does not lead to who has ``own``; empty: it does."""
    if set(addresses) & set(own):
        return ""
    has = _listed(addresses)
    return (
        f"{domain} leads to {has}, and not to this gateway, which has {_own_words(own)}: correct it where its DNS is "
        "kept"
    )


def comparable(addresses: Collection[IPAddress], own: Collection[IPAddress]) -> bool:
    """Whether ``own`` tells anything of ``addresses``: who does not know which public ones of a version he has, as
    behind a NAT while no relay answers, cannot say that a domain with such ones leads elsewhere.
    """
    versions = {ip.version for ip in addresses if ip.is_global}
    return not versions or any(ip.is_global and ip.version in versions for ip in own)


def _own_words(own: Collection[IPAddress]) -> str:
    return _listed([ip for ip in own if ip.is_global]) or _listed(own) or "no address that is known"


def _listed(addresses: Collection[IPAddress]) -> str:
    shown = sorted(map(str, addresses))
    more = f" and {len(shown) - _SHOWN_MAX} more" if len(shown) > _SHOWN_MAX else ""
    return ", ".join(shown[:_SHOWN_MAX]) + more


class Domains:
    """Looks domains up, again and again, while they are wanted. Single owner.

    ``own`` gives the addresses that this gateway has, as far as is known; ``changed`` is called when an answer is
    another one than before.
    """

    def __init__(
        self,
        resolve: Resolve,
        own: Callable[[], Collection[IPAddress]],
        changed: Callable[[], None],
        served: Collection[str] = (),
    ) -> None:
        """``served``: domains that led here for an agent before this one, and do until it is known better."""
        self._resolve = resolve
        self._own = own
        self._changed = changed
        self._answers: dict[str, str] = dict.fromkeys(served, "")
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def answers(self) -> Mapping[str, str]:
        """Of those that were looked up, or served before: why they do not lead here; empty: they do."""
        return dict(self._answers)

    def keep(self, domains: Collection[str]) -> None:
        """Look up these, and no others any more."""
        for gone in self._tasks.keys() - set(domains):
            self._tasks.pop(gone).cancel()
            self._answers.pop(gone, None)
        for domain in domains:
            if domain not in self._tasks:
                self._tasks[domain] = asyncio.create_task(self._watch(domain), name=f"where {domain} leads")

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self.keep(())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, domain: str) -> None:
        while True:
            answer, known = await self._look_up(domain)
            stays = not known and self._answers.get(domain) == ""  # a resolver or a relay that fails moves no domain
            if not stays and self._answers.get(domain) != answer:
                self._answers[domain] = answer
                self._changed()
            await asyncio.sleep(WRONG_AGAIN_S if answer else AGAIN_S)

    async def _look_up(self, domain: str) -> tuple[str, bool]:
        """Why it does not lead here, and whether that can be told: whose addresses are which is known."""
        try:
            async with asyncio.timeout(LOOKUP_WITHIN_S):
                addresses = await self._resolve([domain])
                own = self._own()
                why = objection(domain, addresses, own)
                return why, not why or comparable(addresses, own)
        except TimeoutError:
            why = f"{domain} could not be looked up within {LOOKUP_WITHIN_S:.0f} s: see whether this host's DNS works"
            return why, False
        except OperationFailed as error:
            ours = _own_words(self._own())
            why = (
                f"{domain} does not lead to this gateway: {error}; give it an address of this one where its DNS is kept"
            )
            return f"{why}: {ours}", False
