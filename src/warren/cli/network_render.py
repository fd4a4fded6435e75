"""Desired state written down, as :mod:`warren.cli.network_file` reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from warren.proto.control.administration import DesiredState
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
    for name, member in state.members.items():
        lines += ["", f"[members.{name}]", f"tags = {_list(member.tags)}", f"routes = {_list(member.routes)}"]
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


def _quoted(text: str) -> str:
    """A basic string; JSON's escapes are TOML's, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, texts))}]"
