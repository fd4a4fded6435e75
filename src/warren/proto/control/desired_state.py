"""The desired state of a network as operators state it, the plan that is made of it, and the request to apply it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from warren.model.documents import Rule
from warren.model.parts import SUFFIX_CHARACTERS_MAX, SUFFIX_PATTERN
from warren.model.services import ConnectorTerms, ServiceTerms
from warren.proto.control.administration import LEASE_S_MAX, LEASE_S_MIN, NameText, Note, TagText, Value

SERVICES_MAX: Final = 1024
"""Of one network, and as many connectors: what a NetworkSpec has room for."""


class MemberState(Value, frozen=True, kw_only=True, omit_defaults=True):
    """What a desired-state file says of one member."""

    tags: Annotated[tuple[TagText, ...], Meta(max_length=64)] = ()
    routes: Annotated[tuple[str, ...], Meta(max_length=64)] = ()


class PolicyTest(Value, frozen=True, kw_only=True, omit_defaults=True):
    """A question to the policy with the answer it must give; an apply that would break one is refused."""

    source: Note
    """A member's name, or an address."""
    destination: Note
    """A member's name, an address, or ``service:NAME``."""
    protocol: Literal["tcp", "udp", "icmp"] = "tcp"
    port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    expect: Literal["allow", "deny"]


class ServiceState(ServiceTerms, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a desired state says of one service."""


class ConnectorState(ConnectorTerms, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a desired state says of one connector."""


class DesiredState(Value, frozen=True, kw_only=True, omit_defaults=True):
    """All of a network that an operator decides. ``members`` lists whom it speaks of; others keep what they have.
    ``services`` and ``connectors`` are all there are to be; None: as they are.
    """

    suffix: Annotated[str, Meta(pattern=SUFFIX_PATTERN, max_length=SUFFIX_CHARACTERS_MAX)] | None = None
    lease_s: Annotated[int, Meta(ge=LEASE_S_MIN, le=LEASE_S_MAX)] | None = None
    members: Annotated[dict[NameText, MemberState], Meta(max_length=10_000)] = {}  # noqa: RUF012 - msgspec copies it
    relay_members: Annotated[tuple[Note, ...], Meta(max_length=64)] | None = None
    """Selectors of the members that may relay for others; a public one of them that offers it does."""
    services: Annotated[dict[NameText, ServiceState], Meta(max_length=SERVICES_MAX)] | None = None
    connectors: Annotated[dict[NameText, ConnectorState], Meta(max_length=SERVICES_MAX)] | None = None
    policy: Annotated[tuple[Rule, ...], Meta(max_length=4096)]
    tests: Annotated[tuple[PolicyTest, ...], Meta(max_length=4096)] = ()


class Change(Value, frozen=True, kw_only=True):
    """One line of a plan."""

    action: Literal["add", "remove", "change"]
    subject: str
    """``policy rule 3``, ``tags of web1``, ``suffix`` …"""
    before: str | None
    after: str | None


class Problem(Value, frozen=True, kw_only=True):
    """One thing wrong with a desired state."""

    where: str
    """The key it is about, as a path: ``policy[2].sources``, ``members.web1.routes``, ``tests[0]``."""
    what: str


class Plan(Value, frozen=True, kw_only=True):
    """What an apply would do. It may be applied as long as the network is still at ``version``."""

    version: int
    changes: tuple[Change, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
    """What is perhaps not meant, and hinders nothing."""


class ApplyRequest(Value, frozen=True, kw_only=True):
    state: DesiredState
    version: int | None = None
    """That of the plan that was reviewed; the apply is refused when the network has changed since. None: whatever."""
