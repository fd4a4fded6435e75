"""The agent's interface: described, and asked by methods."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec

from tests.unit.api.varlink_echo import (
    serving,
)
from warren.api.varlink_agent import METHODS, AgentClient, JoinRequest, StatusAnswer, agent_at, description
from warren.api.varlink_server import Interface, Method
from warren.proto.control.local import VARLINK_INTERFACE, AgentStatus


def test_the_agent_s_interface_is_described_completely() -> None:
    text = description()
    assert text.startswith(f"interface {VARLINK_INTERFACE}\n")
    types = set(re.findall(r"^type (\w+) ", text, re.MULTILINE))
    used = set(re.findall(r"[:\]? ]\b([A-Z]\w+)\b[,)]", text))
    assert used == types
    assert set(re.findall(r"^method (\w+)\(", text, re.MULTILINE)) == set(METHODS)
    assert "method Join(ticket: string, name: ?string) -> (joined: Joined)" in text
    assert "state: (connected, idle, unknown, unreachable)" in text


_EXPLANATION = {
    **dict.fromkeys(("network", "node", "endpoint", "relay", "why", "verdict", "verdict_why", "hard"), ""),
    **dict.fromkeys(("rtt_ms", "mtu", "since_s", "verdict_direct", "handshake_age_s")),
    "peer": "b",
    "state": "idle",
    "path": "none",
    "nat": "",
    "peer_nat": "",
    "attempts": [],
    "relays": [],
    "coordinator": {"url": "", "connected": False, "since": None, "error": "", "clock_offset_s": None, "observed": ""},
}


def test_the_agent_is_asked_by_methods(path: Path) -> None:
    asked: list[object] = []
    status = AgentStatus(
        version="1",
        pid=1,
        started="2026-11-21T00:00:00Z",
        host="h",
        engine="userspace",
        engine_why="",
        interfaces=(),
        networks=(),
    )  # type: ignore[arg-type]
    stream = {
        **dict.fromkeys(("target", "reason", "last_refusal"), ""),
        **dict.fromkeys(("open", "opened", "bytes_in", "bytes_out"), 0),
        "id": "forward 127.0.0.1:8080",
        "kind": "forward",
        "origin": "kept",
        "state": "listening",
        "backends": [],
        "places": [],
        "refused": {"policy": 2},
    }
    answers: dict[str, object] = {
        "Forward": {"stream": stream},
        "Forwards": {"streams": []},
        "Status": {"status": msgspec.to_builtins(status)},
        "Join": {"joined": {"network": "n", "name": "a", "interface": "i", "addresses": []}},
        "Resolve": {"addresses": ["fd00::1"]},
        "Explain": {"explanation": _EXPLANATION},
    }

    def method(name: str) -> Method:
        parameters, answer = METHODS[name]

        async def handle(request: msgspec.Struct) -> msgspec.Struct:
            asked.append(request)
            return msgspec.convert(answers.get(name, {}), answer)  # type: ignore[no-any-return]

        return Method(parameters, handle)

    async def run() -> None:
        interface = Interface(VARLINK_INTERFACE, description(), {name: method(name) for name in METHODS})
        async with serving(path, interface), agent_at(path) as agent:
            assert isinstance(agent, AgentClient)
            assert (await agent.status()).host == "h"
            assert (await agent.join("warren-ticket:x")).name == "a"
            assert await agent.resolve("web1") == ("fd00::1",)
            assert (await agent.explain("web1")).peer == "b"
            assert (await agent.forward("8080", "db:80")).id == "forward 127.0.0.1:8080"
            assert await agent.forwards() == ()
            await agent.unforward("8080")
            await agent.leave("home")
            await agent.reload()
            await agent.stop()

    asyncio.run(run())
    assert len(asked) == len(METHODS)
    assert JoinRequest("warren-ticket:x") in asked
    assert "ticket:x" not in repr(asked)
    assert StatusAnswer in METHODS["Status"]
