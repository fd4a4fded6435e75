from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.waiting import until
from tests.unit.coordinator.web.harness import (
    GENEROUS,
    Running,
    authenticate,
    enrol,
    receive,
    running,
)
from warren.coordinator.limits import Limits, Rate
from warren.coordinator.problems import Problem
from warren.coordinator.service import Service
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Candidate, NodeRecord
from warren.model.verified import sign
from warren.proto.control import messages, server
from warren.proto.control.messages import (
    Accepted,
    Leave,
    Publish,
    Published,
    Refused,
    Signal,
    Undeliverable,
    Update,
    pack,
)


def record(network: VerifyKey, node: SigningKey, version: int = 1) -> Publish:
    document = NodeRecord(
        network=network.raw,
        version=version,
        node=node.verify_key.raw,
        wireguard_key=bytes(range(32)),
        candidates=(Candidate(kind="host", address="2001:db8::1", port=51820),),
    )
    return Publish(record=sign(document, node).envelope)


async def whole_map(connection: Any) -> list[Update]:
    """Everything up to the end of the change that is under way."""
    found = []
    for _ in range(100):
        update = await receive(connection)
        assert isinstance(update, Update)
        found.append(update)
        if not update.more:
            return found
    raise AssertionError("a map without end")


async def closed(connection: Any) -> ConnectionClosed:
    for _ in range(100):
        try:
            await asyncio.wait_for(connection.recv(), 30)
        except ConnectionClosed as error:
            return error
    raise AssertionError("it goes on and on")


async def member(coordinator: Running, network: VerifyKey, name: str) -> tuple[Any, SigningKey]:
    """A connected member that has the whole map."""
    key = await coordinator.make_member(network, name)
    connection = await coordinator.socket()
    assert isinstance(await authenticate(coordinator, connection, network, key), Accepted)
    await whole_map(connection)
    return connection, key


async def next_of(connection: Any, kind: type) -> Any:
    for _ in range(100):
        message = await receive(connection)
        if isinstance(message, kind):
            return message
    raise AssertionError(f"no {kind.__name__} comes")


def test_a_node_enrols_with_a_ticket_and_gets_the_whole_map() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            secret = await coordinator.make_ticket(network)
            node = SigningKey(os.urandom(32))
            async with await coordinator.socket() as connection:
                answer = await enrol(coordinator, connection, network, node, secret, "web1")
                assert isinstance(answer, Accepted)
                assert answer.observed == "127.0.0.1"
                updates = await whole_map(connection)
                assert updates[0].whole
                assert {envelope.kind for update in updates for envelope in update.put} >= {"network", "membership"}
            (found,) = await coordinator.service.members(coordinator.admin, "home")
            assert found.name == "web1"

    asyncio.run(scenario())


def test_a_change_reaches_every_connected_member_and_only_the_change() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            first, key = await member(coordinator, network, "web1")
            second, _ = await member(coordinator, network, "web2")
            await first.send(pack(record(network, key)))
            assert (await next_of(first, Published)).version == 1
            for _ in range(20):
                update = await next_of(second, Update)
                assert not update.whole
                if any(envelope.kind == "node" for envelope in update.put):
                    break
            else:
                pytest.fail("the record does not come")
            await first.close()
            await second.close()

    asyncio.run(scenario())


def test_a_record_with_a_number_of_an_old_backup_ends_no_session_since_the_map_tells_the_newer_one() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            key = await coordinator.make_member(network, "web1")
            await coordinator.service.publish(network.raw, key.verify_key.raw, record(network, key, 7).record)
            async with await coordinator.socket() as connection:
                assert isinstance(await authenticate(coordinator, connection, network, key), Accepted)
                await connection.send(pack(record(network, key, 2)))
                updates = await whole_map(connection)
                assert "node" in {envelope.kind for update in updates for envelope in update.put}
                await connection.send(pack(record(network, key, 8)))
                assert (await next_of(connection, Published)).version == 8

    asyncio.run(scenario())


def test_who_comes_back_gets_what_is_missing_since_its_revision() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            key = await coordinator.make_member(network, "web1")
            async with await coordinator.socket() as connection:
                await authenticate(coordinator, connection, network, key)
                revision = (await whole_map(connection))[-1].revision
            await coordinator.make_member(network, "web2")
            async with await coordinator.socket() as connection:
                assert isinstance(await authenticate(coordinator, connection, network, key, since=revision), Accepted)
                updates = await whole_map(connection)
                assert not updates[0].whole
                assert [envelope.kind for update in updates for envelope in update.put] == ["membership"]

    asyncio.run(scenario())


def test_a_signal_reaches_the_other_member_and_one_to_nobody_is_undeliverable() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            first, key = await member(coordinator, network, "web1")
            second, other = await member(coordinator, network, "web2")
            await first.send(pack(Signal(node=other.verify_key.raw, data=b"hello")))
            signal = await next_of(second, Signal)
            assert (signal.node, signal.data) == (key.verify_key.raw, b"hello")
            await first.send(pack(Signal(node=bytes(32), data=b"hello")))
            assert (await next_of(first, Undeliverable)).to == bytes(32)
            await first.close()
            await second.close()

    asyncio.run(scenario())


def test_a_revoked_node_is_told_so_at_once_and_not_let_in_again() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            connection, key = await member(coordinator, network, "web1")
            witness, _ = await member(coordinator, network, "web2")
            await coordinator.service.revoke_member(coordinator.admin, "home", "web1")
            refused = await next_of(connection, Refused)
            assert refused.kind == "revoked"
            await closed(connection)
            update = await next_of(witness, Update)
            while not any(envelope.kind == "revocation" for envelope in update.put):
                update = await next_of(witness, Update)
            again = await coordinator.socket()
            refused = await authenticate(coordinator, again, network, key)
            assert isinstance(refused, Refused)
            assert refused.kind == "revoked"
            await closed(again)
            await witness.close()

    asyncio.run(scenario())


def test_of_two_connections_of_one_node_the_newer_stays() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            older, key = await member(coordinator, network, "web1")
            newer = await coordinator.socket()
            assert isinstance(await authenticate(coordinator, newer, network, key), Accepted)
            await closed(older)
            await whole_map(newer)
            await coordinator.make_member(network, "web2")
            assert await next_of(newer, Update)
            metrics = coordinator.web.metrics.text().decode()
            assert "\nwarren_node_sessions 1.0\n" in metrics
            await newer.close()

    asyncio.run(scenario())


def test_a_node_that_leaves_is_forgotten_and_the_connection_ends() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            connection, _ = await member(coordinator, network, "web1")
            await connection.send(pack(Leave()))
            await closed(connection)
            assert await coordinator.service.members(coordinator.admin, "home") == ()

    asyncio.run(scenario())


def test_a_proof_for_another_connection_or_certificate_is_refused() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            key = await coordinator.make_member(network, "web1")
            for nonce, digest in ((bytes(32), None), (None, bytes(32))):
                connection = await coordinator.socket()
                welcome = await receive(connection)
                assert isinstance(welcome, messages.Welcome)
                signed = messages.authentication_bytes(
                    network,
                    nonce or welcome.nonce,
                    digest or coordinator.certificates.current.certificate_sha256,
                )
                await connection.send(
                    pack(
                        messages.Authenticate(
                            protocol=1, network=network.raw, node=key.verify_key.raw, signature=key.sign(signed)
                        )
                    )
                )
                refused = await receive(connection)
                assert isinstance(refused, Refused)
                assert refused.kind == "bad-proof"
                await closed(connection)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"x" * 5000,
        pack(Leave()),
        pack(Signal(node=bytes(32), data=b"")),
        pack(messages.Report(uptime_s=1.0)),
    ],
)
def test_whatever_comes_before_a_proof_ends_the_connection(message: bytes) -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            connection = await coordinator.socket()
            await receive(connection)
            await connection.send(message)
            refused = await receive(connection)
            assert isinstance(refused, Refused)
            assert refused.kind == "protocol"
            await closed(connection)

    asyncio.run(scenario())


def test_who_proves_nothing_in_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PROVE_WITHIN_S", 0.05)

    async def scenario() -> None:
        async with running() as coordinator:
            connection = await coordinator.socket()
            await receive(connection)
            refused = await receive(connection)
            assert isinstance(refused, Refused)
            assert refused.retry_after_s
            await closed(connection)

    asyncio.run(scenario())


def test_guessed_tickets_are_slowed_down_by_source() -> None:
    import dataclasses

    from warren.coordinator.limits import Rate

    async def scenario() -> None:
        async with running(dataclasses.replace(GENEROUS, failures=Rate(burst=2, per_s=0.001))) as coordinator:
            network = await coordinator.make_network("home")
            kinds = []
            for _ in range(2):
                connection = await coordinator.socket()
                node = SigningKey(os.urandom(32))
                refused = await enrol(coordinator, connection, network, node, os.urandom(32), "guess")
                assert isinstance(refused, Refused)
                kinds.append(refused.kind)
                await closed(connection)
            connection = await coordinator.socket()
            kinds.append((await next_of(connection, Refused)).kind)
            await closed(connection)
            assert kinds == ["ticket-unknown", "ticket-unknown", "limit"]

    asyncio.run(scenario())


def test_a_member_that_connects_anew_all_the_time_is_slowed_down_and_the_others_are_not() -> None:
    async def scenario() -> None:
        async with running(limits=Limits(sessions=Rate(burst=3, per_s=0.01))) as coordinator:
            network = await coordinator.make_network("home")
            key = await coordinator.make_member(network, "web1")
            other = await coordinator.make_member(network, "web2")
            for expected in (Accepted, Accepted, Accepted, Refused):
                async with await coordinator.socket() as connection:
                    answer = await authenticate(coordinator, connection, network, key)
                    assert isinstance(answer, expected)
            assert answer.kind == "limit"
            assert answer.retry_after_s is not None
            async with await coordinator.socket() as connection:
                assert isinstance(await authenticate(coordinator, connection, network, other), Accepted)

    asyncio.run(scenario())


def test_records_are_counted_by_member_and_not_by_connection() -> None:
    async def scenario() -> None:
        async with running(limits=Limits(records=Rate(burst=3, per_s=0.01))) as coordinator:
            network = await coordinator.make_network("home")
            key = await coordinator.make_member(network, "web1")
            for version in (1, 2, 3):
                async with await coordinator.socket() as connection:
                    await authenticate(coordinator, connection, network, key)
                    await connection.send(pack(record(network, key, version)))
                    assert (await next_of(connection, Published)).version == version
            async with await coordinator.socket() as connection:
                await authenticate(coordinator, connection, network, key)
                await connection.send(pack(record(network, key, 4)))
                assert (await next_of(connection, Refused)).kind == "limit"

    asyncio.run(scenario())


def test_when_the_coordinator_stops_its_nodes_are_told_to_come_back() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            connection, _ = await member(coordinator, network, "web1")
            coordinator.web.server.stop()
            error = await closed(connection)
            assert error.rcvd is not None
            assert error.rcvd.code == 1012  # RFC 6455's registry: service restart

    asyncio.run(scenario())


def test_a_node_that_does_not_read_is_dropped_and_the_others_are_served() -> None:
    import dataclasses

    async def scenario() -> None:
        async with running(dataclasses.replace(GENEROUS, write_s=0.2)) as coordinator:
            network = await coordinator.make_network("home")
            key = await coordinator.make_member(network, "deaf")
            deaf = await coordinator.socket(max_queue=1)
            assert isinstance(await authenticate(coordinator, deaf, network, key), Accepted)
            deaf.transport.pause_reading()
            session = coordinator.web.hub.session(network.raw, key.verify_key.raw)
            assert session is not None
            good, good_key = await member(coordinator, network, "good")
            for _ in range(200):
                for _ in range(20):
                    session.signal(good_key.verify_key.raw, bytes(4000))
                await asyncio.sleep(0)
                if coordinator.web.hub.session(network.raw, key.verify_key.raw) is None:
                    break
                await asyncio.sleep(0.01)
            assert coordinator.web.hub.session(network.raw, key.verify_key.raw) is None
            await good.send(pack(record(network, good_key)))
            assert await next_of(good, Published)
            await good.close()
            deaf.transport.abort()

    asyncio.run(scenario())


def test_a_node_that_does_not_answer_pings_is_noticed() -> None:
    import dataclasses

    async def scenario() -> None:
        async with running(dataclasses.replace(GENEROUS, ping_s=0.1)) as coordinator:
            network = await coordinator.make_network("home")
            key = await coordinator.make_member(network, "gone")
            connection = await coordinator.socket()
            await authenticate(coordinator, connection, network, key)
            connection.transport.pause_reading()  # like a host whose power has gone
            await until(lambda: coordinator.web.hub.session(network.raw, key.verify_key.raw) is None)
            connection.transport.abort()

    asyncio.run(scenario())


def test_a_member_comes_in_only_when_it_is_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise Problem("not-a-member")

    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            key = await coordinator.make_member(network, "web1")
            monkeypatch.setattr(Service, "admit", refuse)
            connection = await coordinator.socket()
            refused = await authenticate(coordinator, connection, network, key)
            assert isinstance(refused, Refused)
            assert refused.kind == "not-a-member"
            await closed(connection)

    asyncio.run(scenario())


def test_where_a_node_connects_from_is_what_the_socket_says() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            key = await coordinator.make_member(network, "web1")
            forged = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http", "Forwarded": "for=192.0.2.1"}
            async with await coordinator.socket(additional_headers=forged) as connection:
                accepted = await authenticate(coordinator, connection, network, key)
                assert isinstance(accepted, Accepted)
                assert accepted.observed == "127.0.0.1"

    asyncio.run(scenario())
