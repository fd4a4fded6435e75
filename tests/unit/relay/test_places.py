"""Where a relay listens and relays from."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from warren.errors import OperationFailed
from warren.relay.config import RelayConfig
from warren.relay.places import Places


def test_an_address_of_somebody_else_is_refused_before_anybody_comes() -> None:
    with pytest.raises(OperationFailed, match=r"203\.0\.113\.9 cannot be relayed from .* external_addresses"):
        Places(RelayConfig(relay_addresses=(ip_address("203.0.113.9"),)))


def test_relayed_addresses_look_as_they_are_named_for_outside() -> None:
    inner, outer = ip_address("127.0.0.1"), ip_address("203.0.113.9")
    places = Places(RelayConfig(relay_addresses=(inner,), external_addresses=(outer,)))
    assert places.relay[4] == inner
    assert outer in places.outside
    assert {"127.0.0.1", "203.0.113.9"} <= places.hosts
