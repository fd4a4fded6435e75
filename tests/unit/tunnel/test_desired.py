"""What a config asks of the host, by the rules of wg-quick."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from tests.unit.tunnel.fakes import private_key
from warren.errors import OperationFailed
from warren.linux.netlink_values import Address, Route, Rule
from warren.tunnel.config import PeerConfig, TunnelConfig
from warren.tunnel.desired import (
    Choices,
    DefaultRoute,
    choose_default_route,
    default_route_of,
    default_versions,
    desired,
    tunnel_mtu,
)
from warren.tunnel.items import Dns, Firewall, Mtu, Sysctl, Up


def _config(addresses: Iterable[str] = (), allowed: Iterable[str] = (), **more: object) -> TunnelConfig:
    peer = PeerConfig(private_key("peer").public_key(), allowed_ips=tuple(ip_network(text) for text in allowed))
    own = tuple(ip_interface(text) for text in addresses)
    return TunnelConfig(private_key("own"), own, peers=(peer,), **more)  # type: ignore[arg-type]


def _routes(config: TunnelConfig, choices: Choices) -> list[tuple[str, int]]:
    items = desired(config, "home", choices)
    return [(str(item.network), item.table) for item in items if isinstance(item, Route)]


MTU = Choices(1420)
BOTH = DefaultRoute(51820, ((4, 32765), (6, 32765)))


def test_addresses_mtu_and_dns() -> None:
    config = _config(
        ["10.0.0.1/24", "fd00::1/64"], dns_servers=(ip_address("10.0.0.53"),), dns_search=("lan",), listen_port=5
    )
    assert desired(config, "home", Choices(1380)) == (
        Address("home", ip_interface("10.0.0.1/24")),
        Address("home", ip_interface("fd00::1/64")),
        Mtu("home", 1380),
        Up("home"),
        Dns("home", (ip_address("10.0.0.53"),), ("lan",)),
    )


def test_search_domains_alone_change_no_dns() -> None:
    items = desired(_config(dns_search=("lan",)), "home", MTU)
    assert not [item for item in items if isinstance(item, Dns)]


@pytest.mark.parametrize(
    ("addresses", "allowed", "more", "choices", "routes"),
    [
        ([], ["10.2.0.0/16", "10.1.2.3/32", "fd00::/48"], {}, MTU, ["fd00::/48", "10.1.2.3/32", "10.2.0.0/16"]),
        (["10.0.0.1/24"], ["10.0.0.2/32", "10.0.0.0/24", "10.0.0.0/16"], {}, MTU, ["10.0.0.0/16"]),
        (["10.0.0.1/32"], ["10.0.0.1/32", "10.0.0.2/32"], {}, MTU, ["10.0.0.1/32", "10.0.0.2/32"]),
        (["fd00::1/128"], ["fd00::1/128", "fd00::2/128"], {}, MTU, ["fd00::2/128"]),
        (["10.0.0.1/24"], ["10.2.0.0/16", "0.0.0.0/0"], {"table": "off"}, MTU, []),
    ],
    ids=["longest first", "covered by our network", "a lone IPv4 address covers nothing", "IPv6 covers itself", "off"],
)
def test_routes_to_the_main_table(
    addresses: list[str], allowed: list[str], more: dict[str, object], choices: Choices, routes: list[str]
) -> None:
    assert _routes(_config(addresses, allowed, **more), choices) == [(route, 254) for route in routes]


def test_a_table_of_ones_own_gets_every_route_and_no_rule() -> None:
    config = _config(["10.0.0.1/24"], ["10.0.0.2/32", "0.0.0.0/0", "::/0"], table=7)
    assert default_versions(config) == frozenset()
    assert _routes(config, Choices(1420, table=7)) == [("10.0.0.2/32", 7), ("0.0.0.0/0", 7), ("::/0", 7)]
    assert not [item for item in desired(config, "home", Choices(1420, table=7)) if isinstance(item, Rule)]


def test_the_default_route_method() -> None:
    config = _config(["10.0.0.1/24", "10.0.0.1/16", "fd00::1/64"], ["0.0.0.0/0", "::/0", "192.0.2.0/24"])
    items = desired(config, "home", Choices(1420, None, BOTH))
    assert _routes(config, Choices(1420, None, BOTH)) == [("192.0.2.0/24", 254), ("0.0.0.0/0", 51820), ("::/0", 51820)]
    assert [item for item in items if isinstance(item, Rule)] == [
        Rule(4, 32764, 254, suppress_prefixlength=0),
        Rule(4, 32765, 51820, fwmark=51820, inverted=True),
        Rule(6, 32764, 254, suppress_prefixlength=0),
        Rule(6, 32765, 51820, fwmark=51820, inverted=True),
    ]
    assert [item for item in items if isinstance(item, Firewall)] == [
        Firewall("home", 4, 51820, (ip_address("10.0.0.1"),)),
        Firewall("home", 6, 51820, (ip_address("fd00::1"),)),
    ]
    assert Sysctl("net/ipv4/conf/all/src_valid_mark", "1") in items


def test_an_ipv6_default_route_leaves_ipv4_alone() -> None:
    config = _config([], ["::/0"])
    choice = choose_default_route(config, [], [])
    assert choice == DefaultRoute(51820, ((6, 32765),))
    items = desired(config, "home", Choices(1420, None, choice))
    assert not [item for item in items if isinstance(item, Sysctl)]
    assert {item.version for item in items if isinstance(item, Rule)} == {6}


_EVERYWHERE = _config([], ["0.0.0.0/0"])
_MAIN = [Rule(4, 0, 255), Rule(4, 32766, 254), Rule(4, 32767, 253)]


def test_the_mark_is_the_first_number_whose_table_nobody_uses() -> None:
    routes = [Route(ip_network("10.0.0.0/8"), "eth0", 51820)]
    rules = [*_MAIN, Rule(6, 5000, 51821)]
    assert choose_default_route(_EVERYWHERE, routes, rules) == DefaultRoute(51822, ((4, 32765),))


def test_rules_go_before_those_of_others() -> None:
    assert choose_default_route(_EVERYWHERE, [], [*_MAIN, Rule(4, 500, 9)]) == DefaultRoute(51820, ((4, 499),))


def test_no_room_for_a_rule_is_said() -> None:
    with pytest.raises(OperationFailed, match="IPv4 rule with priority 2; give that rule a higher one"):
        choose_default_route(_EVERYWHERE, [], [*_MAIN, Rule(4, 2, 9)])


def test_a_mark_of_the_config_is_taken() -> None:
    choice = choose_default_route(_config([], ["0.0.0.0/0"], fwmark=77), [], _MAIN)
    assert choice is not None
    assert choice.mark == 77


def test_a_choice_in_force_is_kept() -> None:
    made = desired(_EVERYWHERE, "home", Choices(1420, None, DefaultRoute(51823, ((4, 400),))))
    kept = default_route_of(made)
    assert kept == DefaultRoute(51823, ((4, 400),))
    rules = [*_MAIN, *(item for item in made if isinstance(item, Rule))]
    assert choose_default_route(_EVERYWHERE, [], rules, kept) == kept
    both = choose_default_route(_config([], ["0.0.0.0/0", "::/0"]), [], rules, kept)
    assert both == DefaultRoute(51823, ((4, 400), (6, 32765)))


def test_no_default_route_no_choice() -> None:
    assert choose_default_route(_config([], ["10.0.0.0/8"]), [], _MAIN) is None
    assert default_route_of([]) is None


@pytest.mark.parametrize(
    ("paths", "default", "mtu"), [([], None, 1420), ([], 1492, 1412), ([1500, 9000], 1500, 8920), ([1400], 1500, 1320)]
)
def test_mtu_of_the_tunnel(paths: list[int], default: int | None, mtu: int) -> None:
    assert tunnel_mtu(paths, default) == mtu
