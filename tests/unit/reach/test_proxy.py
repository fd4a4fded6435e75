"""Proxies: what is read as one, for whom it counts, and what becomes of each answer to CONNECT."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.proxies import HttpProxy
from warren.errors import OperationFailed, Unreachable, UsageError, WarrenError
from warren.reach.proxy import Proxy, ask_to_connect, proxy_from, proxy_from_environment


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.example:3128", Proxy("proxy.example", 3128)),
        ("HTTP://proxy.example/", Proxy("proxy.example", 80)),
        ("proxy.example:8080", Proxy("proxy.example", 8080)),
        ("http://[2001:db8::1]:3128", Proxy("2001:db8::1", 3128)),
        ("http://anna:p%40ss@10.0.0.1:3128", Proxy("10.0.0.1", 3128, "anna", "p@ss")),
        ("http://anna@10.0.0.1:3128", Proxy("10.0.0.1", 3128, "anna", "")),
    ],
)
def test_addresses_of_proxies(url: str, proxy: Proxy) -> None:
    assert proxy_from(url) == proxy


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "is not an address"),
        ("http://", "is not an address"),
        ("http://proxy:99999", "is not an address"),
        ("http://proxy:port", "is not an address"),
        ("http://[::1", "is not an address"),
        ("http://[proxy]:1", "is not an address"),
        ("http://proxy/path", "is not an address"),
        ("http://proxy?x", "is not an address"),
        ("http://proxy:0", "has port 0"),
        ("https://proxy:443", "of a kind that Warren does not speak"),
        ("socks5://proxy:1080", "of a kind that Warren does not speak"),
        ("http://an%3Ana:x@proxy", "contains a colon"),
        ("http://" + "x" * 300 + ".example", "is not an address"),
    ],
)
def test_what_is_no_proxy_is_refused_in_a_sentence(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        proxy_from(url)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["ftp://anna:hunter2@proxy:1", "http://anna:hunter2@proxy:x", "anna:hunter2@proxy:x"])
def test_a_password_is_never_repeated(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        proxy_from(url)
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(proxy_from("http://anna:hunter2@proxy:1"))


@given(st.text(max_size=60))
def test_any_text_is_a_proxy_or_a_usage_error(text: str) -> None:
    try:
        proxy = proxy_from(text)
    except UsageError:
        return
    assert 0 < proxy.port < 65_536


def test_the_environment_names_a_proxy() -> None:
    environment = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.org, 10.0.0.0/8"}
    assert proxy_from_environment(environment) == Proxy("proxy", 3128, no_proxy=("example.org", "10.0.0.0/8"))
    assert proxy_from_environment({"https_proxy": "small:1", "HTTPS_PROXY": "LARGE:1"}) == Proxy("small", 1)
    assert proxy_from_environment({"ALL_PROXY": "http://all:1"}) == Proxy("all", 1)
    assert proxy_from_environment({"HTTPS_PROXY": ""}) is None
    assert proxy_from_environment({}) is None
    with pytest.raises(UsageError, match=r"^HTTPS_PROXY: the proxy"):
        proxy_from_environment({"HTTPS_PROXY": "socks5://proxy"})


@pytest.mark.parametrize(
    ("host", "exceptions", "applies"),
    [
        ("relay.example.org", (), True),
        ("relay.example.org", ("example.org",), False),
        ("relay.example.org", (".example.org",), False),
        ("relay.example.org", ("*.EXAMPLE.org",), False),
        ("Relay.Example.Org.", ("relay.example.org",), False),
        ("badexample.org", ("example.org",), True),
        ("example.org", (".example.org",), False),
        ("relay.example.org", ("*",), False),
        ("192.0.2.1", ("*",), False),
        ("192.0.2.1", ("192.0.2.0/24",), False),
        ("192.0.2.1", ("192.0.2.1",), False),
        ("192.0.2.1", ("10.0.0.0/8", "2001:db8::/32", "example"), True),
        ("2001:db8::1", ("2001:db8::/32",), False),
        ("2001:db8::1", ("[2001:db8::1]",), False),
        ("127.0.0.1", (), False),
        ("::1", (), False),
        ("localhost", (), False),
        ("relay.example.org", (".",), True),
    ],
)
def test_exceptions(host: str, exceptions: tuple[str, ...], applies: bool) -> None:
    assert Proxy("proxy", 1, no_proxy=exceptions).applies_to(host) is applies


def ask(tmp_path: Path, proxy: HttpProxy, *, username: str | None = None, password: str = "") -> list[bytes]:
    """Ask it for a host; what it was asked."""

    async def run() -> None:
        async with proxy.running(tmp_path):
            with socket.socket() as sock:
                sock.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(sock, ("127.0.0.1", proxy.port))
                at = Proxy("127.0.0.1", proxy.port, username, password)
                async with asyncio.timeout(10):
                    await ask_to_connect(sock, at, "relay.example", 443)

    asyncio.run(run())
    return proxy.requests


def test_a_proxy_is_asked_with_the_login(tmp_path: Path) -> None:
    proxy = HttpProxy(answer=b"HTTP/1.1 200 OK\r\n\r\n")
    (request,) = ask(tmp_path, proxy, username="anna", password="p:ü")
    assert request == (
        b"CONNECT relay.example:443 HTTP/1.1\r\nHost: relay.example:443\r\n"
        b"Proxy-Authorization: Basic YW5uYTpwOsO8\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", OperationFailed, "refuses to connect to relay.example:443 (403 Forbidden)"),
        (b"HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=x\r\n\r\n", OperationFailed, "wants a login"),
        (b"HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM\r\n\r\n", OperationFailed, "wants the login NTLM, which"),
        (
            b"HTTP/1.1 407 X\r\nProxy-Authenticate: Negotiate\r\nproxy-authenticate: basic realm=x\r\n\r\n",
            OperationFailed,
            "wants a login: write it",
        ),
        (b"HTTP/1.1 502 Bad\r\n\r\n", Unreachable, "cannot reach relay.example:443 (502 Bad)"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://hotel/login\r\n\r\n",
            OperationFailed,
            "portal at http://hotel/login",
        ),
        (b"HTTP/1.1 511 Log in\r\n\r\n", OperationFailed, "(a captive portal): open a browser"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", OperationFailed, "answers itself instead of connecting"),
        (b"SSH-2.0-OpenSSH\r\n", OperationFailed, "is no HTTP proxy"),
        (b"HTTP/1.1 2000\r\n\r\n", OperationFailed, "is no HTTP proxy"),
        (b"HTTP/1.1 403 \x1b[2J\r\n\r\n", OperationFailed, "(403 ?[2J)"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n", OperationFailed, "answers itself"),
        (b"", Unreachable, "without an answer"),
    ],
)
def test_every_answer_has_its_sentence(tmp_path: Path, answer: bytes, error: type[WarrenError], words: str) -> None:
    with pytest.raises(error) as refused:
        ask(tmp_path, HttpProxy(answer=answer))
    assert words in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_refused_login_is_not_asked_for_again(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"
    with pytest.raises(OperationFailed, match="does not accept the user name and password"):
        ask(tmp_path, HttpProxy(answer=answer), username="anna", password="x")


def test_a_host_that_no_proxy_can_be_asked_for_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        with socket.socket() as sock:
            await ask_to_connect(sock, Proxy("127.0.0.1", 1), "a" * 64 + ".example", 1)

    with pytest.raises(OperationFailed, match="is not the name of a host"):
        asyncio.run(run())
