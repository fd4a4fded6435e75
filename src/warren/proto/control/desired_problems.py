"""What is wrong with a desired state: whatever it names that is not there, addresses with two places, failing tests.

An entry that matches nothing is a problem, never silence: it is a slip of the pen more often than foresight, and what
was meant to be denied would pass.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from typing import Final

from warren.model.addresses import Claim, check_route, overlaps
from warren.model.documents import NetworkSpec
from warren.model.members import Member
from warren.model.parts import canonical_address, canonical_network, check_selector
from warren.model.policy import Flow, Judge, without_nested
from warren.model.serving import service_named, serving
from warren.model.tunnel import IPAddress, IPNetwork
from warren.proto.control.desired_state import DesiredState, PolicyTest, Problem

PROBLEMS_MAX: Final = 100
"""Nobody reads more of them before mending the first."""
_LIKELY_MAX: Final = 200
"""Names compared with a misspelt one: some milliseconds."""


def problems_of(
    wanted: DesiredState, spec: NetworkSpec, members: Sequence[Member], known_tags: Collection[str]
) -> tuple[Problem, ...]:
    """The first PROBLEMS_MAX problems of ``wanted``; ``spec`` and ``members`` are as they would be with it."""
    return tuple(islice(_problems(wanted, spec, members, known_tags), PROBLEMS_MAX))


def _problems(
    wanted: DesiredState, spec: NetworkSpec, members: Sequence[Member], known_tags: Collection[str]
) -> Iterator[Problem]:
    yield from _unknown_members(wanted, members)
    yield from _route_problems(spec, members, wanted)
    yield from _policy_problems(spec, members, known_tags)
    yield from _relay_problems(wanted, spec, members, known_tags)
    yield from _test_problems(spec, members, wanted.tests)


def _unknown_members(wanted: DesiredState, members: Sequence[Member]) -> Iterator[Problem]:
    names = {member.name for member in members}
    for name in wanted.members:
        if name not in names:
            yield Problem(
                where=f"members.{name}",
                what=f"there is no member {name}; let it join first, or take it out of the file{like(name, names)}",
            )


def _route_problems(spec: NetworkSpec, members: Sequence[Member], wanted: DesiredState) -> Iterator[Problem]:
    for name, state in wanted.members.items():
        for number, text in enumerate(state.routes):
            error = route_error(text)
            if error is None and text in state.routes[:number]:
                error = f"{text} is there twice"
            if error is not None:
                yield Problem(where=f"members.{name}.routes[{number}]", what=error)
    for overlap in overlaps(_claims(spec, members)):
        blamed = overlap.inner if overlap.inner.kind == "route" else overlap.outer
        yield Problem(where=f"members.{blamed.owner}.routes", what=f"{overlap}; no address may have two places")


def route_error(text: str) -> str | None:
    """Why this cannot be a route of anybody; None: it can."""
    try:
        check_route(canonical_network(text))
    except ValueError as error:
        return str(error)
    return None


def _claims(spec: NetworkSpec, members: Sequence[Member]) -> Iterator[Claim]:
    yield Claim(spec.name, "network", IPv6Network(spec.prefix6))
    if spec.prefix4 is not None:
        yield Claim(spec.name, "network", IPv4Network(spec.prefix4))
    for member in members:
        yield Claim(member.name, "node", member.prefix6)
        if member.address4 is not None:
            yield Claim(member.name, "node", IPv4Network(member.address4))
        for route in set(member.routes):
            yield Claim(member.name, "route", route)


def _policy_problems(spec: NetworkSpec, members: Sequence[Member], known_tags: Collection[str]) -> Iterator[Problem]:
    known = Known(spec, members, known_tags)
    for number, rule in enumerate(spec.policy):
        for side, selectors in (("sources", rule.sources), ("destinations", rule.destinations)):
            for selector in selectors:
                what = known.error(selector)
                if what is not None:
                    yield Problem(where=f"policy[{number}].{side}", what=what)


def _relay_problems(
    wanted: DesiredState, spec: NetworkSpec, members: Sequence[Member], known_tags: Collection[str]
) -> Iterator[Problem]:
    known = Known(spec, members, known_tags)
    for number, selector in enumerate(wanted.relay_members or ()):
        what = selector_error(selector) or known.error(selector)
        if what is not None:
            yield Problem(where=f"relay_members[{number}]", what=what)


def selector_error(text: str) -> str | None:
    """Why this is no selector of members; None: it is."""
    try:
        check_selector(text)
    except ValueError as error:
        return str(error)
    return None


class Known:
    """What a selector can stand for."""

    def __init__(self, spec: NetworkSpec, members: Sequence[Member], known_tags: Collection[str]) -> None:
        self._names = {member.name for member in members}
        self._tags = {tag for member in members for tag in member.tags}.union(known_tags)
        self._services = {service.name for service in spec.services}
        self._places = without_nested(claim.network for claim in _claims(spec, members) if claim.kind != "node")
        self._errors: dict[str, str | None] = {}

    def error(self, selector: str) -> str | None:
        """Why nobody can ever be meant; None: somebody can."""
        if selector not in self._errors:
            self._errors[selector] = self._error(selector)
        return self._errors[selector]

    def _error(self, selector: str) -> str | None:
        kind, _, name = selector.partition(":")
        if kind == "members":
            return None
        if kind == "member":
            if name in self._names:
                return None
            return f"there is no member {name}, so {selector} matches nobody{like(name, self._names)}"
        if kind == "tag":
            if name in self._tags:
                return None
            return f"no member has the tag {name}, so {selector} matches nobody{like(name, self._tags)}"
        if kind == "service":
            if name in self._services:
                return None
            return f"there is no service {name}, so {selector} matches nothing{like(name, self._services)}"
        if self._is_somewhere(canonical_network(selector)):
            return None
        return f"{selector} is neither in the network nor behind a member, so it matches nobody; give it a route first"

    def _is_somewhere(self, prefix: IPNetwork) -> bool:
        """The places lie side by side, so one that overlaps is next to where ``prefix`` would be."""
        at = bisect_right(self._places, (prefix.version, prefix), key=lambda place: (place.version, place))
        return any(_overlap(prefix, place) for place in self._places[max(0, at - 1) : at + 1])


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def like(name: str, known: Iterable[str]) -> str:
    """A question after what was perhaps meant."""
    likely = (
        other
        for other in known
        if abs(len(other) - len(name)) <= 2 and (other[:1] == name[:1] or other[-1:] == name[-1:])
    )
    near = get_close_matches(name, sorted(islice(likely, _LIKELY_MAX)), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


# Policy tests


def _test_problems(spec: NetworkSpec, members: Sequence[Member], tests: Sequence[PolicyTest]) -> Iterator[Problem]:
    judge = Judge(spec.policy, members, spec.services)
    places = _Places(spec, members)
    for number, test in enumerate(tests):
        what = _test_error(judge, places, test)
        if what is not None:
            yield Problem(where=f"tests[{number}]", what=what)


def _test_error(judge: Judge, places: _Places, test: PolicyTest) -> str | None:
    if test.protocol == "icmp" and test.port is not None:
        return "icmp has no ports; leave the port out"
    if test.protocol != "icmp" and test.port is None:
        return f"a test of {test.protocol} needs a port"
    sources, destinations = places.addresses(test.source), places.destinations(test.destination)
    if not sources:
        return places.unknown(test.source, services=False)
    if not destinations:
        return places.unknown(test.destination, services=True)
    flows = [
        Flow(source, destination, test.protocol, test.port)
        for source in sources
        for destination in destinations
        if source.version == destination.version
    ]
    if not flows:
        return f"{test.source} and {test.destination} have no address family in common"
    for flow in flows:
        answer = judge.verdict(flow)
        if answer.allowed != (test.expect == "allow"):
            passes = "passes" if answer.allowed else "does not pass"
            why = "no rule matches" if answer.rule is None else f"by policy[{answer.rule}]"
            return (
                f"{question(test)} {passes} ({why}; {flow.source} to {flow.destination}), but {test.expect} is expected"
            )
    return None


class _Places:
    """The addresses of what tests speak of."""

    def __init__(self, spec: NetworkSpec, members: Sequence[Member]) -> None:
        self._spec = spec
        self._members = members
        self._by_name = {member.name: member for member in members}

    def addresses(self, text: str) -> tuple[IPAddress, ...]:
        member = self._by_name.get(text)
        if member is not None:
            return (member.address6,) if member.address4 is None else (member.address6, member.address4)
        try:
            return (canonical_address(text),)
        except ValueError:
            return ()

    def destinations(self, text: str) -> tuple[IPAddress, ...]:
        kind, _, name = text.partition(":")
        if kind == "service":
            return tuple(member.service_address(name) for member in serving(self._spec, self._members, name))
        return self.addresses(text)

    def unknown(self, text: str, *, services: bool) -> str:
        """Why ``text`` has no address."""
        kind, _, name = text.partition(":")
        if kind != "service" or not services:
            return f"{text!r} is neither a member nor an address{like(text, self._by_name)}"
        if service_named(self._spec, name) is None:
            return f"there is no service {name}{like(name, [one.name for one in self._spec.services])}"
        return f"no member serves {name}"


def question(test: PolicyTest) -> str:
    """``tcp 22 from a to b``."""
    what = test.protocol if test.port is None else f"{test.protocol} {test.port}"
    return f"{what} from {test.source} to {test.destination}"
