"""Whom ``warren doctor`` asks: the relays and coordinators that the agent's documents name. Reads only, and touches
nothing: the agent may run at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from warren.agent.config import AgentConfig, load, locate
from warren.agent.places import places
from warren.agent.state import NETWORKS, Settings, networks
from warren.doctor.observe import StunTarget, Targets
from warren.doctor.web import CoordinatorTarget, TlsTarget
from warren.errors import MalformedPacket, OperationFailed, UsageError
from warren.identity.signing import VerifyKey
from warren.model.documents import Coordinator, NetworkSpec
from warren.model.envelope import Envelope
from warren.model.verified import verify

_SERVERS_MAX: Final = 16
"""Of each kind: who has more networks than this learns nothing new from the others."""


class _Documents(msgspec.Struct):
    envelopes: tuple[Envelope, ...]


def targets_of(state: str | None, named: tuple[StunTarget, ...]) -> tuple[Targets, list[str]]:
    """The targets: the STUN servers that were ``named``, else the relays; and a sentence for what could not be read."""
    directory = places(state=state).state
    passed_over: list[str] = []
    settings: list[Settings] = []
    specs: list[NetworkSpec] = []
    try:
        for network in networks(directory):
            path = directory / NETWORKS / str(network)
            settings.append(_settings(path))
            specs += _specs(path, network)
    except OSError as error:
        passed_over.append(f"the networks of this machine: {error.filename or directory} ({error.strerror})")
    config = _config(directory, passed_over)
    found: list[tuple[str, Coordinator]] = []
    for name, those in [
        *((one.name, one.coordinators) for one in settings),
        *((spec.name, spec.coordinators) for spec in specs),
    ]:
        found += [(name, one) for one in those]
    relays = [relay for spec in specs for relay in spec.relays]
    stun = [StunTarget(host, relay.udp_port) for relay in relays if relay.udp_port for host in relay.hosts]
    tls = [
        TlsTarget(f"relay {relay.name}", host, relay.tls_port, relay.certificate_sha256)
        for relay in relays
        if relay.tls_port
        for host in relay.hosts
    ]
    coordinators = {
        one.url: CoordinatorTarget(f"coordinator of {name}", one.url, VerifyKey(one.key)) for name, one in found
    }
    own = [one.interface for one in settings if one.interface]
    targets = Targets(
        stun=named or tuple(dict.fromkeys(stun))[:_SERVERS_MAX],
        tls=tuple(dict.fromkeys(tls))[:_SERVERS_MAX],
        coordinators=tuple(coordinators.values())[:_SERVERS_MAX],
        ignored=(*own, "w-*", *config.ignored_interfaces),  # w-NAME is what the agent calls its interfaces
        proxy=config.proxy,
    )
    return targets, passed_over


def _config(directory: Path, passed_over: list[str]) -> AgentConfig:
    """What agent.toml says of interfaces and a proxy, as far as it can be read."""
    try:
        return load(locate(directory))
    except (OperationFailed, UsageError) as error:
        passed_over.append(str(error))
        return AgentConfig()
    except OSError as error:
        passed_over.append(f"agent.toml: {error.filename or directory} ({error.strerror})")
        return AgentConfig()


def _content(path: Path) -> bytes:
    """Without the line that agent/kept.py writes above it; empty when there is no such file."""
    try:
        return path.read_bytes().partition(b"\n")[2]
    except FileNotFoundError:
        return b""


def _settings(path: Path) -> Settings:
    try:
        return msgspec.json.decode(_content(path / "settings"), type=Settings)
    except (msgspec.DecodeError, RecursionError):
        return Settings()


def _specs(path: Path, network: VerifyKey) -> Iterator[NetworkSpec]:
    try:
        documents = msgspec.msgpack.decode(_content(path / "documents"), type=_Documents)
    except (msgspec.DecodeError, RecursionError):
        return
    for envelope in documents.envelopes:
        if envelope.kind == NetworkSpec.KIND:
            try:
                document = verify(envelope, network).document
            except MalformedPacket:
                continue
            if isinstance(document, NetworkSpec):
                yield document
