"""The process: what it prints, what it refuses to begin with, and how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from warren import cli
from warren.coordinator import app, serve
from warren.coordinator.addresses import urls_for
from warren.coordinator.operator import beside, create_token, list_tokens, revoke_token
from warren.coordinator.serve import Address, parse_address
from warren.coordinator.tls import make_certificate
from warren.errors import OperationFailed, UsageError
from warren.model.tickets import read_access, read_ticket


def start(state: Path, **options: object) -> app.Ready:
    """Run until it is ready, and stop it by SIGTERM."""
    said: list[app.Ready] = []

    def announce(ready: app.Ready) -> None:
        said.append(ready)
        os.kill(os.getpid(), signal.SIGTERM)

    configuration = app.Configuration(state=state, **{"listen": ("127.0.0.1:0", "[::1]:0"), **options})
    asyncio.run(app.run(configuration, announce))
    (ready,) = said
    return ready


def test_the_first_start_gives_an_access_string_and_a_ticket_and_the_second_does_not(tmp_path: Path) -> None:
    first = start(tmp_path / "state", network="home")
    assert first.access is not None
    access = read_access(first.access)
    assert access.urls == first.urls
    assert str(access.key) == first.key
    assert first.ticket is not None
    assert read_ticket(first.ticket, 0).document.name == "home"
    assert {url.partition(":")[2].rpartition(":")[0] for url in first.urls} == {"//127.0.0.1", "//[::1]"}
    second = start(tmp_path / "state")
    assert (second.key, second.access, second.ticket) == (first.key, None, None)


def test_nothing_that_others_may_read_is_left_on_the_disk(tmp_path: Path) -> None:
    ready = start(tmp_path / "state", network="home")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    secret = read_access(ready.access or "").secret
    for file in (tmp_path / "state").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
        assert secret.encode() not in file.read_bytes()


def test_no_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        ready = start(tmp_path / "state", network="home")
    assert "ready" in caplog.text
    assert read_access(ready.access or "").secret not in caplog.text
    assert ready.access not in caplog.text
    assert ready.ticket not in caplog.text
    assert read_access(ready.access or "").secret not in repr(ready)


def test_without_ipv6_the_default_is_to_serve_ipv4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "DEFAULT_LISTEN", ("[::]:0", "127.0.0.1:0"))
    real = serve.listen

    def listen(address: Address) -> list[socket.socket]:
        if address.host == "::":
            raise serve.NoSuchFamily("cannot listen on [::]:0: Address family not supported by protocol")
        return real(address)

    monkeypatch.setattr(serve, "listen", listen)
    (only,) = start(tmp_path / "state", listen=()).listening
    assert only.startswith("127.0.0.1:")
    with pytest.raises(OperationFailed):
        start(tmp_path / "state", listen=("[::]:0",))


def test_sighup_reads_the_certificate_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = tmp_path / "own"
    files.mkdir()
    certificate, key = make_certificate(files)
    (tmp_path / "renewed").mkdir()

    def announce(ready: app.Ready) -> None:
        for mine, other in zip((certificate, key), make_certificate(tmp_path / "renewed"), strict=True):
            mine.write_bytes(other.read_bytes())
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)

    configuration = app.Configuration(
        state=tmp_path / "state", listen=("127.0.0.1:0",), certificate=certificate, key=key
    )
    with caplog.at_level(logging.INFO, logger="warren"):
        asyncio.run(app.run(configuration, announce))
    assert "new connections get the new certificate" in caplog.text
    assert not (tmp_path / "state" / "tls-key.pem").exists()


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"listen": ("nonsense",)}, UsageError, "write it like"),
        ({"listen": ("192.0.2.1:0",)}, OperationFailed, "does not have that address"),
        ({"listen": ("no.such.name.invalid:1",)}, OperationFailed, "cannot listen"),
        ({"database": "mysql://host/name"}, UsageError, "mysql is no database that Warren knows"),
        ({"certificate": Path("/nowhere/a"), "key": Path("/nowhere/b")}, UsageError, "No such file"),
        ({"certificate": Path("/nowhere/a")}, UsageError, "come together"),
    ],
)
def test_what_it_cannot_begin_with_is_one_sentence(
    tmp_path: Path, options: dict[str, object], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        start(tmp_path / "state", **options)
    if "certificate" in options:
        assert not (tmp_path / "state").exists()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OperationFailed, match=f"127.0.0.1:{port}: another program"):
            start(tmp_path / "state", listen=(f"127.0.0.1:{port}",))


def test_a_damaged_database_is_one_sentence(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / app.DATABASE_FILE).write_bytes(b"nonsense" * 1000)
    (state / app.DATABASE_FILE).chmod(0o600)
    with pytest.raises(OperationFailed):
        start(state)


@pytest.mark.parametrize(
    "text", ["", "8443", ":8443", "a:b", "::1:8443", "1.2.3.4:70000", "[::1]", "1.2.3.4:-1", "a:٣"]
)
def test_what_is_no_address_to_listen_on(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


def test_addresses_to_listen_on() -> None:
    assert parse_address("[::]:8443") == Address("::", 8443)
    assert parse_address("192.0.2.1:1") == Address("192.0.2.1", 1)
    assert str(parse_address("[2001:db8::1]:8443")) == "[2001:db8::1]:8443"


def test_urls_are_those_of_the_addresses_listened_on_ipv6_first() -> None:
    assert urls_for([("192.0.2.1", 1), ("2001:db8::1", 2)]) == ("https://[2001:db8::1]:2", "https://192.0.2.1:1")
    assert all(re.fullmatch(r"https://\S+:8443", url) for url in urls_for([("::", 8443), ("0.0.0.0", 8443)]))  # noqa: S104 - binds nothing


def test_the_operator_makes_shows_and_ends_tokens_beside_the_coordinator(tmp_path: Path) -> None:
    ready = start(tmp_path / "state", network="home")
    url = app.database_in(tmp_path / "state")

    async def scenario() -> None:
        async with beside(url) as (service, store):
            made = await create_token(service, store, label="x", ttl_s=60, role="reader", network="home", urls=())
            assert made.access is not None
            assert set(read_access(made.access).urls) == set(ready.urls)
            assert (await service.actor(made.secret)).role == "reader"
            listed = await list_tokens(service, store)
            assert {token.label for token in listed} == {"first", "x"}
            await revoke_token(service, made.id)
            assert {token.label for token in await list_tokens(service, store)} == {"first"}

    asyncio.run(scenario())


def test_the_command_prints_what_to_paste(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARREN_LOG", "plain")
    real = app.run

    async def run(configuration: app.Configuration, announce: object) -> None:
        def and_stop(ready: app.Ready) -> None:
            announce(ready)  # type: ignore[operator]
            os.kill(os.getpid(), signal.SIGTERM)

        await real(configuration, and_stop)

    monkeypatch.setattr(app, "run", run)
    common = ["--state", str(tmp_path / "state"), "--listen", "127.0.0.1:0"]
    assert cli.run(["coordinator", "run", *common, "--network", "home", "--url", "warren.example:8443"]) == 0
    out = capsys.readouterr().out
    assert "warren login warren-access:" in out
    assert "warren up warren-ticket:" in out
    assert "https://warren.example:8443" in out
    assert cli.run(["coordinator", "run", *common, "--json"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["event"] == "ready"
    assert said["access"] is None
    state = ["--state", str(tmp_path / "state")]
    assert cli.run(["coordinator", "token", "list", "--json", *state]) == 0
    (first,) = json.loads(capsys.readouterr().out)
    assert cli.run(["coordinator", "token", "revoke", first["id"], *state]) == 0
    assert cli.run(["coordinator", "token", "create", "--json", *state]) == 0
    captured = capsys.readouterr()
    assert "warren-access:" in captured.out
    assert cli.run(["coordinator", "token", "list", "--state", str(tmp_path / "elsewhere")]) == 1
    assert cli.run(["coordinator", "run", *common, "--url", "http://x"]) == 2
    assert cli.run(["coordinator", "run", *common, "--network", "Not A Name"]) == 2
    assert cli.run(["coordinator", "token", "revoke", "nonsense", *state]) == 1
    for label in ("", "x" * 65, "a\x1b[2J"):
        assert cli.run(["coordinator", "token", "create", "--label", label, *state]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in errors if line.startswith("warren: ")]) == 7


@pytest.mark.parametrize("module", ["litestar", "sqlalchemy", "alembic"])
def test_a_part_of_the_extra_that_is_not_installed_is_named(tmp_path: Path, module: str) -> None:
    code = f"import sys, warren.cli; sys.modules[{module!r}] = None; sys.exit(warren.cli.run(sys.argv[1:]))"
    command = ["coordinator", "run", "--state", str(tmp_path), "--listen", "127.0.0.1:0", "--no-relay"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.stderr == (
        f"warren: the coordinator needs {module}, which is not installed; run `pip install 'warren[coordinator]'`\n"
    )
    assert done.returncode == 1


def test_the_database_is_a_database(tmp_path: Path) -> None:
    start(tmp_path / "state")
    with sqlite3.connect(tmp_path / "state" / app.DATABASE_FILE) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()
