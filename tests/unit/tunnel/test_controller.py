"""The life of a tunnel on a host in memory: up, kept, reloaded, restarted, adopted, down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from tests.unit.tunnel.fakes import FakeHost, private_key, public_key
from warren.errors import OperationFailed
from warren.linux.netlink_values import Address, Route
from warren.model.tunnel import TransportAddress
from warren.tunnel import controller as controller_module
from warren.tunnel import preflight
from warren.tunnel.config import parse
from warren.tunnel.controller import Controller
from warren.tunnel.files import ConfigFile
from warren.tunnel.journal import Journal

_STEPS_MAX = 2_000_000  # a hook is a process, on a machine that may be busy

TEXT = f"""\
[Interface]
PrivateKey = {private_key("own").base64}
Address = 10.0.0.1/24
ListenPort = 0
DNS = 10.0.0.53
[Peer]
PublicKey = {public_key("peer").base64}
AllowedIPs = 10.0.0.2/32, 0.0.0.0/0
Endpoint = 192.0.2.1:7
"""
HERE = TransportAddress(ip_address("192.0.2.1"), 7)


class Site:
    """A host in memory and the directory that has the config and the journal."""

    def __init__(self, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog
        self.host = FakeHost()
        self.path = directory / "home.conf"
        self.marks = directory
        self.write(TEXT)

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self.path.chmod(0o600)

    def controller(self) -> Controller:
        config = parse(self.path.read_text(), self.path.name)
        journal = Journal.read("home", self.path.parent)
        return Controller(ConfigFile(self.path, "home"), config, self.host.world(), journal)

    async def start(self) -> tuple[Controller, asyncio.Task[None]]:
        """A controller whose tunnel is up, and the task it runs in."""
        self.caplog.clear()
        controller = self.controller()
        task = asyncio.create_task(controller.run())
        await until(lambda: task.done() or "home is up:" in self.caplog.text or "took over" in self.caplog.text)
        await settle()
        if task.done():
            await task
        return controller, task

    async def start_and_kill(self) -> None:
        """What SIGKILL does: the controller gets no chance to clean up."""
        _, task = await self.start()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Controller]:
        """A controller whose tunnel is up; stopped at the end."""
        controller, task = await self.start()
        yield controller
        controller.stop()
        await task

    def journal(self) -> Journal:
        return Journal.read("home", self.path.parent)

    async def snapshot(self) -> tuple[object, ...]:
        netlink = self.host.netlink
        return (
            await netlink.links(),
            await netlink.addresses(),
            await netlink.routes(),
            await netlink.rules(),
            dict(self.host.nft.contents),
            dict(self.host.sysctls.values),
            dict(self.host.resolver.present),
            sorted(entry.name for entry in self.path.parent.iterdir()),
        )


async def until(condition: Callable[[], object]) -> None:
    for _ in range(_STEPS_MAX):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("this did not come true")


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Site:
    caplog.set_level("INFO")
    monkeypatch.setattr(preflight, "check_tun", lambda: None)
    monkeypatch.setattr(controller_module, "RESTART_FIRST_S", 0.0)
    return Site(tmp_path, caplog)


def test_a_tunnel_comes_up_and_leaves_nothing(site: Site) -> None:
    async def scenario() -> None:
        before = await site.snapshot()
        netlink = site.host.netlink
        async with site.running():
            plane = site.host.plane
            assert plane.present.private_key == private_key("own")
            assert plane.present.fwmark == 51820
            (peer,) = plane.present.peers
            assert (peer.endpoint, len(peer.allowed_ips)) == (HERE, 2)
            assert Address("home", ip_interface("10.0.0.1/24")) in await netlink.addresses()
            assert Route(ip_network("0.0.0.0/0"), "home", 51820) in await netlink.routes()
            assert [link.mtu for link in await netlink.links() if link.name == "home"] == [1420]
            assert len([rule for rule in await netlink.rules() if rule.version == 4]) == 5
            assert {table.name for table in site.host.nft.contents} == {"warren-home"}
            assert site.host.sysctls.values == {"net/ipv4/conf/all/src_valid_mark": "1"}
            assert "home" in site.host.resolver.present
        assert await site.snapshot() == before

    asyncio.run(scenario())


def test_the_mtu_follows_the_way_to_the_peers(site: Site) -> None:
    async def scenario() -> None:
        netlink = site.host.netlink
        await netlink.set_link("eth0", up=True, mtu=1450)
        await netlink.add_address(Address("eth0", ip_interface("192.0.2.7/24")))
        async with site.running():
            assert [link.mtu for link in await netlink.links() if link.name == "home"] == [1370]

    asyncio.run(scenario())


def test_a_controller_that_was_killed_is_followed_by_one_that_changes_nothing(site: Site) -> None:
    async def scenario() -> None:
        before = await site.snapshot()
        await site.start_and_kill()
        up = await site.snapshot()
        plane = site.host.plane
        told = len(plane.changes)
        async with site.running():
            assert "took over its data plane, nothing had to be changed" in site.caplog.text
            assert await site.snapshot() == up
            assert site.host.planes == [plane]
            assert len(plane.changes) == told
        assert await site.snapshot() == before

    asyncio.run(scenario())


def test_a_config_that_changed_before_adoption_is_settled(site: Site) -> None:
    async def scenario() -> None:
        before = await site.snapshot()
        await site.start_and_kill()
        site.write(TEXT.replace("10.0.0.1/24", "10.0.0.9/24").replace("0.0.0.0/0", "10.5.0.0/16"))
        async with site.running():
            netlink = site.host.netlink
            assert site.host.plane.present.fwmark == 0
            assert [a.value for a in await netlink.addresses()] == [ip_interface("10.0.0.9/24")]
            assert {str(route.network) for route in await netlink.routes()} == {"10.0.0.0/24", "10.5.0.0/16"}
            assert len(await netlink.rules()) == 5
            assert site.host.nft.contents == {}
        assert await site.snapshot() == before

    asyncio.run(scenario())


def test_after_both_were_killed_what_is_left_is_removed_first(site: Site) -> None:
    async def scenario() -> None:
        before = await site.snapshot()
        await site.start_and_kill()
        await site.host.plane.die()
        async with site.running():
            assert "an earlier run ended without cleaning up" in site.caplog.text
            assert len(await site.host.netlink.rules()) == 7
        assert await site.snapshot() == before

    asyncio.run(scenario())


@pytest.mark.logs_errors
def test_a_dead_data_plane_is_replaced_and_told_everything(site: Site) -> None:
    async def scenario() -> None:
        before = await site.snapshot()
        async with site.running():
            up = await site.snapshot()
            told = site.host.plane.present
            site.host.failing_starts = 2
            await site.host.plane.die()
            await until(lambda: len(site.host.planes) == 2)
            await until(lambda: site.host.plane.present.peers and site.host.plane.present.peers[0].endpoint)
            assert site.host.plane.present == told
            await settle()
            assert (await site.snapshot())[1:] == up[1:]
        assert await site.snapshot() == before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controller_module, "RESTART_MAX_S", 0.0)
        asyncio.run(scenario())


def _reloaded(site: Site, controller: Controller, text: str) -> None:
    site.write(text)
    controller.reload()


def test_a_reload_changes_what_differs_and_nothing_else(site: Site) -> None:
    async def scenario() -> None:
        async with site.running() as controller:
            plane = site.host.plane
            plane.changes.clear()
            more = f"[Peer]\nPublicKey = {public_key('new').base64}\nAllowedIPs = 10.7.0.0/16\n"
            _reloaded(site, controller, TEXT.replace("10.0.0.1/24", "10.0.0.9/24") + more)
            await until(lambda: len(plane.present.peers) == 2)
            (change,) = plane.changes
            assert [peer.public_key for peer in change.peers] == [public_key("new")]
            assert change.private_key is None
            wanted = Route(ip_network("10.7.0.0/16"), "home")
            await until(lambda: wanted in site.host.netlink._routes)
            await until(
                lambda: (
                    [a.value for a in site.host.netlink._addresses if a.interface == "home"]
                    == [ip_interface("10.0.0.9/24")]
                )
            )

    asyncio.run(scenario())


@pytest.mark.logs_errors
@pytest.mark.parametrize("text", ["[Interface]\nnonsense\n", TEXT.replace("10.0.0.1/24", "192.0.2.7/24")])
def test_a_config_that_cannot_be_used_changes_nothing(site: Site, text: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        await site.host.netlink.add_address(Address("eth0", ip_interface("192.0.2.7/24")))
        async with site.running() as controller:
            up = await site.snapshot()
            _reloaded(site, controller, text)
            await until(lambda: "going on with the config as it was" in caplog.text)
            assert await site.snapshot() == up

    asyncio.run(scenario())


@pytest.mark.logs_errors
def test_a_reload_that_the_data_plane_refuses_goes_back(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with site.running() as controller:
            plane, up = site.host.plane, await site.snapshot()
            told = plane.present
            plane.refusal = "UDP port 99 is taken"
            _reloaded(site, controller, TEXT.replace("ListenPort = 0", "ListenPort = 99"))
            await until(lambda: "UDP port 99 is taken; going on with the config as it was" in caplog.text)
            plane.refusal = None
            assert plane.present == told
            assert await site.snapshot() == up

    asyncio.run(scenario())


@pytest.mark.parametrize("where", ["PreUp", "PostUp"])
def test_a_failing_hook_ends_the_start_and_nothing_stays(site: Site, where: str) -> None:
    site.write(TEXT.replace("ListenPort = 0", f"{where} = exit 3"))

    async def scenario() -> None:
        before = await site.snapshot()
        with pytest.raises(OperationFailed, match=rf"{where}: `exit 3` ended with status 3; correct the command"):
            await site.controller().run()
        assert await site.snapshot() == before

    asyncio.run(scenario())


def test_hooks_run_in_their_order_with_the_name_of_the_interface(site: Site) -> None:
    said = site.marks / "said"
    lines = "".join(f"{name} = echo {name} %i >> {said}\n" for name in ("PostDown", "PreDown", "PostUp", "PreUp"))
    site.write(TEXT.replace("ListenPort = 0\n", lines))

    async def scenario() -> None:
        async with site.running():
            assert said.read_text() == "PreUp home\nPostUp home\n"
        assert said.read_text() == "PreUp home\nPostUp home\nPreDown home\nPostDown home\n"

    asyncio.run(scenario())


def test_a_stop_during_a_hook_ends_it_and_leaves_nothing(site: Site) -> None:
    started = site.marks / "started"
    site.write(TEXT.replace("ListenPort = 0", f"PostUp = touch {started}; sleep 100"))

    async def scenario() -> None:
        before = await site.snapshot()
        controller = site.controller()
        task = asyncio.create_task(controller.run())
        while not started.exists():
            await asyncio.sleep(0)
        controller.stop()
        await task
        started.unlink()
        assert await site.snapshot() == before

    asyncio.run(scenario())


@pytest.mark.logs_errors
def test_a_failing_predown_does_not_keep_the_tunnel_up(site: Site) -> None:
    site.write(TEXT.replace("ListenPort = 0", "PreDown = false"))

    async def scenario() -> None:
        before = await site.snapshot()
        with pytest.raises(OperationFailed, match="PreDown: `false` ended with status 1"):
            async with site.running():
                pass
        assert await site.snapshot() == before

    asyncio.run(scenario())


def test_names_that_cannot_be_resolved_do_not_keep_the_tunnel_down(site: Site) -> None:
    site.write(TEXT.replace("192.0.2.1:7", "vpn.example.net:7"))

    async def scenario() -> None:
        async with site.running() as controller:
            assert site.host.plane.present.peers[0].endpoint is None
            site.host.names["vpn.example.net"] = (HERE,)
            site.host.now += 2
            await site.host.netlink.set_link("eth0", up=True)  # the network has changed
            await until(lambda: site.host.plane.present.peers[0].endpoint == HERE)
            assert controller is not None

    asyncio.run(scenario())


def test_save_config_writes_what_wg_changed(site: Site) -> None:
    site.write(TEXT.replace("ListenPort = 0", "SaveConfig = true"))

    async def scenario() -> None:
        async with site.running():
            present = site.host.plane.present
            site.host.plane.present = replace(present, listen_port=1234)

    asyncio.run(scenario())
    saved = parse(site.path.read_text(), "home.conf")
    assert saved.listen_port == 1234
    assert saved.save_config
    assert saved.peers[0].endpoint == parse(TEXT, "x").peers[0].endpoint


def test_another_programs_tunnel_is_not_adopted(site: Site) -> None:
    async def scenario() -> None:
        plane = await site.host.start("home", 1420)
        plane.ours = False
        with pytest.raises(OperationFailed, match="run by another WireGuard program; stop it"):
            await site.controller().run()
        assert not plane.ended.is_set()
        assert plane.changes == []

    asyncio.run(scenario())


def test_a_taken_name_is_refused_before_anything_is_touched(site: Site) -> None:
    async def scenario() -> None:
        site.host.netlink.add_link("home", 1500, "veth")
        before = await site.snapshot()
        with pytest.raises(OperationFailed, match=r"interface home \(veth\) exists already and is not ours; remove it"):
            await site.controller().run()
        assert await site.snapshot() == before

    asyncio.run(scenario())


def test_an_address_in_use_is_refused_before_anything_is_touched(site: Site) -> None:
    async def scenario() -> None:
        await site.host.netlink.add_address(Address("eth0", ip_interface("10.0.0.1/8")))
        before = await site.snapshot()
        with pytest.raises(OperationFailed, match=r"address 10\.0\.0\.1 is in use on eth0; choose another Address"):
            await site.controller().run()
        assert await site.snapshot() == before

    asyncio.run(scenario())
