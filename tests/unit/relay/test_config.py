"""A relay's configuration: what a command line says besides the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from warren.errors import OperationFailed, UsageError
from warren.relay.config import RelayConfig, with_ports, with_secret_file


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0\n")
    assert with_secret_file(RelayConfig(), secret).secrets == (b"0123456789abcdef0",)
    secret.write_text("short")
    with pytest.raises(UsageError, match="holds 5 bytes"):
        with_secret_file(RelayConfig(), secret)
    with pytest.raises(OperationFailed, match="cannot be read"):
        with_secret_file(RelayConfig(), tmp_path / "none")


def test_the_command_line_counts_more(tmp_path: Path) -> None:
    config = with_ports(RelayConfig(tcp_port=9), tmp_path, udp=0, tls=443, metrics="127.0.0.1:1")
    assert (config.udp_port, config.tcp_port, config.tls_port) == (None, 9, 443)
    assert str(config.metrics) == "127.0.0.1:1"
    with pytest.raises(UsageError, match="no port"):
        with_ports(RelayConfig(), tmp_path, udp=0)
    with pytest.raises(UsageError, match="--metrics"):
        with_ports(RelayConfig(), tmp_path, metrics="nowhere")


def test_a_secret_that_others_may_read_draws_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0")
    secret.chmod(0o600)
    with_secret_file(RelayConfig(), secret)
    assert caplog.text == ""
    secret.chmod(0o644)
    with_secret_file(RelayConfig(), secret)
    assert f"chmod 600 {secret}" in caplog.text
    assert "0123456789" not in caplog.text


def test_tcp_and_tls_take_a_port_each(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TCP port 443 cannot be both"):
        with_ports(RelayConfig(tls_port=443), tmp_path, tcp=443)
