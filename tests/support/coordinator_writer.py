"""Processes that write to a coordinator's database until they are killed, and say what was acknowledged.

``python -m tests.support.coordinator_writer`` starts one for each line ``DATABASE SEED`` on stdin. A writer says
``ready PID``, then for each acknowledged write one line, whole; when it was killed, and all it said is said, ``gone``
follows. They are forked off one process, so that what a writer needs is imported once.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import sys
import time
from typing import NoReturn

from tests.support.coordinators import ADMIN_S, URL, Node
from warren.coordinator.problems import Problem
from warren.coordinator.service import Options, Service
from warren.coordinator.store import open_store
from warren.identity.signing import VerifyKey
from warren.model.tickets import read_ticket
from warren.proto.control.administration import InviteRequest, NetworkRequest

OPERATIONS_MAX = 100_000
"""Nobody waits for a writer that was not killed for ever."""
_LATE_IMPORTS = ("warren.coordinator.store_sqlite", "warren.coordinator.migrations.run")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def write(path: str, seed: int) -> None:
    chance = random.Random(seed)
    service = Service(
        await open_store(f"sqlite:///{path}"),
        urls=(URL,),
        wall_clock=time.time,
        random=os.urandom,
        options=Options(first_token_ttl_s=ADMIN_S),
    )
    await service.start()
    admin = await service.actor((await service.local_token("writer", 3600)).secret)
    if not await service.networks(admin):
        await service.create_network(admin, NetworkRequest(name="home", prefix4="10.0.0.0/8"))
    network = VerifyKey.from_text((await service.network(admin, "home")).id).raw
    say(f"ready {os.getpid()}")

    async def one() -> None:
        invite = await service.create_invite(admin, "home", InviteRequest(uses=1))
        say(f"invite {invite.id}")
        node = Node(chance.getrandbits(200))
        await service.enrol(network, node.key, read_ticket(invite.ticket, time.time()).document.secret, "n")
        say(f"member {node.text} {invite.id}")
        await service.publish(network, node.key, node.record(network, 1))
        say(f"record {node.text}")
        if chance.random() < 0.3:
            try:
                await service.revoke_member(admin, "home", node.text)
                say(f"revoked {node.text}")
            except Problem as problem:
                say(f"problem {problem}")

    for _ in range(OPERATIONS_MAX):
        await asyncio.gather(*(one() for _ in range(chance.randint(1, 4))))


def be_writer(path: str, seed: int) -> NoReturn:
    try:
        asyncio.run(write(path, seed))
    finally:
        os._exit(1)  # it should have been killed; the line loop is its parent's


def main() -> None:
    for module in _LATE_IMPORTS:
        importlib.import_module(module)
    for line in sys.stdin:
        path, seed = line.split()
        writer = os.fork()
        if writer == 0:
            be_writer(path, int(seed))
        os.waitpid(writer, 0)
        say("gone")


if __name__ == "__main__":
    main()
