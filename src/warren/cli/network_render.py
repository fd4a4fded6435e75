"""Desired state written down, as :mod:`warren.cli.network_file` reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec

from warren.cli.network_file_services import CONNECTOR, SERVICE, SPANS
from warren.proto.control.desired_state import ConnectorState, DesiredState, ServiceState
from warren.proto.control.spans import exact_span


def render(network: str, state: DesiredState) -> str:
    """``state`` as a file that :func:`~warren.cli.network_file.read` reads back as the same."""
    lines = [f"network = {_quoted(network)}"]
    if state.suffix is not None:
        lines.append(f"suffix = {_quoted(state.suffix)}")
    if state.lease_s is not None:
        lines.append(f"lease = {_quoted(exact_span(state.lease_s))}")
    if state.relay_members is not None:
        lines.append(f"relay_members = {_list(state.relay_members)}")
    if not state.policy:
        lines.append("policy = []")
    lines += [f"{what} = {{}}" for what, there in _named(state).items() if there == {}]
    for name, member in state.members.items():
        lines += ["", f"[members.{name}]", f"tags = {_list(member.tags)}", f"routes = {_list(member.routes)}"]
    for what, there in _named(state).items():
        for name, fields in (there or {}).items():
            lines += ["", f"[{what}.{name}]", *(f"{key} = {_value(key, value)}" for key, value in fields)]
    for rule in state.policy:
        lines += ["", "[[policy]]", f"action = {_quoted(rule.action)}"]
        lines += [f"from = {_list(rule.sources)}", f"to = {_list(rule.destinations)}"]
        if rule.protocol != "any":
            lines.append(f"protocol = {_quoted(rule.protocol)}")
        if rule.ports:
            lines.append(f"ports = {_list(rule.ports)}")
        if rule.comment:
            lines.append(f"comment = {_quoted(rule.comment)}")
    for test in state.tests:
        lines += ["", "[[test]]", f"from = {_quoted(test.source)}", f"to = {_quoted(test.destination)}"]
        lines.append(f"protocol = {_quoted(test.protocol)}")
        if test.port is not None:
            lines.append(f"port = {test.port}")
        lines.append(f"expect = {_quoted(test.expect)}")
    return "\n".join(lines) + "\n"


def _named(state: DesiredState) -> dict[str, dict[str, list[tuple[str, object]]] | None]:
    """Services and connectors, with the keys and values of each that are not as they are by default."""
    found: dict[str, dict[str, list[tuple[str, object]]] | None] = {}
    for what, keys, states in (("service", SERVICE, state.services), ("connector", CONNECTOR, state.connectors)):
        found[what] = None if states is None else {name: _fields(one, keys) for name, one in states.items()}
    return found


def _fields(state: ServiceState | ConnectorState, keys: dict[str, str]) -> list[tuple[str, object]]:
    usual = {field.encode_name: field.default for field in msgspec.structs.fields(state)}
    values = ((key, field, getattr(state, field)) for key, field in keys.items())
    return [(key, value) for key, field, value in values if value != usual[field]]


def _value(key: str, value: object) -> str:
    if isinstance(value, tuple):
        return _list(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and key in SPANS:
        return _quoted(exact_span(value))
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    """A basic string; JSON's escapes are TOML's, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, texts))}]"
