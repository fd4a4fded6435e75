"""A relay for others: started, told who may, ended, tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from warren.agent.config import OwnRelay
from warren.agent.network.apply import Ledger
from warren.agent.network.relaying import RETRY_S, Relaying
from warren.errors import OperationFailed
from warren.relay.config import RelayConfig
from warren.relay.serve import Ready

WANTED = OwnRelay(3478, 443)


class FakeRelay:
    def __init__(self, config: RelayConfig, refusal: str = "") -> None:
        self.config = config
        self.refusal = refusal
        self.users = dict(config.users)
        self.ended = asyncio.Event()
        self.stopped = False

    async def start(self) -> Ready:
        if self.refusal:
            raise OperationFailed(self.refusal)
        return Ready(self.config.udp_port, None, self.config.tls_port, None, bytes(32), ())

    async def set_users(self, users: Mapping[str, str]) -> None:
        self.users = dict(users)

    async def wait_closed(self) -> int:
        await self.ended.wait()
        return 1

    async def stop(self) -> None:
        self.stopped = True
        self.ended.set()


class Scene:
    def __init__(self) -> None:
        self.now = 0.0
        self.made: list[FakeRelay] = []
        self.refusal = ""
        self.ledger = Ledger("home")
        self.relaying = Relaying("home", Path("/nowhere"), self._make, self.ledger, lambda: None, lambda: self.now)

    def _make(self, config: RelayConfig) -> FakeRelay:
        self.made.append(FakeRelay(config, self.refusal))
        return self.made[-1]

    async def keep(self, wanted: OwnRelay | None = WANTED, port: int = 51820, **users: str) -> None:
        await self.relaying.keep(wanted, port, users)
        for _ in range(10):
            await asyncio.sleep(0)


def scenario(work: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        scene = Scene()
        await work(scene)
        await scene.relaying.close()

    asyncio.run(main())


def test_a_relay_is_offered_once_it_serves_and_knows_the_members() -> None:
    async def work(scene: Scene) -> None:
        await scene.keep(alice="secret")
        (relay,) = scene.made
        assert relay.config.users == {"alice": "secret"}
        assert relay.config.own_ports == (51820,)
        offer = scene.relaying.offer
        assert offer is not None
        assert (offer.udp_port, offer.tls_port, offer.certificate_sha256) == (3478, 443, bytes(32))
        await scene.keep(bob="another")
        assert relay.users == {"bob": "another"}
        assert len(scene.made) == 1

    scenario(work)


def test_a_relay_that_is_not_wanted_any_more_ends() -> None:
    async def work(scene: Scene) -> None:
        await scene.keep(alice="secret")
        await scene.keep(None)
        assert scene.made[0].stopped
        assert scene.relaying.offer is None
        assert scene.ledger.tasks() == ()

    scenario(work)


def test_a_relay_that_cannot_start_says_why_and_is_tried_again_later() -> None:
    async def work(scene: Scene) -> None:
        scene.refusal = "UDP port 3478 is taken"
        await scene.keep()
        await scene.keep()
        assert len(scene.made) == 1
        (task,) = scene.ledger.tasks()
        assert (task.state, task.reason) == ("failed", "UDP port 3478 is taken")
        scene.refusal, scene.now = "", RETRY_S
        await scene.keep()
        assert scene.relaying.offer is not None
        assert not scene.ledger.failing()

    scenario(work)


def test_a_relay_that_dies_is_not_offered_any_more() -> None:
    async def work(scene: Scene) -> None:
        await scene.keep()
        scene.made[0].ended.set()
        await scene.keep()
        assert scene.relaying.offer is None
        assert scene.ledger.failing()
        assert scene.made[0].stopped

    scenario(work)
