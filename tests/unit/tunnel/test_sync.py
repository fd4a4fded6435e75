"""The one change that turns what a data plane has into what a config says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tunnel.fakes import apply, private_key, public_key
from warren.identity.keys import PresharedKey
from warren.model.tunnel import PeerChange, TransportAddress, TunnelChange, TunnelStatus
from warren.tunnel.config import PeerConfig, TunnelConfig
from warren.tunnel.sync import difference

NOTHING = TunnelStatus(None, 0, 0)
NET1, NET2 = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")
PSK = PresharedKey(bytes(range(32)))
ONE = PeerConfig(public_key("one"), PSK, (NET1,), None, 25)
TWO = PeerConfig(public_key("two"), None, (NET2,))
CONFIG = TunnelConfig(private_key("own"), listen_port=5, peers=(ONE, TWO))
HERE = TransportAddress(ip_address("192.0.2.1"), 7)


def _after(config: TunnelConfig) -> TunnelStatus:
    change = difference(config, NOTHING, 0, {})
    assert change is not None
    return apply(NOTHING, change)


def test_a_new_data_plane_is_told_everything() -> None:
    assert difference(CONFIG, NOTHING, 9, {ONE.public_key: HERE}) == TunnelChange(
        CONFIG.private_key,
        5,
        9,
        peers=(
            PeerChange(
                ONE.public_key,
                preshared_key=PSK,
                endpoint=HERE,
                persistent_keepalive_s=25,
                allowed_ips=(NET1,),
            ),
            PeerChange(TWO.public_key, allowed_ips=(NET2,)),
        ),
    )


def test_when_all_is_as_the_config_says_nothing_is_changed() -> None:
    assert difference(CONFIG, _after(CONFIG), 0, {}) is None


def test_a_roamed_endpoint_is_no_difference() -> None:
    status = _after(CONFIG)
    roamed = tuple(replace(peer, endpoint=HERE) for peer in status.peers)
    assert difference(CONFIG, replace(status, peers=roamed), 0, {}) is None


def test_a_random_port_of_the_kernel_is_no_difference() -> None:
    config = replace(CONFIG, listen_port=0)
    assert difference(config, replace(_after(config), listen_port=33333), 0, {}) is None


def test_a_peer_that_left_the_config_is_removed_and_others_are_not_mentioned() -> None:
    change = difference(replace(CONFIG, peers=(TWO,)), _after(CONFIG), 0, {})
    assert change == TunnelChange(peers=(PeerChange(ONE.public_key, remove=True),))


def test_what_is_removed_from_a_peer_is_switched_off() -> None:
    bare = PeerConfig(ONE.public_key, None, (), None, 0)
    change = difference(replace(CONFIG, peers=(bare, TWO)), _after(CONFIG), 0, {})
    assert change == TunnelChange(
        peers=(
            PeerChange(
                ONE.public_key,
                preshared_key=PresharedKey(bytes(32)),
                persistent_keepalive_s=0,
                replace_allowed_ips=True,
            ),
        )
    )


def test_the_last_peer_that_names_a_network_gets_it() -> None:
    greedy = replace(TWO, allowed_ips=(NET1, NET2))
    status = _after(replace(CONFIG, peers=(ONE, greedy)))
    assert [peer.allowed_ips for peer in status.peers] == [(), (NET1, NET2)]
    assert difference(replace(CONFIG, peers=(ONE, greedy)), status, 0, {}) is None


_peers = st.lists(
    st.builds(
        PeerConfig,
        st.sampled_from([public_key(name) for name in "abcd"]),
        st.sampled_from([None, PSK]),
        st.lists(st.sampled_from([ip_network(f"10.{n}.0.0/16") for n in range(5)]), unique=True).map(tuple),
        st.none(),
        st.sampled_from([0, 25]),
    ),
    unique_by=lambda peer: peer.public_key,
)
_configs = st.builds(
    TunnelConfig,
    st.sampled_from([private_key("x"), private_key("y")]),
    listen_port=st.sampled_from([0, 5, 6]),
    peers=_peers,
)


@given(_configs, _configs, st.sampled_from([0, 7]))
def test_from_any_config_to_any_other_one_change_suffices(old: TunnelConfig, new: TunnelConfig, mark: int) -> None:
    status = _after(old)
    change = difference(new, status, mark, {})
    if change is not None:
        status = apply(status, change)
    assert difference(new, status, mark, {}) is None
    assert {peer.public_key for peer in status.peers} == {peer.public_key for peer in new.peers}
