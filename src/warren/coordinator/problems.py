"""What a coordinator refuses, in one form for every way of asking: RFC 9457 problems.

A :class:`Problem` becomes ``application/problem+json`` for administrators and a ``Refused`` message for nodes. Its
kind is for programs, everything else is for people: what is wrong (title), in this case (detail), what to do (remedy).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from warren.errors import WarrenError, problem_line
from warren.proto.control import desired_state
from warren.proto.control.messages import Refused

_TITLE_MAX, _TEXT_MAX = 256, 1024

KINDS: Final = MappingProxyType(
    {
        "protocol": (400, "The other side does not speak this protocol"),
        "invalid": (400, "The request cannot be understood"),
        "unauthorised": (401, "Who you are is not proven"),
        "bad-proof": (401, "The proof of the node's key is wrong"),
        "forbidden": (403, "You may not do this"),
        "not-a-member": (403, "The node is not a member of this network"),
        "revoked": (403, "The node's membership was revoked"),
        "ticket-unknown": (403, "The ticket is not known here"),
        "ticket-expired": (403, "The ticket has expired"),
        "ticket-used": (403, "The ticket is used up"),
        "not-found": (404, "There is no such thing"),
        "unknown-network": (404, "There is no such network here"),
        "conflict": (409, "This contradicts what is there"),
        "key-taken": (409, "The WireGuard key is another member's"),
        "name-taken": (409, "The name is taken"),
        "no-address": (409, "The network has no address left"),
        "version-conflict": (409, "It has changed in the meantime"),
        "limit": (429, "Too much was asked for"),
        "unavailable": (503, "The coordinator cannot do this now"),
    }
)
"""Kind → HTTP status and title."""


class Problem(WarrenError):
    """A request was refused; nothing of it was done. ``retry_after_s`` None: trying again will not help."""

    def __init__(
        self,
        kind: str,
        detail: str = "",
        remedy: str = "",
        *,
        retry_after_s: float | None = None,
        problems: tuple[desired_state.Problem, ...] = (),
    ) -> None:
        """Raises KeyError for a kind that is not in :data:`KINDS`. ``problems``: all that is wrong, key by key."""
        self.status, self.title = KINDS[kind]
        self.kind = kind
        self.detail = detail
        self.remedy = remedy
        self.retry_after_s = retry_after_s
        self.problems = problems
        super().__init__(problem_line(self.title, detail, remedy))

    @property
    def type(self) -> str:
        """The URI of RFC 9457 §3.1.1."""
        return f"urn:warren:problem:{self.kind}"

    def refused(self) -> Refused:
        """The same as a message to a node."""
        return Refused(
            kind=self.kind,
            title=self.title[:_TITLE_MAX],
            detail=self.detail[:_TEXT_MAX],
            remedy=self.remedy[:_TEXT_MAX],
            retry_after_s=self.retry_after_s,
        )


def unavailable(why: str) -> Problem:
    """The database does not do what it should; whoever asked may ask again."""
    return Problem("unavailable", why, "Try again in a moment; nothing was changed.", retry_after_s=5.0)
