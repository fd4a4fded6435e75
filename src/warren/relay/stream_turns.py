"""Reads what TCP and TLS clients sent, each in its turn.

=============  ==========================================  ==========================================================
a stream is    when                                        read again
=============  ==========================================  ==========================================================
followed       nothing of it waits                         when epoll says that something came
hungry         something waits that epoll does not tell    in the next round
               of, or its user has had his share of this
paused         its user is above his rate                  when the pause ends (pace.py); until then nobody looks
=============  ==========================================  ==========================================================
"""

from __future__ import annotations

import select
from collections.abc import Callable

from warren.proto.turn.server import TurnServer
from warren.relay.carrier import Carrier
from warren.relay.fairness import Share
from warren.relay.pace import Pace
from warren.relay.stream_door import StreamDoor
from warren.relay.streams import Garbage, Message, Stream, Train, take_frames_untrusted

_READ_BYTES = 1 << 16


class StreamTurns:
    """``emit`` acts on what the server wants."""

    def __init__(
        self, door: StreamDoor, server: TurnServer, carrier: Carrier, pace: Pace, emit: Callable[[float], None]
    ) -> None:
        self._door = door
        self._server = server
        self._carrier = carrier
        self._pace = pace
        self._emit = emit
        self._hungry: dict[int, Stream] = {}
        self._paused: dict[int, Stream] = {}

    @property
    def has_hungry(self) -> bool:
        """Whether there are TLS connections that hold decrypted bytes, or more than their turn allowed."""
        return bool(self._hungry)

    def serve_hungry(self, now: float) -> None:
        hungry, self._hungry = self._hungry, {}
        for fd, stream in hungry.items():
            if self._door.streams.get(fd) is stream:
                self.serve(stream, 0, now)

    def resume(self, now: float) -> None:
        """Some user's pause has ended."""
        for fd, stream in list(self._paused.items()):
            share = stream.share
            if not isinstance(share, Share) or share.paused_until <= now or self._door.streams.get(fd) is not stream:
                del self._paused[fd]
                if self._door.streams.get(fd) is stream:
                    self._hungry[fd] = stream
                    self._door.follow(stream)

    def serve(self, stream: Stream, mask: int, now: float) -> None:
        """``mask``: what epoll says of it."""
        if mask & select.EPOLLOUT:
            try:
                stream.flush()
            except OSError:
                self.end(stream, now)
                return
        share = stream.share
        limit = _READ_BYTES
        if isinstance(share, Share):
            if now < share.paused_until:
                if mask & (select.EPOLLHUP | select.EPOLLERR):  # epoll tells it again and again
                    self.end(stream, now)
                    return
                self._paused[stream.fileno()] = stream
                self._door.follow(stream, reads=False)
                return
            share.begin(self._pace.round)
            if share.deficit <= 0:
                self._hungry[stream.fileno()] = stream
                self._door.follow(stream)
                return
            limit = share.deficit
        try:
            got = stream.read(limit)
            frames = take_frames_untrusted(stream.inbox, message_bytes_max=stream.message_bytes_max)
        except (Garbage, OSError):
            self.end(stream, now)
            return
        self._take_frames(stream, frames, now)
        self._emit(now)
        if isinstance(share, Share):
            self._pace.charge(share, got, now)
        if stream.fileno() < 0:
            return
        if stream.holds_more:
            self._hungry[stream.fileno()] = stream
        self._door.follow(stream)

    def _take_frames(self, stream: Stream, frames: list[Message | Train], now: float) -> None:
        for frame in frames:
            if isinstance(frame, Message):
                self._server.receive(frame.data, stream.client, now)
                continue
            allocation = self._server.allocations.get(stream.client)
            if allocation is None:
                continue
            allocation.heard_at = now
            self._carrier.from_channel(allocation, frame.channel, frame.data, frame.stride, 0, now)

    def end_expired(self, now: float) -> None:
        """Of those that have proved nothing in time."""
        for stream in self._door.expired(now):
            self.end(stream, now)

    def end(self, stream: Stream, now: float) -> None:
        for waiting in (self._hungry, self._paused):
            waiting.pop(stream.fileno(), None)
        self._server.disconnected(stream.client)
        self._door.end(stream)
        self._emit(now)
