"""A gateway on loopback: the real streams in this process, the real Caddy, and a web server that notes what it gets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h11

from warren.errors import OperationFailed
from warren.ingress.caddy import Caddy, Ports, Settings, Site
from warren.ingress.sites import door
from warren.l4.config import Backend, Config, Entry, EntryState, Limits, Listen, Name, Way
from warren.l4.overlay import HostSockets
from warren.l4.serve import Server

PATIENCE_S: Final = 30.0
QUIET_S: Final = 0.25
HEAD_BYTES_MAX: Final = 1 << 17  # more than Caddy lets through, in however many pieces it comes
"""What should not come has not come by then."""
CLIENT: Final = "127.0.0.2"
"""Where the tests' clients come from: not where Caddy's connections come from."""


@dataclass
class Seen:
    """A request as the web server got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]


class WebServer:
    """HTTP/1.1 on a Unix socket. ``/stream``: a line each time :attr:`more` is set; ``/upgrade``: WebSocket's switch,
    then it sends everything back; else the request as JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[Seen] = []
        self.more = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        try:
            while await self._one(connection, reader, writer):
                connection.start_next_cycle()
        except (OSError, h11.ProtocolError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        seen: Seen | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                seen = Seen(event.method.decode(), event.target.decode(), _pairs(event.headers))
                self.seen.append(seen)
            elif isinstance(event, h11.Data) and seen is not None:
                seen.body += event.data
            elif isinstance(event, h11.EndOfMessage) and seen is not None:
                seen.trailers = _pairs(event.headers)
                return await self._answer(connection, seen, reader, writer)
            elif event is h11.PAUSED and seen is not None:
                return await self._answer(connection, seen, reader, writer)
            else:
                return False

    async def _answer(
        self, connection: h11.Connection, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        def send(event: Any) -> None:
            writer.write(connection.send(event) or b"")

        if seen.target == "/upgrade":
            send(
                h11.InformationalResponse(
                    status_code=101, headers=[("Upgrade", "websocket"), ("Connection", "upgrade")]
                )
            )
            while data := await reader.read(65536):
                writer.write(data)
            return False
        if seen.target == "/stream":
            send(h11.Response(status_code=200, headers=[]))
            for count in range(2):
                send(h11.Data(data=f"line {count}\n".encode()))
                await self.more.wait()
            send(h11.EndOfMessage())
            return True
        body = json.dumps({"method": seen.method, "target": seen.target, "bytes": len(seen.body)}).encode()
        send(h11.Response(status_code=200, headers=[("Content-Length", str(len(body)))]))
        send(h11.Data(data=b"" if seen.method == "HEAD" else body))
        send(h11.EndOfMessage())
        await writer.drain()
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


def _pairs(headers: Any) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode("latin-1")) for name, value in headers]


class Gateway:
    """Made by :func:`gateway`. ``https`` and ``http`` are what the world connects to."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.settings = Settings(directory / "s", directory / "r", **settings)
        self.lookup = directory / "peers.sock"
        self.caddy = Caddy(self.settings, self.lookup)
        self.web = WebServer(directory / "web.sock")
        self.server = Server(HostSockets(), _nobody, lambda: None)
        self.names: tuple[Name, ...] = ()
        """Further names of the SNI router."""
        self.limits = Limits()
        self.address = "127.0.0.1"
        """Where the world connects to; empty: everywhere."""
        self.ports = Ports(0, 0)
        self.http = 0
        self.https = 0

    def site(self, *domains: str, certificate: Any = "internal", connector: str = "") -> Site:
        return Site(connector or domains[0].partition(".")[0], domains, certificate, self.web.path)

    async def keep(self, sites: Sequence[Site]) -> None:
        """Serve ``sites``, as the agent would have it."""
        if self.https:  # Caddy asks for certificates at once, and the authority then comes in by these doors
            await self.open_doors(sites)
        self.ports = await self.caddy.keep(sites) or self.ports
        await self.open_doors(sites)
        if not self.https:  # from now on at the ports that the kernel chose
            self.https, self.http = (_port_of(self.state(name)) for name in ("https", "http"))
            await self.open_doors(sites)

    async def open_doors(self, sites: Sequence[Site]) -> None:
        """Lead to these sites at :attr:`ports`."""
        to_caddy = self.to_caddy(self.ports.https)
        ended = tuple(
            Name(domain=domain, connector=site.connector, way=to_caddy, limits=self.limits, ended=True)
            for site in sites
            if site.certificate != "none"
            for domain in site.domains
        )
        entries = (
            self._entry("sni", "https", self.https, names=(*ended, *self.names)),
            self._entry("ended", "http", self.http, way=self.to_caddy(self.ports.http)),
        )
        await self.server.configure(Config(entries=entries, peer_lookup=str(self.lookup)))

    def state(self, name: str) -> EntryState:
        return next(state for state in self.server.status().entries if state.id == name)

    @staticmethod
    def way(port: int) -> Way:
        return Way(backends=(Backend(name="a service", side="host", host="127.0.0.1", port=port),))

    def to_caddy(self, port: int) -> Way:
        path = str(door(self.lookup.parent, port))
        return Way(backends=(Backend(name="Caddy", side="host", port=port, path=path),))

    def _entry(self, kind: Any, name: str, port: int, **more: Any) -> Entry:
        return Entry(id=name, kind=kind, listen=(Listen(address=self.address, port=port),), **more)

    async def close(self) -> None:
        await self.server.close()
        await self.caddy.close()
        await self.web.close()

    # Clients

    async def connect(
        self, name: str, *, tls: bool = True, source: str = CLIENT, alpn: Sequence[str] = ("http/1.1",)
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client's connection; certificates of the gateway's own authority are trusted."""
        if not tls:
            return await asyncio.open_connection("127.0.0.1", self.http, local_addr=(source, 0))
        context = ssl.create_default_context(cafile=str(self.settings.internal_root))
        context.set_alpn_protocols(list(alpn))
        return await asyncio.open_connection(
            "127.0.0.1", self.https, ssl=context, server_hostname=name, local_addr=(source, 0)
        )

    async def say(
        self, name: str, request: bytes, *, tls: bool = True, source: str = CLIENT, answers: int = 1
    ) -> bytes:
        """See :func:`read_all`."""
        reader, writer = await self.connect(name, tls=tls, source=source)
        try:
            writer.write(request)
            return await read_all(reader, answers=answers)
        finally:
            writer.transport.abort()

    async def curl(self, *arguments: str, source: str = CLIENT) -> str:
        """What curl prints; URLs are of the ports that the world knows."""
        root = ["--cacert", str(self.settings.internal_root)] if self.settings.internal_root.exists() else []
        command = ["curl", "-sS", "--max-time", "30", "--interface", source, *root]
        command += ["--connect-to", f"::127.0.0.1:{self.https}", *arguments]
        child = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await child.communicate()
        return output.decode(errors="replace")

    async def wait_for_certificates(self, *domains: str) -> None:
        for domain in domains:
            async with asyncio.timeout(PATIENCE_S):
                while not await self._has_certificate(domain):
                    await asyncio.sleep(0.02)

    async def _has_certificate(self, domain: str) -> bool:
        try:
            _, writer = await self.connect(domain)
        except OSError:  # an alert, or no root yet
            return False
        writer.transport.abort()
        return True


@contextlib.asynccontextmanager
async def gateway(*sites: str, **settings: Any) -> AsyncIterator[Gateway]:
    """With a site for each of these domains (certificates of its own authority), and ``plain.test`` without TLS."""
    directory = Path(tempfile.mkdtemp(prefix="ingress-"))  # a short path, for sockets
    made = Gateway(directory, **settings)
    try:
        await made.web.start()
        if sites:
            await made.keep([*(made.site(domain) for domain in sites), made.site("plain.test", certificate="none")])
            await made.wait_for_certificates(*sites)
        yield made
    finally:
        await made.close()
        shutil.rmtree(directory)


async def read_all(reader: asyncio.StreamReader, *, answers: int = 1) -> bytes:
    """What comes until the connection ends, or until there are so many answers and nothing more comes for a moment."""
    data = bytearray()
    with contextlib.suppress(TimeoutError, OSError, ssl.SSLError):
        while True:
            async with asyncio.timeout(QUIET_S if data.count(b"HTTP/1.") >= answers else PATIENCE_S):
                more = await reader.read(65536)
            if not more:
                break
            data += more
    return bytes(data)


async def eventually(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(0.02)


def _port_of(state: EntryState) -> int:
    if not state.places:
        raise OperationFailed(state.reason)
    return int(state.places[0].rpartition(":")[2])


async def _nobody(place: str, goal: object = None) -> Sequence[Any]:
    raise OperationFailed(f"nobody is asked for {place}")
