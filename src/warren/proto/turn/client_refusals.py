"""What a TURN server's refusals mean, one sentence each (RFC 8656 §19, RFC 8489 §14.8)."""

from __future__ import annotations

from typing import Final

from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.stun.attributes import ErrorCode
from warren.proto.turn.client_requests import NO_ANSWER

_REASON_CHARACTERS_MAX: Final = 100

_ALLOCATION: Final[dict[int, tuple[str, bool]]] = {
    NO_ANSWER: ("does not answer: is it running, and does every firewall on the way let its port through?", False),
    300: ("sends its clients to another server; name that one as the relay instead", True),
    400: ("does not understand the request; is it a TURN server, and of which age?", True),
    401: ("does not accept the user name and password; its secret must be the one that the coordinator knows", True),
    403: ("does not relay for this node; its operator must allow it", True),
    420: ("lacks something that every TURN server should know", True),
    437: (
        "still keeps a relayed address that an earlier run of this node asked for, and gives none until that ends",
        False,
    ),
    438: ("calls every nonce stale, even its newest one", False),
    440: ("has no relayed address of the families that are wanted", True),
    441: ("keeps a relayed address for this port under another user name, and gives none until that ends", False),
    442: ("does not relay UDP", True),
    486: ("has given this node as many relayed addresses as its quota allows; it tries again later", False),
    500: ("has an error of its own; it tries again later", False),
    508: ("has no relayed address left; its operator must give it more ports, or fewer clients", False),
}
_PEER: Final[dict[int, str]] = {
    NO_ANSWER: "does not answer when asked to",
    403: "is not allowed to; its operator must permit that address range",
    443: "has no address of that family to send from",
    446: "may not carry more connections",
    486: "has reached its quota",
    508: "has no room for more",
}


def no_allocation(relay: str, error: ErrorCode) -> tuple[str, bool]:
    """Why there is no allocation, and whether trying again soon is pointless. ``relay`` is its name for people."""
    sentence, final = _ALLOCATION.get(error.number, ("refuses to relay", False))
    return f"relay {relay} {sentence}{_told(error)}", final


def no_peer(relay: str, peer: TransportAddress | IPAddress, error: ErrorCode) -> str:
    """Why the relay does not send to ``peer``."""
    sentence = _PEER.get(error.number, "refuses it")
    return f"relay {relay} does not send to {peer}: it {sentence}{_told(error)}"


def _told(error: ErrorCode) -> str:
    """The error as the server gave it, harmless."""
    if error.number == NO_ANSWER:
        return ""
    reason = "".join(letter if letter.isprintable() else "?" for letter in error.reason[:_REASON_CHARACTERS_MAX])
    return f" (error {error.number}{': ' if reason else ''}{reason})"
