"""Every kind of entry can be begun; what is asked beside entries is done, too."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from msgspec import structs

from tests.support.l4_ends import LOOPBACK, backend, running, until, way_to
from warren.errors import OperationFailed
from warren.l4 import serve as module
from warren.l4.config import Config, Entry, Listen, Name, Way

UDP = Listen(protocol="udp", address="127.0.0.1")
WEB = Name(domain="a.example", connector="shop", way=way_to(1))
ENTRIES = {
    "plain": Entry(id="plain", listen=(LOOPBACK,), way=way_to(1)),
    "ftp": Entry(id="ftp", kind="ftp", listen=(LOOPBACK,), way=way_to(1)),
    "socks": Entry(id="socks", kind="socks", listen=(LOOPBACK,)),
    "sni": Entry(id="sni", kind="sni", listen=(LOOPBACK,), names=(WEB,)),
    "ended": Entry(id="ended", kind="ended", listen=(LOOPBACK,), way=way_to(1)),
    "transparent": Entry(id="transparent", kind="transparent", listen=(LOOPBACK,), allowed=("192.0.2.0/24",)),
    "udp": Entry(id="udp", listen=(UDP,), way=way_to(1)),
    "tftp": Entry(id="tftp", kind="tftp", listen=(UDP,), way=way_to(1)),
    "transparent udp": Entry(id="tudp", kind="transparent", listen=(UDP,), allowed=("192.0.2.0/24",)),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_of_each_kind_listens(name: str) -> None:
    async def main() -> None:
        async with running(ENTRIES[name]) as server:
            (state,) = server.status().entries
            if name.startswith("transparent") and "not permitted" in state.reason:
                pytest.skip("this user may not take what is meant for others")
            assert (state.id, state.state, state.reason) == (ENTRIES[name].id, "listening", "")
            assert len(state.places) == 1

    asyncio.run(main())


def test_there_is_a_module_for_each_kind_of_stream() -> None:
    kinds = {one.kind for one in ENTRIES.values()}
    assert set(module.KINDS) | {"tftp"} == kinds


def test_states_come_in_the_order_of_the_config_whatever_was_there_before() -> None:
    async def main() -> None:
        one, two, three = (structs.replace(ENTRIES["plain"], id=name) for name in "abc")
        async with running(one, two) as server:
            status = await server.configure(Config(entries=(three, two, one)))
            assert [state.id for state in status.entries] == ["c", "b", "a"]

    asyncio.run(main())


def test_another_kind_or_protocol_takes_the_place_of_what_runs() -> None:
    async def main() -> None:
        async with running(ENTRIES["plain"]) as server:
            before = server._work["plain"].running
            await server.configure(Config(entries=(structs.replace(ENTRIES["udp"], id="plain"),)))
            assert server._work["plain"].running is not before
            assert type(server._work["plain"].running).__name__ == "DatagramEntry"

    asyncio.run(main())


def test_an_entry_that_is_unchanged_is_not_touched() -> None:
    async def main() -> None:
        changes: list[int] = []
        async with running(ENTRIES["plain"], ENTRIES["udp"], changed=lambda: changes.append(1)) as server:
            before = [work.running for work in server._work.values()]
            places = [state.places for state in server.status().entries]
            await server.configure(Config(entries=(ENTRIES["plain"], ENTRIES["udp"])))
            assert [work.running for work in server._work.values()] == before
            assert [state.places for state in server.status().entries] == places
            await server.configure(Config(entries=(ENTRIES["plain"],)))
            assert changes == [], "who configured knows"

    asyncio.run(main())


def test_clients_of_caddy_are_looked_up_where_the_config_says(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "peers.sock"
        async with running() as server:
            await server.configure(Config(peer_lookup=str(path)))
            assert path.is_socket()
            await server.configure(Config())
            assert not path.exists()
            with pytest.raises(OperationFailed):
                await server.configure(Config(peer_lookup=str(tmp_path / "none" / "peers.sock")))
            assert server.status().entries == ()

    asyncio.run(main())


def test_a_state_of_a_udp_entry_that_changes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr("warren.l4.datagrams.RETRY_S", 0.01)

    async def main() -> None:
        changes: list[int] = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            place = Listen(protocol="udp", address="127.0.0.1", port=taken.getsockname()[1])
            entry = Entry(id="udp", listen=(place,), way=Way(backends=(backend(1),)))
            async with running(entry, changed=lambda: changes.append(1)) as server:
                assert server.status().entries[0].state == "failed"
                assert changes == []
                taken.close()
                await until(lambda: bool(changes))
                assert server.status().entries[0].state == "listening"

    asyncio.run(main())
