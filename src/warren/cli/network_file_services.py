"""``[service.NAME]`` and ``[connector.NAME]`` of a desired-state file."""

from __future__ import annotations

from typing import Any, Final

from warren.cli import network_values
from warren.cli.file_reader import Reader
from warren.proto.control.desired_state import ConnectorState, ServiceState
from warren.toml.lines import Path

SERVICE: Final = {
    "at": "at",
    "target": "target",
    "protocol": "protocol",
    "port": "port",
    "connect_timeout": "connect_timeout_s",
    "idle": "idle_s",
    "health": "health_s",
    "proxy_protocol": "proxy_protocol",
    "helper": "helper",
    "comment": "comment",
}
CONNECTOR: Final = {
    "at": "at",
    "service": "service",
    "kind": "kind",
    "listen": "listen",
    "domains": "domains",
    "certificate": "certificate",
    "sources": "sources",
    "rate": "rate",
    "streams_max": "streams_max",
    "accepts_proxy_protocol": "accepts_proxy_protocol",
    "comment": "comment",
}
SPANS: Final = {
    "connect_timeout": network_values.connect_timeout,
    "idle": network_values.idle,
    "health": network_values.health,
}


def read_service(reader: Reader, path: Path, table: dict[str, Any]) -> dict[str, Any]:
    """The fields of a :class:`ServiceState`."""
    before = len(reader.problems)
    values = _known(reader, path, table, SERVICE, ("at", "target"))
    reader.choice(table, path, "protocol", ("tcp", "udp"))
    reader.choice(table, path, "helper", ("none", "ftp", "tftp"))
    reader.checked((*path, "target"), table.get("target"), network_values.target)
    for key, check in SPANS.items():
        if key in table:
            values[SERVICE[key]] = reader.checked((*path, key), table[key], check)
    if len(reader.problems) == before:
        reader.converted(path, values, ServiceState)
    return values


def read_connector(reader: Reader, path: Path, table: dict[str, Any]) -> dict[str, Any]:
    """The fields of a :class:`ConnectorState`."""
    before = len(reader.problems)
    values = _known(reader, path, table, CONNECTOR, ("at", "service"))
    reader.choice(table, path, "kind", ("port", "tls", "http"))
    reader.choice(table, path, "certificate", ("acme", "internal", "none"))
    reader.checked((*path, "service"), table.get("service"), network_values.name)
    if type(table.get("listen")) is int:
        values["listen"] = str(table["listen"])
    reader.checked((*path, "listen"), values.get("listen"), network_values.listen)
    for key, check in (("domains", network_values.domain), ("sources", network_values.prefix)):
        if key in table:
            values[key] = reader.texts((*path, key), table[key], check)
            if len(reader.problems) == before:
                values[key] = [check(text) for text in values[key]]  # in the one form that documents have
    if len(reader.problems) == before:
        reader.converted(path, values, ConnectorState)
    return values


def _known(
    reader: Reader, path: Path, table: dict[str, Any], keys: dict[str, str], required: tuple[str, ...]
) -> dict[str, Any]:
    reader.no_strangers(table, path, keys)
    reader.required(table, path, required)
    values = {keys[key]: value for key, value in table.items() if key in keys}
    if "at" in table:
        values["at"] = reader.texts((*path, "at"), table["at"], network_values.selector)
    reader.checked((*path, "comment"), table.get("comment"), network_values.comment)
    return values
