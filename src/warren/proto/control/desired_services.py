"""Services and connectors in a desired state: what they are as documents and as lines of a plan, what is wrong with
them, and what is perhaps not meant.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import msgspec

from warren.model.clashes import SERVICE_ADDRESSES_MAX, clashes, closed_target, colliding_service, permitted_place
from warren.model.documents import NetworkSpec
from warren.model.envelope import PAYLOAD_BYTES_MAX
from warren.model.members import Member
from warren.model.policy import Flow, Judge
from warren.model.services import (
    Connector,
    ConnectorTerms,
    Service,
    ServiceTerms,
    mismatch,
)
from warren.model.serving import selected
from warren.proto.control.desired_problems import Known, like
from warren.proto.control.desired_state import ConnectorState, Problem, ServiceState
from warren.proto.control.spans import exact_span

SPEC_BYTES_MAX: Final = PAYLOAD_BYTES_MAX - (64 << 10)
"""Of all that an operator decides; the rest is for coordinators and relays, which come by themselves."""
_KINDS: Final = re.compile(r"members$|member:|tag:")
_PAIRS_MAX: Final = 16
"""Members of a connector, and of its service, for whom the policy is asked: a warning needs no more."""


def service_of(name: str, state: ServiceTerms) -> Service:
    return Service(name=name, **_fields(state, ServiceTerms))


def service_state(service: ServiceTerms) -> ServiceState:
    return ServiceState(**_fields(service, ServiceTerms))


def connector_of(name: str, state: ConnectorTerms) -> Connector:
    return Connector(name=name, **_fields(state, ConnectorTerms))


def connector_state(connector: ConnectorTerms) -> ConnectorState:
    return ConnectorState(**_fields(connector, ConnectorTerms))


def _fields(value: msgspec.Struct, kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {field: getattr(value, field) for field in kind.__struct_fields__}


def service_text(service: ServiceTerms) -> str:
    """A service as one line: ``tcp 5432 at member:db to localhost:5432``, and whatever is not as by default."""
    said = [
        *(["helper " + service.helper] if service.helper != "none" else []),
        *(["PROXY protocol"] if service.proxy_protocol else []),
        *_span("connecting within", service.connect_timeout_s, 5),
        *_span("idle", service.idle_s, None),
        *(["no health check"] if service.health_s == 0 else _span("health check each", service.health_s, 10)),
    ]
    where = f"{service.protocol} {service.overlay_port} at {', '.join(service.at)} to {service.target}"
    return _line(where, said, service.comment)


def connector_text(connector: ConnectorTerms) -> str:
    """A connector as one line: ``http shop.example at tag:gateway to service shop``, and so on."""
    said = [
        *([f"certificate {connector.certificate}"] if connector.certificate != "acme" else []),
        *([f"from {', '.join(connector.sources)}"] if connector.sources else []),
        *([f"{connector.rate:g} a second of each source"] if connector.rate is not None else []),
        *([f"{connector.streams_max} at once"] if connector.streams_max != 4096 else []),
        *(["takes PROXY protocol"] if connector.accepts_proxy_protocol else []),
    ]
    what = " ".join((connector.kind, *([", ".join(connector.domains)] if connector.domains else ())))
    listen = f" on {connector.listen}" if connector.listen else ""
    return _line(f"{what}{listen} at {', '.join(connector.at)} to service {connector.service}", said, connector.comment)


def _span(what: str, seconds: int | None, usual: int | None) -> list[str]:
    return [] if seconds is None or seconds == usual else [f"{what} {exact_span(seconds)}"]


def _line(text: str, said: Sequence[str], comment: str) -> str:
    line = "; ".join((text, *said))
    return f"{line} ({comment})" if comment else line


# What is wrong


def service_problems(spec: NetworkSpec, members: Sequence[Member], before: NetworkSpec) -> Iterator[Problem]:
    """Of the services and connectors of ``spec``; ``members`` are as they will be. Of two that cannot be together the
    one that is in the spec ``before`` has the place, and the other the blame.
    """
    services = {service.name: service for service in spec.services}
    collision = colliding_service(spec.services)
    if collision is not None:
        one, other = collision
        yield Problem(
            where=f"services.{other}", what=f"it would have the addresses of service {one}; choose another name"
        )
    addresses = sum(len(selected(service.at, members)) for service in spec.services)
    if addresses > SERVICE_ADDRESSES_MAX:
        what = f"members would serve {addresses} services, counted at each; {SERVICE_ADDRESSES_MAX} are the most"
        yield Problem(where="services", what=f"{what}; have fewer members serve them")
    for connector in spec.connectors:
        service = services.get(connector.service)
        if service is None:
            what = f"there is no service {connector.service}{like(connector.service, services)}"
            yield Problem(where=f"connectors.{connector.name}.service", what=what)
        else:
            what_not = mismatch(connector, service)
            if what_not is not None:
                yield Problem(where=f"connectors.{connector.name}", what=what_not)
    old = frozenset(before.connectors)
    for clash in clashes(sorted(spec.connectors, key=lambda connector: connector not in old), services, members):
        yield Problem(where=f"connectors.{clash.connector}.{clash.field}", what=clash.what)
    size = len(msgspec.msgpack.encode(spec))
    if size > SPEC_BYTES_MAX:
        what = f"policy, services and connectors make a document of {size} bytes; {SPEC_BYTES_MAX} are the most"
        yield Problem(where=_largest(spec), what=f"{what}; say it with fewer or shorter entries")


def _largest(spec: NetworkSpec) -> str:
    parts = {"policy": spec.policy, "services": spec.services, "connectors": spec.connectors}
    return max(parts, key=lambda part: len(msgspec.msgpack.encode(parts[part])))


# What is perhaps not meant


def service_warnings(spec: NetworkSpec, members: Sequence[Member], known_tags: Collection[str]) -> Iterator[Problem]:
    """Selectors that nobody matches, connectors whose streams the policy does not let pass, and what members take only
    if their operators have said so.
    """
    known = Known(spec, members, known_tags)
    for service in spec.services:
        yield from _at_warnings(f"services.{service.name}.at", service.at, members, known)
        what = closed_target(service, spec, members)
        if what is not None:
            yield Problem(where=f"services.{service.name}.target", what=what)
    judge = Judge(spec.policy, members, spec.services)
    services = {service.name: service for service in spec.services}
    for connector in spec.connectors:
        yield from _at_warnings(f"connectors.{connector.name}.at", connector.at, members, known)
        goal = services.get(connector.service)
        if goal is not None:
            what = permitted_place(connector, goal)
            if what is not None:
                yield Problem(where=f"connectors.{connector.name}.listen", what=what)
            what = _denied(connector, goal, members, judge)
            if what is not None:
                yield Problem(where=f"connectors.{connector.name}", what=what)


def _at_warnings(where: str, at: Sequence[str], members: Sequence[Member], known: Known) -> Iterator[Problem]:
    for number, selector in enumerate(at):
        what = known.error(selector)
        if what is None and not _KINDS.match(selector) and not selected((selector,), members):
            what = f"no member has its own address in {selector}"
        if what is not None:
            yield Problem(where=f"{where}[{number}]", what=what)


def _denied(connector: Connector, service: Service, members: Sequence[Member], judge: Judge) -> str | None:
    takers = selected(connector.at, members)[:_PAIRS_MAX]
    servers = selected(service.at, members)[:_PAIRS_MAX]
    for taker in takers:
        flows = [
            Flow(taker.address6, server.service_address(service.name), service.protocol, service.overlay_port)
            for server in servers
            if server.name != taker.name
        ]
        if flows and not any(judge.verdict(flow).allowed for flow in flows):
            return (
                f"the policy does not let {taker.name} reach service {service.name} "
                f"({service.protocol} {service.overlay_port}), so all its streams are refused there"
            )
    return None
