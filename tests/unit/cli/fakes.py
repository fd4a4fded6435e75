"""A coordinator's client without a coordinator, and an agent's status, for commands to talk to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Self

import pytest

from warren.api import rest
from warren.errors import OperationFailed
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Rule
from warren.model.tickets import Access, access_text
from warren.proto.control import local
from warren.proto.control.administration import (
    ConnectorEntry,
    ConnectorRequest,
    Event,
    Invite,
    InviteRequest,
    MemberChange,
    MemberStatus,
    Network,
    NetworkRequest,
    NewInvite,
    RelayEntry,
    RelayRequest,
    Revoked,
    ServiceEntry,
    ServiceRequest,
)
from warren.proto.control.desired_state import ApplyRequest, DesiredState, Plan
from warren.proto.control.messages import Task

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
KEY: VerifyKey = SigningKey(b"\1" * 32).verify_key
ACCESS = access_text(Access(("https://127.0.0.1:8443",), KEY, "wrt_" + "s" * 40))
TICKET = "warren-ticket:" + "A" * 480
NETWORK = Network(
    id=str(KEY),
    name="home",
    prefix6="fd00:1:2::/48",
    prefix4="10.77.0.0/16",
    suffix="internal",
    lease_s=86_400,
    version=4,
    revision=9,
    members=1,
    created=NOW - timedelta(days=3),
)
STATE = DesiredState(
    suffix="internal",
    lease_s=86_400,
    policy=(Rule(action="allow", sources=("members",), destinations=("members",), comment="all"),),
)
MEMBER = MemberStatus(
    id=str(KEY),
    name="web1",
    prefix6="fd00:1:2:1::/64",
    address6="fd00:1:2:1::1",
    address4="10.77.0.1",
    tags=("web",),
    routes=(),
    ephemeral=False,
    joined=NOW,
    lease_ends=NOW + timedelta(hours=23),
    connected=True,
    connected_since=NOW - timedelta(minutes=7),
    last_seen=NOW,
    reachability="public",
    observed="192.0.2.1",
    candidates=(),
    stated=(),
    interfaces=(),
    tasks=(),
    version="",
    system="",
)


RELAY = RelayEntry(
    name="one",
    hosts=("192.0.2.7", "relay.example"),
    udp_port=3478,
    tcp_port=None,
    tls_port=443,
    certificate_sha256="ab" * 32,
    own=False,
    created=NOW,
)
SERVICE = ServiceEntry(
    name="shop",
    at=("tag:web",),
    target="localhost:8080",
    port=80,
    full_name="shop.svc.home.internal",
    served_by=("web1",),
    served_by_count=1,
    working_count=1,
    connectors=("site",),
    warnings=("no member has the tag wbe, so tag:wbe matches nobody",),
)
CONNECTOR = ConnectorEntry(
    name="site",
    at=("tag:gw",),
    service="shop",
    kind="http",
    listen="*:443",
    domains=("shop.example",),
    taken_by=("gw1",),
    taken_by_count=1,
    working_count=1,
    warnings=(),
)


class FakeAdmin:
    """Stands for AdminClient: answers from its attributes, and writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.planned = Plan(version=4, changes=(), problems=())
        self.apply_error: Exception | None = None
        self.networks_there: tuple[Network, ...] = (NETWORK,)

    def __call__(self, access: Access) -> Self:
        self.asked.append(("access", access.secret))
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def networks(self) -> tuple[Network, ...]:
        return self.networks_there

    async def network(self, network: str) -> Network:
        if network != "home":
            raise OperationFailed(f"there is no network {network}")
        return NETWORK

    async def create_network(self, request: NetworkRequest) -> Network:
        self.asked.append(("create_network", request))
        return NETWORK

    async def desired_state(self, network: str) -> DesiredState:
        return STATE

    async def plan(self, network: str, state: DesiredState) -> Plan:
        self.asked.append(("plan", network, state))
        return self.planned

    async def apply(self, network: str, request: ApplyRequest) -> Plan:
        self.asked.append(("apply", network, request))
        if self.apply_error is not None:
            raise self.apply_error
        return self.planned

    async def create_invite(self, network: str, request: InviteRequest) -> NewInvite:
        self.asked.append(("create_invite", network, request))
        return NewInvite(
            id="i1",
            uses=request.uses,
            used=0,
            tags=request.tags,
            ephemeral=request.ephemeral,
            created=NOW,
            expires=NOW + timedelta(seconds=request.ttl_s),
            revoked=False,
            ticket=TICKET,
        )

    async def invites(self, network: str) -> tuple[Invite, ...]:
        def invite(used: int, revoked: bool, ttl_s: int) -> Invite:
            return Invite(
                id=f"i{used}",
                uses=3,
                used=used,
                tags=("web",),
                ephemeral=True,
                created=NOW - timedelta(hours=2),
                expires=NOW + timedelta(seconds=ttl_s),
                revoked=revoked,
            )

        return invite(0, False, 1800), invite(1, False, -1800), invite(2, True, 1800), invite(3, False, 1800)

    async def revoke_invite(self, network: str, invite: str) -> Invite:
        self.asked.append(("revoke_invite", network, invite))
        return (await self.invites(network))[2]

    async def add_relay(self, network: str, request: RelayRequest) -> RelayEntry:
        self.asked.append(("add_relay", network, request))
        return RELAY

    async def relays(self, network: str) -> tuple[RelayEntry, ...]:
        return (RELAY,)

    async def remove_relay(self, network: str, relay: str) -> RelayEntry:
        self.asked.append(("remove_relay", network, relay))
        return RELAY

    async def add_service(self, network: str, request: ServiceRequest) -> ServiceEntry:
        self.asked.append(("add_service", network, request))
        return SERVICE

    async def services(self, network: str) -> tuple[ServiceEntry, ...]:
        return (SERVICE,)

    async def remove_service(self, network: str, service: str) -> ServiceEntry:
        self.asked.append(("remove_service", network, service))
        return SERVICE

    async def add_connector(self, network: str, request: ConnectorRequest) -> ConnectorEntry:
        self.asked.append(("add_connector", network, request))
        return CONNECTOR

    async def connectors(self, network: str) -> tuple[ConnectorEntry, ...]:
        return (CONNECTOR,)

    async def remove_connector(self, network: str, connector: str) -> ConnectorEntry:
        self.asked.append(("remove_connector", network, connector))
        return CONNECTOR

    async def members(self, network: str) -> tuple[MemberStatus, ...]:
        return (MEMBER,)

    async def member(self, network: str, member: str) -> MemberStatus:
        if member != "web1":
            raise OperationFailed(f"home has no member {member}")
        return MEMBER

    async def change_member(self, network: str, member: str, change: MemberChange) -> MemberStatus:
        self.asked.append(("change_member", network, member, change))
        return MEMBER

    async def revoke_member(self, network: str, member: str) -> Revoked:
        self.asked.append(("revoke_member", network, member))
        return Revoked(id=str(KEY), name="web1", at=NOW, lease_ended=NOW + timedelta(hours=23))

    async def events(self, network: str | None, *, after: int | None, limit: int) -> tuple[Event, ...]:
        self.asked.append(("events", network, after, limit))
        return (
            Event(
                sequence=7,
                at=NOW,
                actor="token:first",
                action="member.join",
                network=str(KEY),
                subject="web1",
                detail="with a\x1b[31m bad name",
            ),
        )


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> FakeAdmin:
    fake = FakeAdmin()
    monkeypatch.setattr(rest, "AdminClient", fake)
    monkeypatch.setenv("WARREN_ACCESS", ACCESS)
    monkeypatch.setattr("warren.cli.output.utc_now", lambda: NOW)
    return fake


def peer(name: str, number: int, **changes: Any) -> local.Peer:
    values: dict[str, Any] = {
        "id": str(KEY),
        "name": name,
        "fqdn": f"{name}.home.internal",
        "addresses": (f"fd5c:d2ae:9f4b:{number}::1", f"10.77.0.{number}"),
        "tags": (),
        "routes": (),
        "lease_ends": NOW + timedelta(hours=23),
        "state": "connected",
        "path": "direct",
        "endpoint": "[2001:db8:0:1::10]:51820",
        "rtt_ms": 0.4213,
        "handshake_age_s": 75.0,
        "tx_bytes": 1_234_567,
        "rx_bytes": 987,
        "candidates": (),
    }
    return local.Peer(**{**values, **changes})


def membership(**changes: Any) -> local.Membership:
    values: dict[str, Any] = {
        "network": "home",
        "network_id": str(KEY),
        "node_id": str(KEY),
        "name": "alice",
        "fqdn": "alice.home.internal",
        "interface": "wn-home",
        "engine": "userspace",
        "listen_port": 41641,
        "wireguard_key": "",
        "addresses": ("fd5c:d2ae:9f4b:1::1/64", "10.77.0.1/32"),
        "tags": ("admin",),
        "routes": ("192.168.7.0/24",),
        "ephemeral": False,
        "state": "degraded",
        "lease_ends": NOW + timedelta(hours=22),
        "map_version": 3,
        "revision": 17,
        "reachability": "hidden",
        "stated": ("198.51.100.7:41641",),
        "candidates": ("192.0.2.4:41641",),
        "coordinator": local.CoordinatorLink(
            url="https://c.example.com:8443",
            connected=True,
            since=NOW - timedelta(minutes=5),
            error="",
            clock_offset_s=0.01,
            observed="192.0.2.4",
        ),
        "tasks": (
            Task(name="address fd5c:d2ae:9f4b:1::1/64", state="done"),
            Task(name="dns", state="failed", reason="port 53 is taken by dnsmasq; stop it"),
        ),
        "peers": (
            peer("web1", 2),
            peer("bob", 3, state="unreachable", endpoint="", path="none", rtt_ms=None, handshake_age_s=None),
        ),
        "warnings": ("this host's clock is 3 hours behind the coordinator's",),
    }
    return local.Membership(**{**values, **changes})


def agent_status(*networks: local.Membership) -> local.AgentStatus:
    return local.AgentStatus(
        version="1",
        pid=1,
        started=NOW,
        host="alice",
        engine="userspace",
        engine_why="it was asked for",
        interfaces=(),
        networks=networks,
    )


def stream(name: str, **changes: Any) -> local.Stream:
    values: dict[str, Any] = {
        "id": name,
        "kind": "forward" if ": " not in name else name.partition(": ")[2].partition(" ")[0],
        "origin": "network",
        "target": "localhost:80",
        "backends": (),
        "state": "listening",
        "reason": "",
        "places": (),
        "open": 0,
        "opened": 0,
        "refused": {},
        "last_refusal": "",
        "bytes_in": 0,
        "bytes_out": 0,
    }
    return local.Stream(**{**values, **changes})
