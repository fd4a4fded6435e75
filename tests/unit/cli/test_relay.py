"""What ``warren relay run`` says once it serves: the command that tells a network of it is one that works."""

from __future__ import annotations

import shlex
from ipaddress import ip_address
from pathlib import Path

from warren.cli.network_relay import add
from warren.cli.relay import _page
from warren.relay.config import RelayConfig
from warren.relay.serve import Ready

ADDRESSES = (ip_address("203.0.113.7"), ip_address("2001:db8::7"))
HASH = bytes(range(32))


def page(*, udp: int | None = 3478, tls: int | None = 443, **config: object) -> str:
    ready = Ready(udp, 3478, tls, None, HASH if tls else None, ADDRESSES)
    return _page(RelayConfig(**{"secrets": (b"0123456789abcdef",), **config}), ready)  # type: ignore[arg-type]


def told(text: str, tmp_path: Path) -> dict[str, object]:
    """What ``warren network relay add`` makes of the command in ``text``."""
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef\n")
    (line,) = (line for line in text.splitlines() if "relay add" in line)
    words = shlex.split(line.replace("NETWORK NAME", "home near").replace("FILE", str(secret)))
    return add.make_context("add", words[words.index("add") + 1 :]).params


def test_the_command_pins_the_relays_own_certificate_and_names_its_ports(tmp_path: Path) -> None:
    params = told(page(), tmp_path)
    assert params["hosts"] == ("203.0.113.7", "2001:db8::7")
    assert (params["udp_port"], params["tcp_port"], params["tls_port"]) == (3478, 3478, 443)
    assert params["certificate_sha256"] == HASH.hex()


def test_a_certificate_of_an_authority_is_for_a_name_and_is_not_pinned(tmp_path: Path) -> None:
    params = told(page(certificate=Path("relay.pem")), tmp_path)
    assert params["hosts"] == ("HOST",)
    assert params["certificate_sha256"] is None


def test_a_relay_of_other_ports_says_so(tmp_path: Path) -> None:
    assert told(page(udp=3480, tls=None), tmp_path)["udp_port"] == 3480
    assert told(page(udp=None), tmp_path)["no_udp"] is True


def test_who_has_names_and_no_secret_is_told_nothing_of_networks() -> None:
    assert "relay add" not in page(secrets=())
