"""The coordinator's REST API for administrators, as methods that take and give values.

Its errors are the coordinator's problems (RFC 9457), sorted by who can do something about them:

==============================================  ========================================================
the coordinator says                            here
==============================================  ========================================================
400, 413, 415, 422: invalid, malformed …        :class:`RequestInvalid` (a UsageError)
401, 403, 404, 409, 429 and any other           OperationFailed
503, or nobody answers                          Unreachable
==============================================  ========================================================
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from warren.api.trust import Trusted, establish_trust, why_not
from warren.errors import OperationFailed, Unreachable, UsageError, WarrenError, problem_line
from warren.model.tickets import Access
from warren.proto.control.administration import (
    ConnectorEntry,
    ConnectorRequest,
    Event,
    Invite,
    InviteRequest,
    Member,
    MemberChange,
    MemberStatus,
    Network,
    NetworkRequest,
    NetworkStatus,
    NewInvite,
    NewToken,
    RelayEntry,
    RelayRequest,
    Revoked,
    ServiceEntry,
    ServiceRequest,
    Token,
    TokenRequest,
)
from warren.proto.control.desired_state import ApplyRequest, DesiredState, Plan, Problem

if TYPE_CHECKING:
    import httpx2

ANSWER_WITHIN_S: Final = 30.0
_PART: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_INVALID: Final = frozenset({400, 413, 415, 422})

T = TypeVar("T")


class RequestInvalid(UsageError):
    """The coordinator found something wrong in what was asked. ``problems``: all of it, place by place."""

    def __init__(self, sentence: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(sentence)
        self.problems = problems


class AdminClient:
    """Use as ``async with AdminClient(access) as client:``. Networks and members are named by name or key text.

    Raises as the module says. A write whose answer was lost may have been done, and the error says so.
    """

    def __init__(self, access: Access, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._access = access
        self._wall_clock = wall_clock
        self._trusted: Trusted | None = None
        self._client: httpx2.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"AdminClient({self._access.key.short})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._disconnect()

    @property
    def url(self) -> str:
        """Which of the coordinator's addresses answered; empty before the first request."""
        return self._trusted.url if self._trusted is not None else ""

    async def clock_offset_s(self) -> float:
        """The coordinator's clock minus this host's."""
        _, trusted = await self._connected()
        return trusted.offset_s

    # Tokens

    async def create_token(self, request: TokenRequest) -> NewToken:
        return await self._ask("POST", "/v1/tokens", NewToken, request)

    async def tokens(self) -> tuple[Token, ...]:
        return await self._ask("GET", "/v1/tokens", tuple[Token, ...])

    async def revoke_token(self, token: str) -> Token:
        return await self._ask("DELETE", f"/v1/tokens/{_part(token)}", Token)

    # Networks

    async def create_network(self, request: NetworkRequest) -> Network:
        return await self._ask("POST", "/v1/networks", Network, request)

    async def networks(self) -> tuple[Network, ...]:
        return await self._ask("GET", "/v1/networks", tuple[Network, ...])

    async def network(self, network: str) -> Network:
        return await self._ask("GET", _of(network), Network)

    async def desired_state(self, network: str) -> DesiredState:
        return await self._ask("GET", _of(network, "state"), DesiredState)

    async def plan(self, network: str, state: DesiredState) -> Plan:
        return await self._ask("POST", _of(network, "plan"), Plan, state)

    async def apply(self, network: str, request: ApplyRequest) -> Plan:
        return await self._ask("POST", _of(network, "apply"), Plan, request)

    # Invites

    async def create_invite(self, network: str, request: InviteRequest) -> NewInvite:
        return await self._ask("POST", _of(network, "invites"), NewInvite, request)

    async def invites(self, network: str) -> tuple[Invite, ...]:
        return await self._ask("GET", _of(network, "invites"), tuple[Invite, ...])

    async def revoke_invite(self, network: str, invite: str) -> Invite:
        return await self._ask("DELETE", _of(network, "invites", invite), Invite)

    # Relays

    async def add_relay(self, network: str, request: RelayRequest) -> RelayEntry:
        return await self._ask("POST", _of(network, "relays"), RelayEntry, request)

    async def relays(self, network: str) -> tuple[RelayEntry, ...]:
        return await self._ask("GET", _of(network, "relays"), tuple[RelayEntry, ...])

    async def remove_relay(self, network: str, relay: str) -> RelayEntry:
        return await self._ask("DELETE", _of(network, "relays", relay), RelayEntry)

    # Services and connectors

    async def add_service(self, network: str, request: ServiceRequest) -> ServiceEntry:
        return await self._ask("POST", _of(network, "services"), ServiceEntry, request)

    async def services(self, network: str) -> tuple[ServiceEntry, ...]:
        return await self._ask("GET", _of(network, "services"), tuple[ServiceEntry, ...])

    async def remove_service(self, network: str, service: str) -> ServiceEntry:
        return await self._ask("DELETE", _of(network, "services", service), ServiceEntry)

    async def add_connector(self, network: str, request: ConnectorRequest) -> ConnectorEntry:
        return await self._ask("POST", _of(network, "connectors"), ConnectorEntry, request)

    async def connectors(self, network: str) -> tuple[ConnectorEntry, ...]:
        return await self._ask("GET", _of(network, "connectors"), tuple[ConnectorEntry, ...])

    async def remove_connector(self, network: str, connector: str) -> ConnectorEntry:
        return await self._ask("DELETE", _of(network, "connectors", connector), ConnectorEntry)

    # Members

    async def members(self, network: str) -> tuple[Member, ...]:
        return await self._ask("GET", _of(network, "members"), tuple[Member, ...])

    async def member(self, network: str, member: str) -> MemberStatus:
        return await self._ask("GET", _of(network, "members", member), MemberStatus)

    async def change_member(self, network: str, member: str, change: MemberChange) -> Member:
        return await self._ask("PATCH", _of(network, "members", member), Member, change)

    async def revoke_member(self, network: str, member: str) -> Revoked:
        return await self._ask("DELETE", _of(network, "members", member), Revoked)

    async def revocations(self, network: str) -> tuple[Revoked, ...]:
        return await self._ask("GET", _of(network, "revocations"), tuple[Revoked, ...])

    # Status and events

    async def status(self, network: str) -> NetworkStatus:
        return await self._ask("GET", _of(network, "status"), NetworkStatus)

    async def events(
        self, network: str | None = None, *, after: int | None = None, limit: int = 100
    ) -> tuple[Event, ...]:
        """The audit log, oldest first, of one network or of all that the token may see: what follows the event
        ``after``, else the newest.
        """
        path = "/v1/events" if network is None else _of(network, "events")
        return await self._ask(
            "GET",
            path,
            tuple[Event, ...],
            params={"limit": limit} if after is None else {"after": after, "limit": limit},
        )

    # How

    async def _ask(
        self,
        method: str,
        path: str,
        answer: type[T],
        body: msgspec.Struct | None = None,
        params: Mapping[str, int] | None = None,
    ) -> T:
        response = await self._send(method, path, body, params)
        if not response.is_success:
            raise _error_of(response)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise OperationFailed(
                f"{self.url} answers in a way that this version of Warren does not understand ({error}); update Warren"
            ) from error

    async def _send(
        self, method: str, path: str, body: msgspec.Struct | None, params: Mapping[str, int] | None
    ) -> httpx2.Response:
        """One request, moved to another of the coordinator's addresses as long as it has not been sent."""
        import httpx2

        content = b"" if body is None else msgspec.json.encode(body)
        headers = {"Authorization": f"Bearer {self._access.secret}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        for last in (False, True):
            client, trusted = await self._connected()
            try:
                return await client.request(
                    method, trusted.url.rstrip("/") + path, content=content, headers=headers, params=params
                )
            except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
                await self._disconnect()
                if last:
                    raise why_not(trusted.url, error) from error
            except httpx2.RequestError as error:
                await self._disconnect()
                if method == "GET" and not last:
                    continue
                doubt = "" if method == "GET" else "; it may have been done all the same, so look before trying again"
                raise Unreachable(f"the connection to {trusted.url} was lost before it answered{doubt}") from error
        raise AssertionError("the last attempt returns or raises")

    async def _connected(self) -> tuple[httpx2.AsyncClient, Trusted]:
        import httpx2

        if self._trusted is None or self._client is None:
            self._trusted = await establish_trust(self._access.urls, self._access.key, wall_clock=self._wall_clock)
            self._client = httpx2.AsyncClient(verify=self._trusted.context, timeout=ANSWER_WITHIN_S)
        return self._client, self._trusted

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


class _Details(msgspec.Struct, frozen=True):
    """RFC 9457 §3.1, as far as it is shown."""

    title: str = ""
    detail: str = ""
    remedy: str = ""
    problems: tuple[Problem, ...] = ()


def _error_of(response: httpx2.Response) -> WarrenError:
    try:
        details = msgspec.json.decode(response.content, type=_Details)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        details = _Details()
    sentence = problem_line(details.title, details.detail, details.remedy)
    sentence = sentence or f"the coordinator answers HTTP status {response.status_code} and does not say why"
    if response.status_code in _INVALID:
        return RequestInvalid(sentence, details.problems)
    if response.status_code in {502, 503, 504}:
        return Unreachable(sentence)
    return OperationFailed(sentence)


def _of(network: str, *parts: str) -> str:
    return "/".join(("/v1/networks", _part(network), *map(_part, parts)))


def _part(text: str) -> str:
    """A segment of a path. What is no name, key or id would not only be unknown but lead to another path."""
    if not _PART.fullmatch(text):
        raise UsageError(f"{text!r} is neither a name nor a key: names are made of a-z, 0-9 and hyphens")
    return text
