"""Permissions of an allocation: to which IP addresses the server may relay for us (RFC 8656 §9).

Which addresses are to be permitted, which are, and when the server has to be asked: permissions end after five minutes
unless asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from warren.model.tunnel import IPAddress

LIFETIME_S: Final = 300.0  # RFC 8656 §9
REFRESH_S: Final = 240.0  # leaves a minute for a server that does not answer
WANTED_MAX: Final = 256  # addresses of members that may come by one relay
PASSING_MAX: Final = 64  # addresses something was sent to without being wanted: they go after one lifetime
AT_ONCE_MAX: Final = 24  # addresses in one request: of 24 bytes each, below the smallest path MTU
RETRY_S: Final = 10.0  # after no answer, or an error that may pass
REFUSED_S: Final = 600.0  # after a refusal that only the server's operator can change

NEVER = float("inf")


class _Permission:
    """One address. ``drop_at``: it is wanted no longer than until then; ``alone``: it is to be asked for by itself."""

    __slots__ = ("alone", "asked_for", "drop_at", "due_at", "until", "why")

    def __init__(self, now: float) -> None:
        self.until = -NEVER
        """Until when it is granted."""
        self.due_at = now
        self.asked_for = False
        self.alone = False
        self.why = ""
        self.drop_at = NEVER


class Permissions:
    """Those of one allocation. Owned by the client, which sends what :meth:`take_batch` names and says what came of it
    by :meth:`granted` or :meth:`refused`; nothing here fails. ``now`` is in seconds.
    """

    def __init__(self) -> None:
        self._all: dict[IPAddress, _Permission] = {}

    def want(self, addresses: Iterable[IPAddress], now: float) -> None:
        """Exactly these shall be kept, at most ``WANTED_MAX``; what was kept before ends by itself."""
        wanted = dict.fromkeys(addresses)
        for address in list(self._all):
            if address not in wanted and self._all[address].drop_at == NEVER:
                del self._all[address]
        for address in list(wanted)[:WANTED_MAX]:
            self._all.setdefault(address, _Permission(now)).drop_at = NEVER

    def want_passing(self, address: IPAddress, now: float) -> bool:
        """For one lifetime from now on; False: there are too many already."""
        permission = self._all.get(address)
        if permission is None:
            self._drop_old(now)
            if sum(one.drop_at != NEVER for one in self._all.values()) >= PASSING_MAX:
                return False
            permission = self._all[address] = _Permission(now)
            permission.drop_at = now + LIFETIME_S
        elif permission.drop_at != NEVER:
            permission.drop_at = now + LIFETIME_S
        return True

    def _drop_old(self, now: float) -> None:
        for address in [address for address, one in self._all.items() if one.drop_at <= now and not one.asked_for]:
            del self._all[address]

    def holds(self, address: IPAddress, now: float) -> bool:
        permission = self._all.get(address)
        return permission is not None and now < permission.until

    def refusal(self, address: IPAddress) -> str:
        """Why the server does not permit it; empty when it does, or was not asked yet."""
        permission = self._all.get(address)
        return permission.why if permission is not None else ""

    def take_batch(self, now: float) -> tuple[IPAddress, ...]:
        """What to ask for now in one request: empty when nothing is due. They count as asked for until answered."""
        self._drop_old(now)
        due = [address for address, one in self._all.items() if one.due_at <= now and not one.asked_for]
        if due and self._all[due[0]].alone:
            due = due[:1]
        else:
            due = [address for address in due if not self._all[address].alone][:AT_ONCE_MAX]
        for address in due:
            self._all[address].asked_for = True
        return tuple(due)

    def granted(self, addresses: Iterable[IPAddress], now: float) -> None:
        for permission in self._of(addresses):
            permission.asked_for = permission.alone = False
            permission.why = ""
            permission.until = now + LIFETIME_S
            permission.due_at = now + REFRESH_S

    def refused(self, addresses: tuple[IPAddress, ...], why: str, now: float, *, lasting: bool) -> None:
        """``lasting``: it is about an address, not about now. One that is refused makes a whole request fail (RFC 8656
        §10.2), so each is then asked for alone.
        """
        for permission in self._of(addresses):
            permission.asked_for = False
            permission.alone = lasting
            if lasting and len(addresses) > 1:
                permission.due_at = now
            else:
                permission.why = why
                permission.due_at = now + (REFUSED_S if lasting else RETRY_S)

    def forget_answers(self, now: float) -> None:
        """There is a new allocation: all is to be asked for anew."""
        self._drop_old(now)
        for address, permission in self._all.items():
            anew = self._all[address] = _Permission(now)
            anew.drop_at = permission.drop_at

    def next_deadline(self) -> float:
        return min((min(one.due_at, one.drop_at) for one in self._all.values() if not one.asked_for), default=NEVER)

    def _of(self, addresses: Iterable[IPAddress]) -> list[_Permission]:
        return [self._all[address] for address in addresses if address in self._all]
