from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from warren.proto.wireguard.allowed_ips import AllowedIps, IPNetwork


def filled(*claims: tuple[str, str]) -> AllowedIps[str]:
    table: AllowedIps[str] = AllowedIps()
    for network, owner in claims:
        table.insert(ip_network(network), owner)
    return table


def owner_of(table: AllowedIps[str], address: str) -> str | None:
    return table.lookup(ip_address(address).packed)


def test_the_longest_prefix_counts() -> None:
    table = filled(("0.0.0.0/0", "all"), ("10.0.0.0/8", "ten"), ("10.1.0.0/16", "one"), ("10.1.2.3/32", "host"))
    found = {a: owner_of(table, a) for a in ("9.9.9.9", "10.9.9.9", "10.1.9.9", "10.1.2.3", "10.1.2.2")}
    assert found == {"9.9.9.9": "all", "10.9.9.9": "ten", "10.1.9.9": "one", "10.1.2.3": "host", "10.1.2.2": "one"}


def test_the_families_are_apart() -> None:
    table = filled(("0.0.0.0/0", "v4"), ("::/0", "v6"))
    assert owner_of(table, "1.2.3.4") == "v4"
    assert owner_of(table, "::102:304") == "v6"
    assert owner_of(filled(("::/0", "v6")), "1.2.3.4") is None


def test_the_newer_claim_takes_exactly_the_prefix_it_names() -> None:
    table = filled(("10.0.0.0/8", "old"), ("10.1.0.0/16", "old"), ("10.0.0.0/8", "new"))
    assert (owner_of(table, "10.2.0.0"), owner_of(table, "10.1.0.0")) == ("new", "old")
    assert table.of("old") == (ip_network("10.1.0.0/16"),)
    assert table.of("new") == (ip_network("10.0.0.0/8"),)


def test_only_the_owner_can_give_a_prefix_up() -> None:
    table = filled(("10.0.0.0/8", "a"))
    table.remove(ip_network("10.0.0.0/8"), "b")
    table.remove(ip_network("10.0.0.0/9"), "a")
    assert owner_of(table, "10.0.0.1") == "a"
    table.remove(ip_network("10.0.0.0/8"), "a")
    assert owner_of(table, "10.0.0.1") is None


def test_an_owner_that_leaves_uncovers_what_was_below() -> None:
    table = filled(("10.0.0.0/8", "wide"), ("10.1.0.0/16", "narrow"), ("fd00::/8", "narrow"))
    table.remove_all("narrow")
    assert owner_of(table, "10.1.0.1") == "wide"
    assert owner_of(table, "fd00::1") is None
    assert table.of("narrow") == ()


@pytest.mark.parametrize("address", [b"", b"\x0a\0\0", bytes(15), bytes(17)])
def test_what_is_no_address_is_nobodys(address: bytes) -> None:
    assert filled(("0.0.0.0/0", "v4"), ("::/0", "v6")).lookup(address) is None


def test_the_cache_is_bounded_and_never_outlives_a_change() -> None:
    table: AllowedIps[str] = AllowedIps(cached_max=10)
    table.insert(ip_network("10.0.0.0/8"), "a")
    for number in range(100):
        assert owner_of(table, f"10.0.0.{number}") == "a"
        assert len(table.cached) <= 10
    table.insert(ip_network("10.0.0.99/32"), "b")
    assert owner_of(table, "10.0.0.99") == "b"
    table.remove_all("b")
    assert owner_of(table, "10.0.0.99") == "a"


@st.composite
def networks(draw: st.DrawFn) -> IPNetwork:
    """Prefixes that often lie in each other: few different address bits, all lengths."""
    width = draw(st.sampled_from([32, 128]))
    bits = draw(st.sampled_from([0, 1, 2, 3, 0xFF, 0xAAAA, 1 << 31, 0xC0 << 24, (1 << width) - 1, 1 << (width - 1)]))
    length = draw(st.one_of(st.integers(0, width), st.sampled_from([0, 1, 8, width - 1, width])))
    bits = bits % (1 << width) >> (width - length) << (width - length)
    return ip_network((IPv4Address(bits) if width == 32 else IPv6Address(bits), length))


owners = st.sampled_from("abc")


class AgainstAList(RuleBasedStateMachine):
    """The trie against a dictionary that is searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.table: AllowedIps[str] = AllowedIps()
        self.model: dict[IPNetwork, str] = {}

    @rule(network=networks(), owner=owners)
    def insert(self, network: IPNetwork, owner: str) -> None:
        self.table.insert(network, owner)
        self.model[network] = owner

    @rule(network=networks(), owner=owners)
    def remove(self, network: IPNetwork, owner: str) -> None:
        self.table.remove(network, owner)
        if self.model.get(network) == owner:
            del self.model[network]

    @rule(data=st.data())
    def remove_one_that_is_there(self, data: st.DataObject) -> None:
        if self.model:
            network = data.draw(st.sampled_from(sorted(self.model, key=str)))
            self.table.remove(network, self.model.pop(network))

    @rule(owner=owners)
    def remove_all(self, owner: str) -> None:
        self.table.remove_all(owner)
        self.model = {network: other for network, other in self.model.items() if other != owner}

    @rule(network=networks(), low=st.integers(0, 3))
    def lookup(self, network: IPNetwork, low: int) -> None:
        address = ip_address((int(network.network_address) ^ low).to_bytes(network.max_prefixlen // 8, "big"))
        around = [n for n in self.model if n.version == address.version and address in n]
        longest = max(around, key=lambda n: n.prefixlen, default=None)
        assert self.table.lookup(address.packed) == (None if longest is None else self.model[longest])

    @invariant()
    def everyone_has_what_the_model_says(self) -> None:
        for owner in "abc":
            assert set(self.table.of(owner)) == {n for n, other in self.model.items() if other == owner}


TestAgainstAList = AgainstAList.TestCase
