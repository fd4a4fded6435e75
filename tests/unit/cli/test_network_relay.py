"""``warren network relay``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.fakes import FakeAdmin, admin
from warren import cli
from warren.proto.control.administration import RelayRequest

__all__ = ["admin"]


def test_relays_are_a_table(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "relay", "list", "home"]) == 0
    assert capsys.readouterr().out == (
        "NAME  HOSTS                     PORTS              FROM\n"
        "one   192.0.2.7, relay.example  UDP 3478, TLS 443  operator\n"
    )


def test_a_relay_is_added_with_the_secret_of_a_file(
    admin: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32 + "\n")
    digest = ":".join(["AB"] * 32)
    command = ["network", "relay", "add", "home", "one", "192.0.2.7", "--no-udp", "--tls-port", "443"]
    assert cli.run([*command, "--certificate-sha256", digest, "--secret-file", str(secret)]) == 0
    assert admin.asked[-1] == (
        "add_relay",
        "home",
        RelayRequest(
            name="one",
            hosts=("192.0.2.7",),
            udp_port=None,
            tls_port=443,
            certificate_sha256="ab" * 32,
            secret="s" * 32,
        ),
    )
    assert "may use relay one at 192.0.2.7, relay.example" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["192.0.2.7:3478"], "no host"),
        (["192.0.2.7", "--certificate-sha256", "abc"], "64 hexadecimal digits"),
        (["192.0.2.7", "--secret-file", "/nowhere/at/all"], "cannot be read"),
    ],
)
def test_what_cannot_be_a_relay_is_refused_before_anything_is_sent(
    admin: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    command = ["network", "relay", "add", "home", "one", "--secret-file", str(secret), *arguments]
    assert cli.run(command) == 2
    assert why in capsys.readouterr().err
    assert admin.asked == []


@pytest.mark.parametrize("text", ["short", "", "s" * 300, "two lines of it\nof the secret"])
def test_a_secret_that_is_none_is_refused(
    admin: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(text)
    assert cli.run(["network", "relay", "add", "home", "one", "192.0.2.7", "--secret-file", str(secret)]) == 2
    assert "one line of 16 to 256 characters" in capsys.readouterr().err


def test_a_relay_is_removed(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "relay", "remove", "home", "one"]) == 0
    assert admin.asked[-1] == ("remove_relay", "home", "one")
    assert "use relay one no longer" in capsys.readouterr().out
