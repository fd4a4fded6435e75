"""SOCKS5 for programs outside a nest: curl and apt fetch from the overlay, by names that only the overlay has."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from collections.abc import Iterator
from hashlib import sha256

import pytest

from tests.support.l4_nest import NEST, PEER, SOCKS_PORT, NestWorld, echo, socks_entry
from tests.support.labs import IS_ROOT
from warren.lab import Host, Lab
from warren.proto import socks

APT = "/usr/lib/apt/apt-helper"
NEEDED = ("curl", APT)
MISSING = [program for program in NEEDED if shutil.which(program) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
CONTENT = os.urandom(2_000_000)
WEB, ECHO = 8000, 7777
FETCHED = (0, True)


@pytest.fixture(scope="module")
def world(lab_privilege: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NestWorld]:
    """The peer serves a page; nothing in the router's own network leads there."""
    with Lab(name="test", seed=1, artifacts=tmp_path_factory.mktemp("socks")) as lab:
        made = NestWorld(lab)
        try:
            pages = made.peer.directory / "pages"
            pages.mkdir()
            (pages / "page").write_bytes(CONTENT)
            for address in PEER:
                made.peer.start(["python3", "-m", "http.server", "-b", address, "-d", str(pages), str(WEB)])
                place = f"[{address}]" if ":" in address else address
                made.peer.wait_for(["sh", "-c", f"ss -Hlnt | grep -qF '{place}:{WEB}'"])
            yield made
        finally:
            made.close()


def serving(world: NestWorld, owner_uid: int | None) -> None:
    """A new entry: nothing has been counted."""
    world.configure()
    world.configure(socks_entry(owner_uid))
    world.answer_names()


def curl(host: Host, url: str, *options: str, user: str | None = None) -> tuple[int, bool]:
    """Exit status, and whether the page was fetched as it is."""
    command = 'set -o pipefail; curl -sS --max-time 30 "$@" | sha256sum'
    done = host.run(["bash", "-c", command, "curl", *options, url], check=False, user=user)
    return done.returncode, done.stdout.split()[0] == sha256(CONTENT).hexdigest()


def proxy(host: str = "127.0.0.1") -> tuple[str, str]:
    return "--socks5-hostname", f"{host}:{SOCKS_PORT}"


def test_curl_fetches_by_name_and_by_address(world: NestWorld) -> None:
    serving(world, None)
    for options in (proxy(), proxy("[::1]")):
        for name in ("peer", "peer4", PEER[0], f"[{PEER[1]}]"):
            assert curl(world.router, f"http://{name}:{WEB}/page", *options) == FETCHED
    by_itself = ("--socks5", f"127.0.0.1:{SOCKS_PORT}")  # curl resolves: addresses alone
    assert curl(world.router, f"http://{PEER[0]}:{WEB}/page", *by_itself) == FETCHED
    (state,) = world.status().entries
    assert state.opened == 9
    assert state.bytes_out > 9 * len(CONTENT)
    assert not state.refused


def test_curl_is_told_why_not(world: NestWorld) -> None:
    serving(world, None)
    proxy_failed = 97
    for url in (
        f"http://127.0.0.1:{SOCKS_PORT}/",
        "http://192.168.50.2:80/",  # of the router's own network
        "http://10.99.0.2:81/",  # nobody listens there
        "http://nobody:80/",
        "http://outside:80/",  # a name of an address that is none of the overlay's
        "http://localhost:80/",
    ):
        assert curl(world.router, url, *proxy())[0] == proxy_failed, url
    (state,) = world.status().entries
    assert state.refused == {"policy": 3, "connect": 1, "unresolved": 2}


def test_apt_fetches_by_name(world: NestWorld) -> None:
    serving(world, None)
    got = world.router.directory / "got"
    for host in ("127.0.0.1", "[::1]"):
        got.unlink(missing_ok=True)
        option = f"Acquire::http::Proxy=socks5h://{host}:{SOCKS_PORT}"
        world.router.run([APT, "-o", option, "download-file", f"http://peer:{WEB}/page", str(got)])
        assert got.read_bytes() == CONTENT


def test_datagrams_of_an_association_reach_the_overlay_by_name_and_by_address(world: NestWorld) -> None:
    serving(world, os.getuid())
    servers = [world.peer.begin(echo, address, ECHO) for address in PEER]
    for address in PEER:
        world.peer.wait_for(["sh", "-c", f"ss -Hlnu | grep -F '{address}' | grep -q :{ECHO}"])
    assert world.router.call(associate_and_ask) == {"peer4", *PEER}
    assert not any(server.is_over for server in servers)
    assert world.status().entries[0].refused == {}


def associate_and_ask() -> set[str]:
    """Which of the peer's addresses and names answer as they should."""
    answered = set()
    for host in ("127.0.0.1", "::1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_connection((host, SOCKS_PORT)) as control, socket.socket(family, socket.SOCK_DGRAM) as sock:
            control.settimeout(30)
            sock.settimeout(30)
            control.sendall(b"\5\1\0\5\3\0\1" + bytes(6))
            heard = b""
            while len(heard) < (24 if ":" in host else 12):
                heard += control.recv(64)
            sock.connect((host, int.from_bytes(heard[-2:])))
            for name in ("peer4", *PEER):
                place = b"\3" + bytes((len(name),)) + name.encode() + ECHO.to_bytes(2)
                sock.send(bytes(3) + place + b"question")
                answer = socks.datagram_untrusted(heard := sock.recv(2000))
                expected = PEER[0] if name == "peer4" else name
                nest = NEST[PEER.index(expected)]
                if (str(answer.host), heard[answer.offset :]) == (expected, f"{nest} question".encode()):
                    answered.add(name)
    return answered


@pytest.mark.skipif(not IS_ROOT, reason="needs two users")
def test_only_the_same_user_and_root_are_served(world: NestWorld) -> None:
    nobody, other = pwd.getpwnam("nobody"), pwd.getpwnam("daemon")
    serving(world, nobody.pw_uid)
    url = f"http://peer:{WEB}/page"
    for options in (proxy(), proxy("[::1]")):
        assert curl(world.router, url, *options, user="nobody") == FETCHED
        assert curl(world.router, url, *options) == FETCHED
        status, fetched = curl(world.router, url, *options, user=other.pw_name)
        assert (status != 0, fetched) == (True, False)
    (state,) = world.status().entries
    assert state.refused == {"source": 2}
    assert state.last_refusal.endswith(f"is of user {other.pw_uid}, and this is for user {nobody.pw_uid}")
