"""HTTP proxies on the way out: who they are, for whom they count, and how they are asked (RFC 9110 §9.3.6).

``[proxy]`` of agent.toml, or HTTPS_PROXY and NO_PROXY of the environment, name one. It is asked to CONNECT; whatever
else it may be or do (refuse, want a login, be a captive portal) becomes a sentence.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import unquote, urlsplit

from warren.errors import OperationFailed, Unreachable, UsageError
from warren.model.ip import join_host_port

HEAD_BYTES_MAX: Final = 16 << 10
NO_PROXY_MAX: Final = 256
_SHOWN_MAX: Final = 200

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n")
_HEADER: Final = re.compile(rb"(?mi)^(location|proxy-authenticate):[ \t]*([^\r\n]*)")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. ``no_proxy``: hosts, domains (with or without a leading dot), addresses and prefixes that are
    reached without it; ``*`` is all.
    """

    host: str
    port: int
    username: str | None = None
    password: str = field(default="", repr=False)
    no_proxy: tuple[str, ...] = ()

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)

    def applies_to(self, host: str) -> bool:
        """Whether ``host`` (a name or an address) is reached through it. This machine itself never is."""
        name = host.rstrip(".").lower()
        try:
            address = ip_address(name)
        except ValueError:
            if name == "localhost" or name.endswith(".localhost"):
                return False
            return not any(_covers_name(entry, name) for entry in self.no_proxy)
        if address.is_loopback:
            return False
        return not any(entry == "*" or _covers_address(entry, address) for entry in self.no_proxy)


def _covers_name(entry: str, name: str) -> bool:
    domain = entry.lstrip("*").lstrip(".").rstrip(".").lower()
    return entry == "*" or (bool(domain) and (name == domain or name.endswith(f".{domain}")))


def _covers_address(entry: str, address: object) -> bool:
    try:
        return address in ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False


def proxy_from(url: str, no_proxy: Iterable[str] = ()) -> Proxy:
    """The proxy that ``http://[USER:PASSWORD@]HOST:PORT`` names. Raises UsageError, with the password left out."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname or "", parts.port
        username = None if parts.username is None else unquote(parts.username)
        password = unquote(parts.password or "")
        if ":" in host:
            IPv6Address(host)
        else:
            host.encode("idna")
    except (ValueError, UnicodeError):
        raise UsageError(f"the proxy {_without_login(url)} is not an address: write it http://HOST:PORT") from None
    if parts.scheme.lower() != "http":
        raise UsageError(
            f"the proxy {_without_login(url)} is of a kind that Warren does not speak: write it http://HOST:PORT"
        )
    if not host or not host.isprintable() or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise UsageError(f"the proxy {_without_login(url)} is not an address: write it http://HOST:PORT")
    if port == 0:
        raise UsageError(f"the proxy {_without_login(url)} has port 0: name the port it listens on")
    if ":" in (username or ""):
        raise UsageError(f"the user name for the proxy {host} contains a colon, which HTTP cannot carry (RFC 7617)")
    entries = tuple(entry.strip() for entry in no_proxy if entry.strip())
    if len(entries) > NO_PROXY_MAX:
        raise UsageError(f"no_proxy names {len(entries)} hosts: {NO_PROXY_MAX} at most, use domains or prefixes")
    return Proxy(host, port or 80, username, password, entries)


def proxy_from_environment(environment: Mapping[str, str]) -> Proxy | None:
    """What HTTPS_PROXY (or https_proxy, ALL_PROXY, all_proxy) and NO_PROXY say; None: nothing. Raises UsageError."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        if environment.get(name):
            exceptions = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
            try:
                return proxy_from(environment[name], exceptions.split(","))
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
    return None


def _without_login(url: str) -> str:
    return _harmless(re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)?.*@", r"\1", url))


def _harmless(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_SHOWN_MAX])


async def ask_to_connect(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Have ``proxy``, to which ``sock`` (non-blocking) is connected, connect it on to ``host``.

    Afterwards the socket carries what is sent to the host. Raises OperationFailed or Unreachable with a sentence; takes
    as long as the proxy does.
    """
    loop = asyncio.get_running_loop()
    try:
        target = f"[{host}]:{port}" if ":" in host else f"{host.encode('idna').decode()}:{port}"
    except UnicodeError:
        raise OperationFailed(f"{_harmless(host)} is not the name of a host") from None
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.username is not None:
        login = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        request += f"Proxy-Authorization: Basic {login}\r\n"
    head = b""
    try:
        await loop.sock_sendall(sock, f"{request}\r\n".encode())
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            chunk = await loop.sock_recv(sock, 4096)
            if not chunk:
                break
            head += chunk
            if len(head) > HEAD_BYTES_MAX or not b"HTTP/1.".startswith(head[:7]):
                break
    except OSError as error:
        raise Unreachable(f"the proxy {proxy} ended the connection ({error.strerror}): is it an HTTP proxy?") from None
    _judge_untrusted(head, proxy, target)


def _judge_untrusted(head: bytes, proxy: Proxy, target: str) -> None:
    """Raises OperationFailed or Unreachable unless ``head`` says that the proxy has connected us, and nothing more."""
    status = _STATUS_LINE.match(head)
    if status is None:
        if not head:
            raise Unreachable(f"the proxy {proxy} ends the connection without an answer: is it an HTTP proxy?")
        raise OperationFailed(f"what answers at {proxy} is no HTTP proxy: check its address and port")
    number, reason = int(status[1]), _harmless((status[2] or b"").decode(errors="replace"))
    told = f"{number} {reason}".strip()
    headers: dict[bytes, str] = {}
    for name, value in _HEADER.findall(head):
        before = headers.get(name.lower(), "")
        headers[name.lower()] = before + ("," if before else "") + _harmless(value.decode(errors="replace"))
    if 200 <= number < 300:
        end = max(head.find(b"\r\n\r\n") + 4, head.find(b"\n\n") + 2)
        if len(head) > end:
            raise OperationFailed(f"the proxy {proxy} answers itself instead of connecting to {target}")
        return
    if number == 407:
        wanted = headers.get(b"proxy-authenticate", "")
        if wanted and not any(one.strip().lower().startswith("basic") for one in wanted.split(",")):
            scheme = wanted.split()[0]
            raise OperationFailed(
                f"the proxy {proxy} wants the login {scheme}, which Warren does not speak: ask for one that takes Basic"
            )
        if proxy.username is None:
            raise OperationFailed(f"the proxy {proxy} wants a login: write it http://USER:PASSWORD@{proxy}")
        raise OperationFailed(f"the proxy {proxy} does not accept the user name and password")
    if 300 <= number < 400 or number == 511:
        where = f" at {headers[b'location']}" if headers.get(b"location") else ""
        raise OperationFailed(f"this network wants a login first (a captive portal{where}): open a browser and log in")
    if number in {502, 503, 504}:
        raise Unreachable(f"the proxy {proxy} cannot reach {target} ({told}): is it running?")
    raise OperationFailed(f"the proxy {proxy} refuses to connect to {target} ({told}): its operator must allow it")
