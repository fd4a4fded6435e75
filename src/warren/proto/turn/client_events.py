"""What a TURN client tells whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass, field

from warren.model.tunnel import TransportAddress


@dataclass(frozen=True, slots=True)
class Ready:
    """The server relays for us, now at these addresses. Told again when they change, and after every :class:`Lost`."""

    relayed: tuple[TransportAddress, ...]
    """One of each family, as far as the server grants them."""
    mapped: TransportAddress | None
    """Where the server sees us."""


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no allocation. ``final``: trying again is pointless before an operator or new credentials change
    something; the client then tries only rarely.
    """

    why: str
    final: bool
    alternate: TransportAddress | None = None
    """The server that this one names instead of itself (RFC 8489 §10); only if it proved who it is."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The allocation is gone, or the server no longer answers. The client goes on trying; channels and permissions
    that were wanted are made again, the channels with the same numbers, as soon as it is :class:`Ready`.
    """

    why: str


@dataclass(frozen=True, slots=True)
class Bound:
    """ChannelData of this number goes to ``peer`` from now on."""

    peer: TransportAddress
    channel: int


@dataclass(frozen=True, slots=True)
class BindFailed:
    """There is no channel to ``peer``, and the client does not try again by itself."""

    peer: TransportAddress
    why: str


@dataclass(frozen=True, slots=True)
class Data:
    """``peer`` sent this to our relayed address, and no channel is bound to it (RFC 8656 §11.4)."""

    peer: TransportAddress
    data: bytes = field(repr=False)


ClientEvent = Ready | Failed | Lost | Bound | BindFailed | Data
