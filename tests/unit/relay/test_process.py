"""A relay as a child process: what owner and child say to each other, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from warren.errors import OperationFailed
from warren.model.tunnel import TransportAddress
from warren.proto.stun.message import Class, Method, decode_untrusted, encode
from warren.relay.child import pack_config, unpack_config
from warren.relay.config import RelayConfig
from warren.relay.process import RelayProcess

LOOPBACK = RelayConfig(listen=(ip_address("127.0.0.1"),), udp_port=0, users={"u": "p"})


def test_a_configuration_crosses_the_socket_whole() -> None:
    config = RelayConfig(
        listen=(ip_address("127.0.0.1"), ip_address("::1")),
        udp_port=None,
        tls_port=0,
        external_addresses=(ip_address("203.0.113.7"),),
        secrets=(b"\0\xff" * 10,),
        users={"u": "p"},
        allow_peers=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
        own_ports=(51820,),
        metrics=TransportAddress(ip_address("::1"), 9641),
        state=Path("/var/lib/relay"),
        drain_s=1.5,
    )
    assert unpack_config(pack_config(config)) == config


def test_a_configuration_does_not_show_its_secrets() -> None:
    config = RelayConfig(secrets=(b"0123456789abcdef",), users={"u": "pass-of-u"})
    assert "0123456789" not in repr(config)
    assert "pass-of-u" not in repr(config)


def test_it_serves_is_asked_and_is_stopped() -> None:
    async def work() -> None:
        relay = RelayProcess(LOOPBACK)
        ready = await relay.start()
        assert ready.udp_port
        assert [str(address) for address in ready.addresses][:1] == ["127.0.0.1"]
        await asyncio.to_thread(_binding, ready.udp_port)
        await relay.set_users({"v": "q"})
        await relay.set_revoked(("w",))
        assert (await relay.counters())["allocations"] == 0
        await relay.stop()
        assert await relay.wait_closed() == 0
        with pytest.raises(OperationFailed, match="ended"):
            await relay.counters()

    asyncio.run(work())


def test_secrets_are_neither_in_its_arguments_nor_in_its_environment() -> None:
    async def work() -> None:
        relay = RelayProcess(RelayConfig(listen=LOOPBACK.listen, udp_port=0, secrets=(b"0123456789abcdef",)))
        await relay.start()
        shown = Path(f"/proc/{relay.pid}/cmdline").read_bytes() + Path(f"/proc/{relay.pid}/environ").read_bytes()
        await relay.stop()
        assert b"0123456789" not in shown
        assert b"0123456789abcdef".hex().encode() not in shown

    asyncio.run(work())


def test_a_port_that_is_taken_is_told_in_one_sentence() -> None:
    async def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            with pytest.raises(OperationFailed, match=f"127.0.0.1 UDP port {port} cannot be had"):
                await RelayProcess(RelayConfig(listen=LOOPBACK.listen, udp_port=port, users={"u": "p"})).start()

    asyncio.run(work())


def test_its_death_is_noticed() -> None:
    async def work() -> None:
        relay = RelayProcess(LOOPBACK)
        await relay.start()
        assert relay.pid is not None
        os.kill(relay.pid, signal.SIGKILL)
        assert await relay.wait_closed() == -signal.SIGKILL
        await relay.stop()

    asyncio.run(work())


def _binding(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.connect(("127.0.0.1", port))
        client.send(encode(Method.BINDING, Class.REQUEST, bytes(12)))
        assert decode_untrusted(client.recv(2048)).cls is Class.SUCCESS
