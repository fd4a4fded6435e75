"""From UDP on the loopback interface into a stream and back, for relays and peers that only TCP reaches.

To the data plane a bridge is a TURN server, or a peer, at 127.0.0.1 and a port of its own. Trains go through whole in
both directions. A stream can be slower than what is to be sent: then datagrams are dropped, as a router would, and
nothing grows.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

from warren.errors import MalformedPacket
from warren.linux.udp import UdpSocket
from warren.model.tunnel import TransportAddress
from warren.reach.bridge_connect import TlsPin, connect
from warren.reach.bridge_framing import Framing, TurnFraming
from warren.reach.proxy import Proxy

LOOPBACK: Final = IPv4Address("127.0.0.1")
WAITING_BYTES_MAX: Final = 256 << 10
"""What may wait for the stream: some 200 ms at 10 Mbit/s; more would only be late."""
TRAINS_PER_TURN: Final = 16
"""So many are read from the data plane before the event loop sees to others: at most 1 MB, about a millisecond."""
_TRAIN_BYTES: Final = 1 << 16
_STREAM_BYTES: Final = 512 << 10
_READ_BYTES_MIN: Final = 128 << 10  # room for the longest frame behind what is left of another
_UDP_BUFFER_BYTES: Final = 1 << 20


class StreamBridge:
    """``address`` is where the data plane sends to. ``closed`` is done with a sentence when the stream has ended; the
    bridge is closed then. ``dropped`` counts the trains for which the stream had no room.
    """

    def __init__(
        self,
        stream: socket.socket | ssl.SSLSocket,
        framing: Framing,
        plane_port: Callable[[], int],
        name: str,
        *,
        begun: bytes = b"",
    ) -> None:
        """Take over ``stream`` (connected, non-blocking). Only what comes from UDP port ``plane_port()`` of 127.0.0.1
        is taken, and only there is sent to. ``name``: what people call the other end. ``begun``: what was already read.

        Must be called in a running event loop. Raises OSError, without closing ``stream``.
        """
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._framing = framing
        self._plane_port = plane_port
        self._name = name
        self._udp = _loopback_socket()
        self.address = TransportAddress(LOOPBACK, self._udp.port)
        self.closed: asyncio.Future[str] = self._loop.create_future()
        self._ended = False
        self.dropped = 0
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._train = bytearray(_TRAIN_BYTES)
        self._read = bytearray(_STREAM_BYTES)
        self._read_start = 0
        self._read_end = len(begun)
        self._read[: len(begun)] = begun
        self._writing = False
        self._loop.add_reader(self._udp.fileno(), self._from_plane)
        self._loop.add_reader(stream.fileno(), self._from_stream)
        self._loop.call_soon(self._deliver)

    @classmethod
    async def open(
        cls, host: str, port: int, *, tls: TlsPin | None, proxy: Proxy | None, plane_port: Callable[[], int]
    ) -> StreamBridge:
        """A bridge to the TURN server ``host``. Raises OperationFailed or Unreachable, each with a sentence."""
        stream = await connect(host, port, tls=tls, proxy=proxy)
        try:
            return cls(stream, TurnFraming(), plane_port, f"relay {host}:{port}")
        except BaseException:
            stream.close()
            raise

    def close(self) -> None:
        """End the connection at once."""
        self._end("it was closed here")

    def _end(self, why: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._loop.remove_reader(self._udp.fileno())
        self._loop.remove_reader(self._stream.fileno())
        if self._writing:
            self._loop.remove_writer(self._stream.fileno())
        self._udp.close()
        self._stream.close()
        self._waiting.clear()
        if not self.closed.done():  # who was cancelled while it waited for this has cancelled it
            self.closed.set_result(why)

    # From the data plane to the stream.

    def _from_plane(self) -> None:
        buffer = self._train
        wanted = str(LOOPBACK), self._plane_port()
        for _ in range(TRAINS_PER_TURN):
            received = self._udp.receive_into(buffer)
            if received is None:
                return
            if received.source != wanted:
                continue
            if self._waiting_bytes >= WAITING_BYTES_MAX:
                self.dropped += 1
                continue
            packed = self._framing.pack(buffer, received.length, received.stride)
            if packed:
                self._send(packed)
            if self._ended:
                return

    def _send(self, data: memoryview | bytes) -> None:
        view = memoryview(data)
        if not self._waiting:
            view = view[self._write(view) :]
        if view and not self._ended:
            kept = memoryview(bytes(view))  # the buffer is used again
            self._waiting.append(kept)
            self._waiting_bytes += len(kept)
            self._want_to_write()

    def _write(self, view: memoryview) -> int:
        """How much of ``view`` the stream took."""
        done = 0
        try:
            while done < len(view):
                done += self._stream.send(view[done:])
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._end(self._why_ended(error))
        return done

    def _want_to_write(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._stream.fileno(), self._drain)

    def _drain(self) -> None:
        while self._waiting:
            view = self._waiting[0]
            done = self._write(view)
            if self._ended:
                return
            self._waiting_bytes -= done
            if done < len(view):
                self._waiting[0] = view[done:]
                return
            self._waiting.popleft()
        self._writing = False
        self._loop.remove_writer(self._stream.fileno())

    # From the stream to the data plane.

    def _from_stream(self) -> None:
        """Read what is there, at most a buffer full of it, and send it on together: TLS gives 16 KB at a time."""
        if self._ended:
            return
        view = memoryview(self._read)
        try:
            while len(view) - self._read_end >= _READ_BYTES_MIN:
                count = self._stream.recv_into(view[self._read_end :])
                if not count:
                    self._deliver()
                    self._end(f"{self._name} has ended the connection")
                    return
                self._read_end += count
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except ssl.SSLWantWriteError:  # a key update of TLS is to be answered
            self._want_to_write()
        except OSError as error:
            self._end(self._why_ended(error))
            return
        self._deliver()

    def _deliver(self) -> None:
        """Send on what is complete, and move the rest to the front."""
        if self._ended:
            return
        try:
            trains, rest = self._framing.unpack_untrusted(self._read, self._read_start, self._read_end)
        except MalformedPacket as error:
            self._end(f"{self._name} does not speak as it should ({error}): something else answers in its place")
            return
        target = str(LOOPBACK), self._plane_port()
        if target[1]:
            for train in trains:
                self._udp.send(train.data, train.stride, target, b"", 0)
        left = self._read_end - rest
        self._read[:left] = self._read[rest : self._read_end]
        self._read_start, self._read_end = 0, left

    def _why_ended(self, error: OSError) -> str:
        if isinstance(error, TimeoutError):
            return f"{self._name} no longer answers"
        return f"the connection to {self._name} broke ({error.strerror or error})"


def _loopback_socket() -> UdpSocket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.bind((str(LOOPBACK), 0))
        made = UdpSocket(sock, 0)
        # What the stream has no room for is to be dropped, not to wait.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UDP_BUFFER_BYTES)
    except OSError:
        sock.close()
        raise
    return made
