"""Who is answered by a TURN server, and how: who has proved something with what that gave, anybody else with little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from warren.proto.stun.attributes import pack_error_code, pack_unknown_attributes, pack_xor_address
from warren.proto.stun.message import Attribute, Class, Message, Method, encode, unknown_required
from warren.proto.turn.quota import ReplyBudget
from warren.proto.turn.server_auth import Asker, Attributes, Authenticator
from warren.proto.turn.server_values import Client, transport_address

KNOWN: Final = frozenset(
    {
        Attribute.USERNAME,
        Attribute.REALM,
        Attribute.NONCE,
        Attribute.PASSWORD_ALGORITHM,
        Attribute.USERHASH,
        Attribute.CHANNEL_NUMBER,
        Attribute.LIFETIME,
        Attribute.XOR_PEER_ADDRESS,
        Attribute.DATA,
        Attribute.REQUESTED_ADDRESS_FAMILY,
        Attribute.EVEN_PORT,
        Attribute.REQUESTED_TRANSPORT,
        Attribute.DONT_FRAGMENT,
        Attribute.RESERVATION_TOKEN,
        Attribute.PADDING,
    }
)


class Replies:
    """``send`` takes each reply; ``counters`` have one for each number of an error.

    ``proven`` says of a client that its address is its own: over UDP it may be forged, and what goes there is bounded.
    """

    def __init__(self, auth: Authenticator, counters: Counter[str], send: Callable[[Client, bytes], None]) -> None:
        self._auth = auth
        self._counters = counters
        self._send = send
        self._budget = ReplyBudget()

    def binding(self, request: Message, client: Client, now: float, *, proven: bool) -> None:
        """STUN Binding (RFC 8489 §2): where the client is seen from."""
        mapped = pack_xor_address(transport_address(client.remote), request.transaction)
        unknown = unknown_required(request, KNOWN)
        if unknown:
            attributes = [(Attribute.ERROR_CODE, pack_error_code(420)), _unknown(unknown)]
            reply = encode(Method.BINDING, Class.ERROR, request.transaction, attributes)
        else:
            reply = encode(Method.BINDING, Class.SUCCESS, request.transaction, [(Attribute.XOR_MAPPED_ADDRESS, mapped)])
        self._send_unproven(request, client, reply, now, proven=proven)

    def asker(self, request: Message, client: Client, now: float, *, proven: bool) -> Asker | None:
        """Who asks; None: it did not prove that, or wants what nobody here knows, and has been told so."""
        host = client.remote[0]
        asker = self._auth.judge(request, host, now)
        if isinstance(asker, int):
            self._counters[f"refused_{asker}"] += 1
            reply = self._auth.refusal(request, asker, host, now)
            self._send_unproven(request, client, reply, now, proven=proven)
            return None
        unknown = unknown_required(request, KNOWN)
        if unknown:
            self.refuse(request, client, asker, 420, _unknown(unknown))
            return None
        return asker

    def _send_unproven(self, request: Message, client: Client, reply: bytes, now: float, *, proven: bool) -> None:
        if not proven and not self._budget.allows(client.remote[0], len(request.raw), len(reply), now):
            self._counters["replies_withheld"] += 1
            return
        self._send(client, reply)

    def grant(self, request: Message, client: Client, asker: Asker, attributes: Attributes | None = None) -> bytes:
        """Returns the reply, too."""
        reply = self._auth.answer(request, Class.SUCCESS, asker, attributes or [])
        self._send(client, reply)
        return reply

    def refuse(
        self, request: Message, client: Client, asker: Asker, error: int, *attributes: tuple[int, bytes]
    ) -> None:
        self._counters[f"refused_{error}"] += 1
        reply = self._auth.answer(
            request, Class.ERROR, asker, [(Attribute.ERROR_CODE, pack_error_code(error)), *attributes]
        )
        self._send(client, reply)

    def end(self, request: Message, client: Client, asker: Asker, error: int) -> None:
        """Grant when ``error`` is 0, else refuse."""
        if error:
            self.refuse(request, client, asker, error)
        else:
            self.grant(request, client, asker)


def _unknown(attributes: tuple[int, ...]) -> tuple[int, bytes]:
    return Attribute.UNKNOWN_ATTRIBUTES, pack_unknown_attributes(attributes)
