"""Relays: TURN servers that the members of a network, or of all networks, may use, and what they need to do so.

Members are told where a relay is by the NetworkSpec, which everybody may see, and get a name and password for it over
their own link. These are made from the secret that the coordinator shares with the relay, as
draft-uberti-behave-turn-rest describes and coturn's ``use-auth-secret`` expects, so that a
relay needs no list of members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from warren.coordinator.conditions import at_most, equal
from warren.coordinator.core import Core
from warren.coordinator.network_rows import next_network_version, spec_of
from warren.coordinator.problems import Problem
from warren.coordinator.relay_rows import relay_of, relays_for
from warren.coordinator.rows import NetworkRow, RelayRow
from warren.coordinator.work import Work, shown, when
from warren.identity.signing import VerifyKey
from warren.model.documents import Relay
from warren.model.verified import sign
from warren.proto.control.administration import Actor, RelayEntry, RelayRequest
from warren.proto.control.messages import RelayAccess, RelayCredential
from warren.proto.turn.credentials import rest_password, rest_username

RELAYS_MAX: Final = 16
"""Of one network, those of all networks counted in: as many as a NetworkSpec has room for."""
ACCESS_S: Final = 24 * 3600
"""A name and password are good for at least that long, so that relays can be used while the coordinator is away."""
ACCESS_STEP_S: Final = 6 * 3600
"""They stay the same for that long: a node is told again when they have changed."""
UNSEEN_S: Final = 7 * 86_400
"""A coordinator's own relay is forgotten when that coordinator has not run for so long."""


class Relays:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: dict[bytes, tuple[int, tuple[RelayRow, ...]]] = {}
        """By network, with the revision at which they were read."""

    async def add(self, actor: Actor, ref: str, request: RelayRequest) -> RelayEntry:
        """Problem ``conflict`` when the network has a relay of that name, ``limit``, ``invalid``."""
        relay = _relay(request)

        async def operation(work: Work) -> RelayEntry:
            await work.authorise(actor)
            network = await work.network_for(actor, ref)
            rows = await relays_for(work, network.key)
            if any(row.name == relay.name for row in rows):
                raise Problem("conflict", f"there is a relay {relay.name}", "Choose another name, or remove it first.")
            if len(rows) >= RELAYS_MAX:
                raise Problem("limit", f"there are {RELAYS_MAX} relays", "Remove one that is not needed.")
            row = RelayRow(
                id=self._core.random(8).hex(),
                network=network.key,
                name=relay.name,
                relay=msgspec.msgpack.encode(relay),
                secret=request.secret.encode(),
                created=work.now,
                seen=work.now,
            )
            await work.put(row)
            await sign_relays(work, self._core, network)
            work.event(actor.name, "relay.add", network.key, relay.name, ", ".join(relay.hosts))
            return _entry(row)

        return await self._core.write(operation)

    async def list(self, actor: Actor, ref: str) -> tuple[RelayEntry, ...]:
        async with self._core.read() as work:
            network = await work.network_for(actor, ref)
            return tuple(_entry(row) for row in await relays_for(work, network.key))

    async def remove(self, actor: Actor, ref: str, name: str) -> RelayEntry:
        """Problem ``not-found``; ``conflict`` for one that is of all networks."""

        async def operation(work: Work) -> RelayEntry:
            await work.authorise(actor)
            network = await work.network_for(actor, ref)
            row = next((row for row in await relays_for(work, network.key) if row.name == name), None)
            if row is None:
                raise Problem("not-found", f"there is no relay {shown(name)}", "List the relays to see their names.")
            if row.network is None:
                raise Problem(
                    "conflict",
                    f"{name} is a coordinator's own relay, of all networks",
                    "Start that coordinator with --no-relay.",
                )
            await work.delete(RelayRow, equal("id", row.id))
            await sign_relays(work, self._core, network)
            work.event(actor.name, "relay.remove", network.key, name)
            return _entry(row)

        return await self._core.write(operation)

    # The coordinator's own

    async def offer_own(self, relay: Relay, secret: bytes) -> None:
        """The coordinator itself runs ``relay`` for all networks. It is known by its name; again replaces it."""

        async def operation(work: Work) -> None:
            rows = await work.find(RelayRow, equal("name", relay.name))
            known = next((row for row in rows if row.network is None), None)
            row = RelayRow(
                id=self._core.random(8).hex() if known is None else known.id,
                network=None,
                name=relay.name,
                relay=msgspec.msgpack.encode(relay),
                secret=secret,
                created=work.now if known is None else known.created,
                seen=work.now,
            )
            await work.put(row)
            await _sign_all(work, self._core)

        await self._core.write(operation)

    async def withdraw_own(self, name: str) -> None:
        """The coordinator runs that relay no longer; nothing happens when it is not known."""

        async def operation(work: Work) -> None:
            for row in await work.find(RelayRow, equal("name", name)):
                if row.network is None:
                    await work.delete(RelayRow, equal("id", row.id))
            await _sign_all(work, self._core)

        await self._core.write(operation)

    # For members

    async def access(self, network: bytes, node: bytes) -> RelayAccess:
        """The same value for hours, and another when the relays change. May be asked at every change of the map."""
        reached = self._core.reached.get(network, 0)
        known = self._known.get(network)
        if known is None or known[0] < reached:
            async with self._core.read() as work:
                known = self._known[network] = reached, tuple(await relays_for(work, network))
        expires = (int(self._core.now()) // ACCESS_STEP_S + 1) * ACCESS_STEP_S + ACCESS_S
        username = rest_username(str(VerifyKey(node)), expires)
        return RelayAccess(
            credentials=tuple(
                RelayCredential(
                    relay=row.name,
                    username=username,
                    password=rest_password(row.secret, username),
                    not_after=expires,
                )
                for row in known[1]
            )
        )


async def sign_relays(work: Work, core: Core, network: NetworkRow) -> None:
    """See to it that the NetworkSpec names the relays there are."""
    wanted = tuple(relay_of(row) for row in await relays_for(work, network.key))
    spec = await spec_of(work, network.key)
    if spec.relays == wanted:
        return
    row = await work.known_network(network.key)
    version = next_network_version(work, row)
    work.change(msgspec.structs.replace(row, version=version))
    await work.publish(sign(msgspec.structs.replace(spec, version=version, relays=wanted), core.authority(row)))


async def forget_unseen(work: Work, core: Core) -> int:
    """Relays of coordinators that have not run for long; how many went."""
    gone = [row for row in await work.find(RelayRow, at_most("seen", work.now - UNSEEN_S)) if row.network is None]
    for row in gone:
        await work.delete(RelayRow, equal("id", row.id))
    if gone:
        await _sign_all(work, core)
    return len(gone)


async def _sign_all(work: Work, core: Core) -> None:
    for network in await work.find(NetworkRow):
        await sign_relays(work, core, network)


def _relay(request: RelayRequest) -> Relay:
    """Raises Problem ``invalid``."""
    try:
        pin = None if request.certificate_sha256 is None else bytes.fromhex(request.certificate_sha256)
        return Relay(
            name=request.name,
            hosts=_distinct(request.hosts),
            udp_port=request.udp_port,
            tcp_port=request.tcp_port,
            tls_port=request.tls_port,
            certificate_sha256=pin,
        )
    except ValueError as error:
        raise Problem("invalid", str(error), "Correct the relay's description; nothing was changed.") from None


def _distinct(hosts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(hosts))


def _entry(row: RelayRow) -> RelayEntry:
    relay = relay_of(row)
    pin = relay.certificate_sha256
    return RelayEntry(
        name=relay.name,
        hosts=relay.hosts,
        udp_port=relay.udp_port,
        tcp_port=relay.tcp_port,
        tls_port=relay.tls_port,
        certificate_sha256=None if pin is None else pin.hex(),
        own=row.network is None,
        created=when(row.created),
    )
