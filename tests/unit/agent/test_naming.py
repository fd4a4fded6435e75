"""Names of interfaces and nodes."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.agent.fakes import signing_key
from warren.agent.naming import interface_names, node_name
from warren.model.parts import NAME_PATTERN

KEY = signing_key("network").verify_key


def test_a_short_name_is_used_as_it_is() -> None:
    assert next(interface_names("home", KEY)) == "w-home"


@given(st.from_regex(NAME_PATTERN, fullmatch=True))
def test_every_name_fits_an_interface_and_all_differ(network: str) -> None:
    names = list(islice(interface_names(network.strip(), KEY), 20))
    assert len(names) >= 5
    assert len(set(names)) == len(names)
    assert all(len(name) <= 15 and name.startswith("w-") for name in names)


def test_networks_of_one_name_get_interfaces_of_different_names() -> None:
    other = signing_key("another").verify_key
    assert set(islice(interface_names("home", KEY), 1, 20)).isdisjoint(islice(interface_names("home", other), 1, 20))


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("Alice.example.org", "alice"),
        ("my_box", "my-box"),
        ("-x-", "x"),
        ("", "node"),
        ("é", "node"),
        ("a" * 70, "a" * 63),
    ],
)
def test_a_node_is_named_after_its_host(hostname: str, name: str) -> None:
    assert node_name(hostname) == name
