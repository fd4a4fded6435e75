"""SaveConfig: what is written is a config that means the running tunnel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from tests.unit.tunnel.fakes import apply, private_key, public_key
from warren.identity.keys import PresharedKey
from warren.model.tunnel import PeerChange, TransportAddress, TunnelChange, TunnelStatus
from warren.tunnel.config import PeerConfig, TunnelConfig, parse
from warren.tunnel.fields import Endpoint
from warren.tunnel.render import render
from warren.tunnel.sync import difference

HERE = TransportAddress(ip_address("192.0.2.1"), 7)
NAME = Endpoint("vpn.example.net", 7)
CONFIG = TunnelConfig(
    private_key("own"),
    (ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")),
    51820,
    fwmark=0xCA6C,
    mtu=1400,
    table="off",
    dns_servers=(ip_address("10.0.0.53"),),
    dns_search=("lan",),
    pre_up=("echo %i",),
    post_up=("true", "true 2"),
    pre_down=("a",),
    post_down=("b",),
    save_config=True,
    peers=(
        PeerConfig(public_key("a"), PresharedKey(bytes(range(32))), (ip_network("10.1.0.0/16"),), NAME, 25),
        PeerConfig(public_key("b")),
    ),
)


def _running(config: TunnelConfig) -> TunnelStatus:
    nothing = TunnelStatus(None, 0, 0)
    change = difference(config, nothing, config.fwmark or 0, {public_key("a"): HERE})
    assert change is not None
    return apply(nothing, change)


def _written(config: TunnelConfig, status: TunnelStatus, *, from_name: bool = True) -> TunnelConfig:
    return parse(render(config, status, config.addresses, 1400, lambda *_: from_name), "saved.conf")


def test_an_unchanged_tunnel_is_written_as_it_was_read() -> None:
    assert _written(CONFIG, _running(CONFIG)) == CONFIG


def test_what_wg_and_ip_changed_is_kept() -> None:
    change = TunnelChange(
        listen_port=9,
        peers=(
            PeerChange(public_key("b"), remove=True),
            PeerChange(public_key("c"), allowed_ips=(ip_network("::/0"),)),
        ),
    )
    status = apply(_running(CONFIG), change)
    text = render(CONFIG, status, [ip_interface("10.0.0.9/24")], 1300, lambda *_: True)
    saved = parse(text, "saved.conf")
    assert saved.addresses == (ip_interface("10.0.0.9/24"),)
    assert (saved.mtu, saved.listen_port) == (1300, 9)
    assert [peer.public_key for peer in saved.peers] == [public_key("a"), public_key("c")]
    assert saved.peers[1].allowed_ips == (ip_network("::/0"),)


def test_a_peer_that_roamed_is_written_with_the_address_it_was_heard_from() -> None:
    saved = _written(CONFIG, _running(CONFIG), from_name=False)
    assert saved.peers[0].endpoint == Endpoint("192.0.2.1", 7)


def test_choices_of_ours_are_not_written() -> None:
    open_config = replace(CONFIG, mtu=None, fwmark=None, table="auto")
    saved = _written(open_config, replace(_running(open_config), fwmark=51820))
    assert (saved.mtu, saved.fwmark, saved.table) == (None, None, "auto")
