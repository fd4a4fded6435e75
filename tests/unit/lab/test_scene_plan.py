from __future__ import annotations

from tests.unit.lab.scenes import planned


def test_servers_and_sites_have_public_addresses_in_the_order_of_the_scene() -> None:
    found = planned()
    assert [(one.name, one.addresses, one.roles) for one in found.servers] == [
        ("one", ("45.80.1.2", "2a0c:d000:1::2"), ("coordinator",)),
        ("dc", ("45.80.2.2",), ("relay",)),
    ]
    assert [(one.name, one.addresses, one.prefixes) for one in found.sites] == [
        ("home", ("45.80.3.2",), ("192.168.1.0/24",)),
        ("campus", ("45.80.4.2",), ("45.81.4.0/24",)),
        ("six", ("45.80.5.2", "2a0c:d000:5::2"), ("2a0c:d000:5:1::/64",)),
    ]
    assert found.sites[1].link == "delay_s=0.5"
    assert found.urls == ("https://45.80.1.2:8443", "https://[2a0c:d000:1::2]:8443")


def test_a_host_of_two_sites_has_an_uplink_to_each_and_the_first_counts_more() -> None:
    home, campus, six = planned().sites
    assert [(up.host, up.interface, up.addresses, up.metric) for up in (*home.uplinks, *six.uplinks)] == [
        ("alice", "eth0", ("192.168.1.10",), None),
        ("laptop", "eth0", ("192.168.1.11",), None),
        ("laptop", "eth1", ("2a0c:d000:5:1::a",), 100),
        ("carol", "eth0", ("2a0c:d000:5:1::b",), None),
    ]
    assert campus.uplinks[0].addresses == ("45.81.4.10",)
    assert planned().hosts == ("one", "dc", "alice", "laptop", "bob", "carol")


def test_networks_have_ranges_of_their_own_and_members_are_counted_once() -> None:
    found = planned()
    assert [network.ipv4 for network in found.networks] == ["10.77.0.0/16", "10.78.0.0/16"]
    assert found.members == ("alice", "bob", "one")
