"""The plan of a desired state: what would change, what is wrong with it, and what to write when it is applied.

All of it is pure: the coordinator plans and applies with the same function inside one transaction, so that what was
reviewed is what happens, all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import islice
from typing import Literal, TypeVar

import msgspec

from warren.model.documents import NetworkSpec, Rule
from warren.model.members import Member
from warren.proto.control.desired_problems import PROBLEMS_MAX, problems_of, question, route_error, selector_error
from warren.proto.control.desired_services import (
    connector_of,
    connector_state,
    connector_text,
    service_of,
    service_problems,
    service_state,
    service_text,
    service_warnings,
)
from warren.proto.control.desired_state import Change, DesiredState, MemberState, Plan, PolicyTest
from warren.proto.control.spans import exact_span

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, with what its apply is to write; apply nothing when ``plan.problems`` says anything."""

    plan: Plan
    state: DesiredState
    """Everything spelled out, as it will be: all members, no None. The next plan's ``current``."""
    spec_changes: bool
    """Whether the NetworkSpec is to be signed anew, as ``spec`` with another version."""
    spec: NetworkSpec
    """As it will be, but for its version."""
    members: Mapping[bytes, MemberState] = field(default_factory=dict)
    """By node key, only those whose Membership is to be signed anew."""


def state_of(spec: NetworkSpec, members: Iterable[Member], tests: tuple[PolicyTest, ...] = ()) -> DesiredState:
    """What holds now, as a desired state that spells everything out; planning it changes nothing."""
    return DesiredState(
        suffix=spec.suffix,
        lease_s=spec.lease_s,
        relay_members=spec.relay_members,
        members={member.name: _state(member) for member in sorted(members, key=lambda m: m.name)},
        services={service.name: service_state(service) for service in spec.services},
        connectors={connector.name: connector_state(connector) for connector in spec.connectors},
        policy=spec.policy,
        tests=tests,
    )


def plan(
    current: DesiredState,
    wanted: DesiredState,
    members: Sequence[Member],
    spec: NetworkSpec,
    *,
    known_tags: Collection[str] = (),
) -> Planned:
    """Plan from ``current`` (see :func:`state_of`) to ``wanted`` for the network of ``spec`` and its ``members``.

    ``members`` are all that are not revoked, connected or not. ``known_tags`` are tags that somebody may yet get, such
    as those of open invites: a policy may speak of them.
    """
    complete = _completed(current, wanted, members)
    future = [_as_wanted(member, complete) for member in members]
    future_spec = msgspec.structs.replace(
        spec,
        suffix=complete.suffix or spec.suffix,
        lease_s=complete.lease_s or spec.lease_s,
        relay_members=_selectors(complete.relay_members or ()),
        services=tuple(service_of(*one) for one in (complete.services or {}).items()),
        connectors=tuple(connector_of(*one) for one in (complete.connectors or {}).items()),
        policy=complete.policy,
    )
    problems = (
        *problems_of(wanted, future_spec, future, known_tags),
        *islice(service_problems(future_spec, future, spec), PROBLEMS_MAX),
    )
    return Planned(
        plan=Plan(
            version=spec.version,
            changes=tuple(_changes(current, complete)),
            problems=problems[:PROBLEMS_MAX],
            warnings=tuple(islice(service_warnings(future_spec, future, known_tags), PROBLEMS_MAX)),
        ),
        state=complete,
        spec_changes=future_spec != spec,
        spec=future_spec,
        members={
            member.membership.node: complete.members[member.name]
            for member in members
            if _state(member) != complete.members[member.name]
        },
    )


def _completed(current: DesiredState, wanted: DesiredState, members: Sequence[Member]) -> DesiredState:
    """``wanted`` with everything that it leaves open as it is."""
    states = {member.name: _normal(wanted.members.get(member.name, _state(member))) for member in members}
    return DesiredState(
        suffix=current.suffix if wanted.suffix is None else wanted.suffix,
        lease_s=current.lease_s if wanted.lease_s is None else wanted.lease_s,
        relay_members=current.relay_members if wanted.relay_members is None else wanted.relay_members,
        members=dict(sorted(states.items())),
        services=_sorted(current.services if wanted.services is None else wanted.services),
        connectors=_sorted(current.connectors if wanted.connectors is None else wanted.connectors),
        policy=wanted.policy,
        tests=wanted.tests,
    )


def _sorted(states: Mapping[str, T] | None) -> dict[str, T]:
    return dict(sorted((states or {}).items()))


def _state(member: Member) -> MemberState:
    return _normal(MemberState(tags=member.tags, routes=member.membership.routes))


def _normal(state: MemberState) -> MemberState:
    """Tags and routes are sets: their order is no change."""
    return MemberState(tags=tuple(sorted(set(state.tags))), routes=tuple(sorted(state.routes)))


def _as_wanted(member: Member, state: DesiredState) -> Member:
    """The member as it will be; routes that cannot be are a problem, not a crash."""
    wanted = state.members[member.name]
    routes = tuple(route for route in wanted.routes if route_error(route) is None)
    return Member(msgspec.structs.replace(member.membership, tags=wanted.tags, routes=routes), member.record)


# What changes


def _changes(current: DesiredState, complete: DesiredState) -> Iterator[Change]:
    yield from _change("suffix", current.suffix, complete.suffix)
    yield from _change("lease", _seconds(current.lease_s), _seconds(complete.lease_s))
    yield from _change("relay members", ", ".join(current.relay_members or ()), ", ".join(complete.relay_members or ()))
    for name, state in complete.members.items():
        before = _normal(current.members.get(name, MemberState()))
        yield from _change(f"tags of {name}", ", ".join(before.tags), ", ".join(state.tags))
        yield from _change(f"routes of {name}", ", ".join(before.routes), ", ".join(state.routes))
    yield from _named_changes("service", current.services, complete.services, service_text)
    yield from _named_changes("connector", current.connectors, complete.connectors, connector_text)
    yield from _list_changes("policy rule", [*map(rule_text, current.policy)], [*map(rule_text, complete.policy)])
    yield from _list_changes("policy test", [*map(question_text, current.tests)], [*map(question_text, complete.tests)])


def _change(subject: str, before: str | None, after: str | None) -> Iterator[Change]:
    before, after = before or None, after or None
    if before != after:
        action: Literal["add", "remove", "change"] = (
            "add" if before is None else "remove" if after is None else "change"
        )
        yield Change(action=action, subject=subject, before=before, after=after)


def _named_changes(
    subject: str, before: Mapping[str, T] | None, after: Mapping[str, T] | None, text: Callable[[T], str]
) -> Iterator[Change]:
    before, after = before or {}, after or {}
    for name in sorted({*before, *after}):
        old, new = (states.get(name) for states in (before, after))
        yield from _change(f"{subject} {name}", None if old is None else text(old), None if new is None else text(new))


def _list_changes(subject: str, before: list[str], after: list[str]) -> Iterator[Change]:
    """Line by line as a person would see it; numbers from 1, of the old list for what is removed, else of the new."""
    for action, old, old_end, new, new_end in SequenceMatcher(None, before, after).get_opcodes():
        if action == "equal":
            continue
        both = min(old_end - old, new_end - new)
        for step in range(both):
            yield from _change(f"{subject} {new + step + 1}", before[old + step], after[new + step])
        for index in range(old + both, old_end):
            yield from _change(f"{subject} {index + 1}", before[index], None)
        for index in range(new + both, new_end):
            yield from _change(f"{subject} {index + 1}", None, after[index])


def rule_text(rule: Rule) -> str:
    """A rule as one line: ``allow tcp 22,80 from tag:admin to members (comment)``."""
    what = " ".join(word for word in (rule.protocol if rule.protocol != "any" else "", ",".join(rule.ports)) if word)
    line = " ".join(
        word
        for word in (rule.action, what, "from", ", ".join(rule.sources), "to", ", ".join(rule.destinations))
        if word
    )
    return f"{line} ({rule.comment})" if rule.comment else line


def question_text(test: PolicyTest) -> str:
    """A policy test as one line: ``deny tcp 22 from a to b``."""
    return f"{test.expect} {question(test)}"


def _selectors(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are selectors; the others are a problem, not a crash."""
    return tuple(text for text in texts if selector_error(text) is None)


def _seconds(seconds: int | None) -> str | None:
    return None if seconds is None else exact_span(seconds)
