"""The rootless engine as an ordinary user has it: tunnels, healing, who is refused, and why there may be none."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import resource
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from tests.support.engine_conformance import key, peer
from tests.support.netlink_conformance import SCENARIOS
from tests.support.ordinary_user import RUN, USER, become_user, skip_unless_playable, welcome_user
from warren.engine.choose import Choice, choose
from warren.engine.rootless import calls, sockets
from warren.engine.rootless.nest import Nest
from warren.engine.rootless.now import tun_now
from warren.engine.rootless.places import DATA_PLANES, SOCKET_NAME
from warren.engine.rootless.sockets import NestSockets, enter, open_now
from warren.engine.userspace.client import UserspaceEngine
from warren.errors import OperationFailed, Unreachable
from warren.lab import Host, Lab
from warren.linux import processes
from warren.linux.netlink_values import Address
from warren.linux.nft import Table
from warren.model.tunnel import TransportAddress, TunnelChange

_TUNSETPERSIST = 0x400454CB
_IPV6_FREEBIND = 78
PATIENCE_S = 80.0
PORT, WEB = 51820, 80
BYTES = 8 << 20
A, B = "fd77::a", "fd77::b"
UNDERLAY_A, UNDERLAY_B = "10.1.0.1", "10.1.0.2"


@pytest.fixture(scope="module", autouse=True)
def _playable() -> None:
    skip_unless_playable()


@pytest.fixture
def host(lab: Lab) -> Host:
    made = lab.host("host")
    made.call(welcome_user)
    return made


@asynccontextmanager
async def node(me: str, address: str, other: str, allowed: str, where: str | None) -> AsyncIterator[Nest]:
    """A node of two, in the user's run directory."""
    nest = await Nest.start(RUN)
    try:
        engine = await UserspaceEngine.start("wg0", sockets=RUN / DATA_PLANES, nest=nest.path)
        try:
            await nest.netlink.add_address(Address("wg0", ip_interface(f"{address}/64")))
            await nest.netlink.set_link("wg0", up=True)
            endpoint = TransportAddress(ip_address(where), PORT) if where else None
            known = peer(other, f"{allowed}/128", endpoint=endpoint)
            await engine.configure(TunnelChange(key(me), listen_port=PORT, peers=(known,)))
            yield nest
        finally:
            await engine.close()
    finally:
        await nest.close()


def serve_hashes() -> None:
    """At b, until it is ended: answers each stream with the hash of what it brought. The helper is replaced after the
    first.
    """

    async def play() -> None:
        streams = 0

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal streams
            streams += 1
            whole = hashlib.sha256()
            while data := await reader.read(1 << 16):
                whole.update(data)
            writer.write(whole.hexdigest().encode())
            writer.close()
            await writer.wait_closed()
            if streams == 1:
                os.kill(nest.pid, signal.SIGKILL)
                await nest.wait_closed()
                await nest.revive()

        async with node("b", B, "a", A, None) as nest:
            door = await nest.sockets.open(socket.AF_INET6, socket.SOCK_STREAM)
            door.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)  # the address may be a moment late
            door.bind((B, WEB))
            server = await asyncio.start_server(take, sock=door)
            await server.serve_forever()

    become_user()
    asyncio.run(play())


def send_hashed(streams: int) -> tuple[list[str], list[str], int]:
    """At a: what was answered, what should have been, and how often the helper was killed: in the middle of each."""

    async def play() -> tuple[list[str], list[str], int]:
        answers, expected, killed = [], [], 0
        async with node("a", A, "b", B, UNDERLAY_B) as nest, asyncio.timeout(PATIENCE_S):
            for number in range(streams):
                data = hashlib.shake_256(bytes([number])).digest(BYTES)
                expected.append(hashlib.sha256(data).hexdigest())
                reader, writer = await asyncio.open_connection(sock=await connected(nest))
                writer.write(data[: BYTES // 2])
                await writer.drain()
                os.kill(nest.pid, signal.SIGKILL)
                await nest.wait_closed()
                killed += 1
                writer.write(data[BYTES // 2 :])
                writer.write_eof()
                answers.append((await reader.read()).decode())
                writer.close()
                await writer.wait_closed()
                with pytest.raises(OperationFailed, match="no rootless engine answers"):
                    await nest.sockets.open(socket.AF_INET6, socket.SOCK_STREAM)
                await nest.revive()
        return answers, expected, killed

    become_user()
    sockets.HEALING_S = 0.0  # type: ignore[misc]
    assert choose("auto").engine == "rootless"
    return asyncio.run(play())


async def connected(nest: Nest) -> socket.socket:
    """To b's port; b may not have come up yet."""
    while True:
        sock = await nest.sockets.open(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (B, WEB))
        except OSError:
            sock.close()
            await asyncio.sleep(0.05)
        else:
            return sock


def test_a_users_streams_lose_nothing_while_helpers_are_killed_and_replaced(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, f"{UNDERLAY_A}/24", f"{UNDERLAY_B}/24")
    for one in (a, b):
        one.call(welcome_user)
    b.begin(serve_hashes)
    answers, expected, killed = a.call(send_hashed, 2, timeout=100)
    assert answers == expected
    assert killed == 2


def _agents_come_and_go() -> None:
    """An agent is killed: the next takes over. Then the helper, too: the data plane still has the nest."""

    async def first() -> None:
        nest = await Nest.start(RUN)
        await UserspaceEngine.start("wg0", sockets=RUN / DATA_PLANES, nest=nest.path)
        await nest.netlink.add_address(Address("wg0", ip_interface("10.9.0.1/24")))
        nest.nft.run([{"add": {"table": {"family": "inet", "name": "mine"}}}])
        os.kill(os.getpid(), signal.SIGKILL)

    async def look(nest: Nest) -> None:
        assert {link.name for link in await nest.netlink.links()} == {"lo", "wg0"}
        assert ip_interface("10.9.0.1/24") in {address.value for address in await nest.netlink.addresses()}
        assert nest.nft.tables() == {Table("inet", "mine")}

    async def next_agents() -> None:
        second = await Nest.attach(RUN)
        await look(second)
        with pytest.raises(OperationFailed, match="is served already"):
            await Nest.start(RUN)
        os.kill(second.pid, signal.SIGKILL)
        await second.wait_closed()
        await second.let_go()
        with pytest.raises(Unreachable):
            await Nest.attach(RUN)
        third = await Nest.start(RUN)
        await look(third)
        engine = await UserspaceEngine.attach("wg0", sockets=RUN / DATA_PLANES)
        await engine.close()
        await third.close()
        fourth = await Nest.start(RUN)
        assert [link.name for link in await fourth.netlink.links()] == ["lo"], "nothing was left of the nest"
        await fourth.close()
        assert list(RUN.iterdir()) == [RUN / DATA_PLANES]

    become_user()
    agent = os.fork()
    if agent == 0:
        try:
            asyncio.run(first())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1]) == -signal.SIGKILL
    asyncio.run(next_agents())


def test_a_killed_agent_and_a_killed_helper_leave_a_nest_that_the_next_agent_finds(host: Host) -> None:
    host.call(_agents_come_and_go)


def _hangs() -> None:
    """A helper that is stopped, as if it hung: the next agent ends it, and the nest lives on."""

    async def play() -> None:
        first = await Nest.start(RUN)
        engine = await UserspaceEngine.start("wg0", sockets=RUN / DATA_PLANES, nest=first.path)
        os.kill(first.pid, signal.SIGSTOP)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(calls, "PATIENCE_S", 0.2)
            patch.setattr(processes, "STOP_S", 0.2)
            with pytest.raises(Unreachable):
                await Nest.attach(RUN)
        await first.wait_closed()
        await first.let_go()
        second = await Nest.start(RUN)
        assert {link.name for link in await second.netlink.links()} == {"lo", "wg0"}
        await engine.close()
        await second.close()

    become_user()
    asyncio.run(play())


def test_a_helper_that_hangs_is_replaced(host: Host) -> None:
    host.call(_hangs)


def _strangers() -> None:
    """Root, who may pass any file mode, and another user, for whom the file modes are opened."""

    def denied(user: int) -> bool:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if user:
                    become_user(user)
                open_now(RUN / SOCKET_NAME, socket.AF_INET, socket.SOCK_STREAM).close()
            except Unreachable:
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    helper = subprocess.Popen(
        [_python(), "-m", "warren.engine.rootless", str(RUN / SOCKET_NAME)],
        preexec_fn=become_user,  # noqa: PLW1509
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        text=True,
    )
    assert helper.stdout is not None
    assert helper.stdout.readline() == "ready\n"
    assert denied(0)
    assert denied(USER + 1)
    (RUN / SOCKET_NAME).chmod(0o666)
    RUN.chmod(0o755)
    assert denied(USER + 1), "it is not the file's mode alone that keeps others out"
    assert not denied(USER)
    helper.terminate()
    errors = helper.communicate(timeout=60)[1]
    assert errors.count("a process of another user was turned away") == 2
    assert helper.returncode == 0


def _python() -> str:
    import sys

    return sys.executable


def test_nobody_but_the_user_is_served(host: Host) -> None:
    host.call(_strangers)


def _exhausted() -> None:
    """A helper that may have 48 files open, and more clients than that, some of which never read."""

    async def play() -> None:
        nest = await Nest.start(RUN)
        crowd = []
        for _ in range(200):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            crowd.append(client)
            while client.connect_ex(str(nest.path)):  # the queue of connections is full
                await asyncio.sleep(0)
        sockets = NestSockets(nest.path)
        made = [await sockets.open(socket.AF_INET, socket.SOCK_STREAM) for _ in range(100)]
        made += await asyncio.gather(*(sockets.open(socket.AF_INET, socket.SOCK_STREAM) for _ in range(100)))
        assert len({sock.fileno() for sock in made}) == 200
        (await nest.sockets.open(socket.AF_INET, socket.SOCK_STREAM)).close()
        assert [link.name for link in await nest.netlink.links()] == ["lo"]
        for sock in (*crowd, *made):
            sock.close()
        await sockets.close()
        await nest.close()

    become_user()
    few = 48
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    spawn = subprocess.Popen.__init__

    def limited(self: subprocess.Popen[bytes], *args: object, **kwargs: object) -> None:
        kwargs["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
        spawn(self, *args, **kwargs)  # type: ignore[call-overload]

    subprocess.Popen.__init__ = limited  # type: ignore[method-assign]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(play())


def test_a_crowd_of_clients_does_not_end_the_helper_nor_keep_others_out(host: Host) -> None:
    host.call(_exhausted)


def _conforms() -> None:
    async def play() -> None:
        nest = await Nest.start(RUN)
        for name, scenario in SCENARIOS.items():
            tun = tun_now(nest.path, "tun0")
            fcntl.ioctl(tun, _TUNSETPERSIST, 1)
            tun.close()  # without a carrier it gets no address of its own
            try:
                await scenario(nest.netlink, "tun0")
            except BaseException as error:
                error.add_note(name)
                raise
            await nest.netlink.remove_link("tun0")
        await nest.close()

    become_user()
    asyncio.run(play())


def test_the_netlink_door_of_a_nest_conforms(host: Host) -> None:
    host.call(_conforms)


def _other_doors() -> None:
    async def play() -> None:
        nest = await Nest.start(RUN)
        status = Path(f"/proc/{nest.pid}/status").read_text()
        assert "CapEff:\t0000000000003400\n" in status, "rights over the network and no others"
        assert "NoNewPrivs:\t1\n" in status
        assert resource.prlimit(nest.pid, resource.RLIMIT_NOFILE) == (most, most), "as many files as it may have"
        assert nest.sysctls.get("net/ipv4/ip_unprivileged_port_start") == "0"
        assert nest.sysctls.get("net/ipv4/none_such") is None
        nest.sysctls.set("net/ipv4/ip_forward", "1")
        assert nest.sysctls.get("net/ipv4/ip_forward") == "1"
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "0\n", "the host's own is another"
        with pytest.raises(OperationFailed, match=r"sysctl net.ipv4.none_such=1 cannot be set"):
            nest.sysctls.set("net/ipv4/none_such", "1")
        for name in ("kernel/hostname", "net/../kernel/hostname", "/proc/sys/net/ipv4/ip_forward", "net/\0"):
            with pytest.raises(OperationFailed, match="only settings of the network"):
                nest.sysctls.set(name, "x")
        with pytest.raises(OperationFailed, match="nftables refuses the rules"):
            nest.nft.run([{"delete": {"table": {"family": "ip", "name": "absent"}}}])
        nest.nft.run([{"add": {"table": {"family": "ip", "name": "x"}}}])
        listed = nest.nft.run([{"list": {"table": {"family": "ip", "name": "x"}}}])
        assert any("table" in element for element in listed)
        await nest.close()

    become_user()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
    asyncio.run(play())


def test_sysctls_and_rules_are_those_of_the_nest(host: Host) -> None:
    host.call(_other_doors)


def _moves_in() -> None:
    async def play() -> None:
        nest = await Nest.start(RUN)
        await nest.netlink.add_address(Address("lo", ip_interface("10.8.0.1/32")))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                enter(nest.path)
                told = subprocess.run(
                    ["sh", "-c", "id -u; grep CapEff /proc/self/status; ip -brief address show lo; ping -c1 10.8.0.1"],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                words = told.split()
                with socket.socket() as door:
                    door.bind(("10.8.0.1", 80))
                assert words[:3] == [str(USER), "CapEff:", "0" * 16], "the same user, without a capability"
                assert "10.8.0.1/32" in words
                assert "1 received" in told
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(Unreachable, match="no rootless engine answers"):
            enter(RUN / "absent.sock")
        await nest.close()

    become_user()
    asyncio.run(play())


def test_a_process_that_moves_in_stays_who_it_is(host: Host) -> None:
    host.call(_moves_in)


def _is_root_inside() -> None:
    async def play() -> None:
        nest = await Nest.start(RUN, identity=False)
        assert [link.name for link in await nest.netlink.links()] == ["lo"]
        child = os.fork()
        if child == 0:
            status = 1
            try:
                enter(nest.path)
                told = subprocess.run(["ip", "link", "add", "dummy0", "type", "veth"], check=False)
                status = told.returncode or os.getuid()
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert "dummy0" in {link.name for link in await nest.netlink.links()}
        await nest.close()

    become_user()
    asyncio.run(play())


def test_whoever_wants_to_can_be_root_inside(host: Host) -> None:
    host.call(_is_root_inside)


def _chooses(prepare: Callable[[], None] | None) -> Choice | str:
    if prepare is not None:
        prepare()
    else:
        become_user()
    try:
        return choose()
    except OperationFailed as error:
        return str(error)


def _no_namespaces_for_user() -> None:
    from warren.linux import netns

    netns.unshare(netns.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{USER} 0 1")
    Path("/proc/self/gid_map").write_text(f"{USER} 0 1")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


@pytest.mark.parametrize(
    ("mode", "prepare", "words"),
    [
        (None, None, "rootless: there is no /dev/net/tun: `modprobe tun`, or give the container the device"),
        (0o600, None, "rootless: this user may not open /dev/net/tun: run as root, or `chmod 0666 /dev/net/tun`"),
        (
            0o666,
            _no_namespaces_for_user,
            "rootless: no more user namespaces are allowed: run as root, or raise the sysctl user.max_user_namespaces",
        ),
    ],
    ids=["no device", "device of root", "no user namespaces"],
)
def test_where_no_engine_works_all_reasons_are_told(
    lab: Lab, mode: int | None, prepare: Callable[[], None] | None, words: str
) -> None:
    host = lab.host("host")
    host.call(welcome_user, mode)
    told = host.call(_chooses, prepare)
    assert isinstance(told, str)
    assert told.startswith("no engine works here; userspace: ")
    assert words in told


def test_a_user_gets_the_rootless_engine_and_hears_why_and_root_the_other(host: Host) -> None:
    choice = host.call(_chooses, None)
    assert isinstance(choice, Choice)
    assert (choice.engine, choice.why) == ("rootless", "this process may make no interface of the host")
    assert host.call(choose).engine == "userspace"
    assert host.call(choose, "rootless").engine == "rootless", "also in namespaces within those of the lab"


def _as_nobody() -> str:
    async def play() -> str:
        os.chown(RUN, 65534, 65534)
        become_user(65534)
        try:
            await Nest.start(RUN)
        except OperationFailed as error:
            return str(error)
        return ""

    return asyncio.run(play())


def test_the_user_whom_strangers_look_like_is_refused(host: Host) -> None:
    assert host.call(_as_nobody) == "user 65534 stands for nobody in particular: run as another user"
