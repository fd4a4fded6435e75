"""Services and connectors, one by one. They live in the NetworkSpec alone: each change signs another.

Whether something can be is judged as for a desired state (:mod:`warren.proto.control.desired_services`), inside the
transaction that writes it. What is wrong already hinders nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from warren.coordinator.core import Core
from warren.coordinator.network_rows import members_of, next_network_version, spec_of, tags_to_come_of, tests_of
from warren.coordinator.problems import Problem
from warren.coordinator.reported import Reported
from warren.coordinator.sessions import Sessions
from warren.coordinator.state_problems import first_problem, new_problems
from warren.coordinator.work import Work, shown
from warren.model.documents import NetworkSpec
from warren.model.members import Member
from warren.model.services import SERVICE_LABEL, Connector, ConnectorTerms, Service, ServiceTerms, place_of
from warren.model.serving import selected
from warren.model.verified import sign
from warren.proto.control import desired
from warren.proto.control.administration import Actor, ConnectorEntry, ConnectorRequest, ServiceEntry, ServiceRequest
from warren.proto.control.desired_services import (
    connector_state,
    connector_text,
    service_state,
    service_text,
    service_warnings,
)
from warren.proto.control.desired_state import SERVICES_MAX, DesiredState
from warren.proto.control.desired_state import Problem as KeyProblem

SHOWN_MEMBERS_MAX: Final = 32
"""Names in an entry; beyond them the count will do."""

T = TypeVar("T")
N = TypeVar("N", Service, Connector)


@dataclass(frozen=True)
class _Order(Generic[T]):
    """A change of one service or connector, and what is answered when it is made."""

    action: str
    name: str
    said: str
    """Of it in the events."""
    change: Callable[[DesiredState], DesiredState]
    """Raises Problem."""
    answer: Callable[[_Held], T]


class Services:
    def __init__(self, core: Core, sessions: Sessions) -> None:
        self._core = core
        self._sessions = sessions

    async def add(self, actor: Actor, ref: str, request: ServiceRequest) -> ServiceEntry:
        """Problem ``conflict`` when the network has a service of that name, ``limit``, ``invalid``."""

        def change(state: DesiredState) -> DesiredState:
            services = _with("service", state.services, request.name, service_state(request))
            return msgspec.structs.replace(state, services=services)

        def answer(held: _Held) -> ServiceEntry:
            return held.service_entry(_named(held.spec.services, request.name))

        order = _Order("service.add", request.name, service_text(request), change, answer)
        return await self._carry_out(actor, ref, order)

    async def list(self, actor: Actor, ref: str) -> tuple[ServiceEntry, ...]:
        held = await self._held(actor, ref)
        return tuple(held.service_entry(service) for service in held.spec.services)

    async def remove(self, actor: Actor, ref: str, name: str) -> ServiceEntry:
        """Problem ``not-found``; ``conflict`` as long as a connector, a rule or a policy test speaks of it."""

        def change(state: DesiredState) -> DesiredState:
            services = _without("service", state.services, name)
            users = [connector for connector, one in (state.connectors or {}).items() if one.service == name]
            if users:
                which = f"connector {users[0]}" if len(users) == 1 else f"{len(users)} connectors, as {users[0]},"
                verb = "leads" if len(users) == 1 else "lead"
                what = f"{which} {verb} to service {name}"
                raise Problem("conflict", what, "Remove what leads to it first; nothing was changed.")
            return msgspec.structs.replace(state, services=services)

        def answer(held: _Held) -> ServiceEntry:
            return held.service_entry(_named(held.before.services, name))

        return await self._carry_out(actor, ref, _Order("service.remove", name, "", change, answer))

    async def add_connector(self, actor: Actor, ref: str, request: ConnectorRequest) -> ConnectorEntry:
        """Problem ``conflict`` when the network has a connector of that name, or the place or domain is taken at one of
        its members; ``limit``, ``invalid``.
        """

        def change(state: DesiredState) -> DesiredState:
            connectors = _with("connector", state.connectors, request.name, connector_state(request))
            return msgspec.structs.replace(state, connectors=connectors)

        def answer(held: _Held) -> ConnectorEntry:
            return held.connector_entry(_named(held.spec.connectors, request.name))

        order = _Order("connector.add", request.name, connector_text(request), change, answer)
        return await self._carry_out(actor, ref, order)

    async def connectors(self, actor: Actor, ref: str) -> tuple[ConnectorEntry, ...]:
        held = await self._held(actor, ref)
        return tuple(held.connector_entry(connector) for connector in held.spec.connectors)

    async def remove_connector(self, actor: Actor, ref: str, name: str) -> ConnectorEntry:
        """Problem ``not-found``."""

        def change(state: DesiredState) -> DesiredState:
            return msgspec.structs.replace(state, connectors=_without("connector", state.connectors, name))

        def answer(held: _Held) -> ConnectorEntry:
            return held.connector_entry(_named(held.before.connectors, name))

        return await self._carry_out(actor, ref, _Order("connector.remove", name, "", change, answer))

    async def _held(self, actor: Actor, ref: str) -> _Held:
        async with self._core.read() as work:
            network = await work.network_for(actor, ref)
            spec = await spec_of(work, network.key)
            members = await members_of(work, network.key)
            tags = await tags_to_come_of(work, network)
            reported = await Reported.of(work, self._core, self._sessions, network.key)
        return _Held(spec, spec, members, tuple(service_warnings(spec, members, tags)), reported)

    async def _carry_out(self, actor: Actor, ref: str, order: _Order[T]) -> T:
        async def operation(work: Work) -> T:
            await work.authorise(actor)
            network = await work.network_for(actor, ref)
            spec = await spec_of(work, network.key)
            members = await members_of(work, network.key)
            tags = await tags_to_come_of(work, network)
            before = desired.state_of(spec, members, tests_of(network))
            planned = desired.plan(before, order.change(before), members, spec, known_tags=tags)
            problems: Sequence[KeyProblem] = planned.plan.problems
            if problems:
                known = desired.plan(before, before, members, spec, known_tags=tags).plan.problems
                problems = new_problems(problems, known)
            if problems:
                raise _refusal(problems, adds=order.action.endswith(".add"))
            version = next_network_version(work, network)
            work.change(msgspec.structs.replace(network, version=version))
            changed = msgspec.structs.replace(planned.spec, version=version)
            await work.publish(sign(changed, self._core.authority(network)))
            work.event(actor.name, order.action, network.key, order.name, order.said)
            warnings = tuple(service_warnings(changed, members, tags))
            if order.action.endswith(".add"):
                reported = await Reported.of_what_is_new(work, self._core, network.key)
            else:
                reported = await Reported.of(work, self._core, self._sessions, network.key)
            return order.answer(_Held(changed, spec, members, warnings, reported))

        return await self._core.write(operation)


class _Held(NamedTuple):
    """A network as its services are shown: ``before`` and after a change, which may be the same."""

    spec: NetworkSpec
    before: NetworkSpec
    members: Sequence[Member]
    warnings: Sequence[KeyProblem]
    reported: Reported

    def service_entry(self, service: Service) -> ServiceEntry:
        serving = selected(service.at, self.members)
        names = [member.name for member in serving]
        standing = self.reported.standing(f"service {service.name}", serving)
        terms = _fields(service, ServiceTerms)
        return ServiceEntry(
            **{**terms, "port": service.overlay_port},
            name=service.name,
            full_name=f"{service.name}.{SERVICE_LABEL}.{self.spec.name}.{self.spec.suffix}",
            served_by=tuple(sorted(names)[:SHOWN_MEMBERS_MAX]),
            served_by_count=len(names),
            connectors=tuple(one.name for one in self.before.connectors if one.service == service.name),
            warnings=self._warnings(f"services.{service.name}"),
            working_count=standing.done,
            hindered=standing.hindered,
        )

    def connector_entry(self, connector: Connector) -> ConnectorEntry:
        taking = selected(connector.at, self.members)
        names = [member.name for member in taking]
        standing = self.reported.standing(f"connector {connector.name}", taking)
        service = _named(self.before.services, connector.service)
        terms = _fields(connector, ConnectorTerms)
        return ConnectorEntry(
            **{**terms, "listen": str(place_of(connector, service))},
            name=connector.name,
            taken_by=tuple(sorted(names)[:SHOWN_MEMBERS_MAX]),
            taken_by_count=len(names),
            warnings=self._warnings(f"connectors.{connector.name}"),
            working_count=standing.done,
            hindered=standing.hindered,
        )

    def _warnings(self, where: str) -> tuple[str, ...]:
        return tuple(one.what for one in self.warnings if f"{one.where}.".startswith(f"{where}."))


def _with(what: str, states: Mapping[str, T] | None, name: str, state: T) -> dict[str, T]:
    states = states or {}
    if name in states:
        raise Problem("conflict", f"there is a {what} {name}", "Choose another name, or remove it first.")
    if len(states) >= SERVICES_MAX:
        raise Problem("limit", f"there are {SERVICES_MAX} {what}s", "Remove one that is not needed.")
    return {**states, name: state}


def _without(what: str, states: Mapping[str, T] | None, name: str) -> dict[str, T]:
    states = states or {}
    if name not in states:
        raise Problem("not-found", f"there is no {what} {shown(name)}", f"List the {what}s to see their names.")
    return {other: state for other, state in states.items() if other != name}


def _refusal(problems: Sequence[KeyProblem], *, adds: bool) -> Problem:
    first = first_problem(problems)
    if not adds:
        remedy = "Change the policy or its tests first; nothing was changed."
        return Problem("conflict", first, remedy, problems=tuple(problems))
    is_taken = problems[0].where.endswith((".listen", ".domains"))
    return Problem("conflict" if is_taken else "invalid", first, "Nothing was changed.", problems=tuple(problems))


def _named(of: Sequence[N], name: str) -> N:
    return next(one for one in of if one.name == name)


def _fields(value: msgspec.Struct, kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {field: getattr(value, field) for field in kind.__struct_fields__}
