"""Scenes by the command line: built with the real programs, looked at, entered, ended; and nothing is left of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.test_lab_privilege import USER, python, sources, with_device
from tests.lab.test_lab_teardown import members, wait_until_empty, watched
from tests.support.labs import IS_ROOT
from warren.errors import Unreachable
from warren.lab import Lab
from warren.lab.scene_build import build
from warren.lab.scene_plan import plan
from warren.lab.scene_reader import read_scene
from warren.lab.scene_record import Record, RecordedHost
from warren.lab.scene_stand import place_of

__all__ = ["python", "sources"]

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

WARREN = [sys.executable, "-m", "warren", "lab"]
PLAIN = """
[server.dc]

[site.home]
kind = "port-restricted"
hosts = ["alice", "laptop"]
link = { delay_s = 0.05 }

[site.mobile]
kind = "cgn"
lan = "10.1.0.0/24"
hosts = ["laptop"]
"""
WHOLE = """
[server.dc]
relay = "warren"

[server.dc2]
relay = "coturn"

[site.home]
kind = "port-restricted"
hosts = ["alice"]

[coordinator]
server = "dc"

[network.red]
members = ["alice", "dc2"]

[network.blue]
members = ["dc2"]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory for records of scenes that is not the user's own."""
    directory = tmp_path / "records"
    directory.mkdir()
    return directory


def environment(place: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(place)}


def lab_command(place: Path, *arguments: str, check: bool = True, timeout: float = 120) -> str:
    done = subprocess.run(
        [*WARREN, *arguments], env=environment(place), capture_output=True, text=True, check=False, timeout=timeout
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done.stdout + ("" if check else done.stderr)


@contextmanager
def stands(place: Path, text: str, name: str) -> Iterator[dict[str, Any]]:
    """The scene ``text`` in the background; the record of it."""
    file = place / f"{name}.toml"
    file.write_text(text)
    lab_command(place, "up", str(file), "--background")
    try:
        yield record_of(place, name)
    finally:
        lab_command(place, "down", name, check=False)


def record_of(place: Path, name: str) -> dict[str, Any]:
    (path,) = place.glob(f"warren-lab-*/{name}.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_scene_is_as_it_was_planned(lab: Lab) -> None:
    scene = read_scene("plain", tomllib.loads(PLAIN))
    stage = build(lab, scene, lambda _: None)
    planned = plan(scene)
    for server in planned.servers:
        assert set(lab.hosts[server.name].run(["hostname", "-I"]).stdout.split()) == set(server.addresses)
    for site in planned.sites:
        shown = stage.sites[site.name].outer.run(["hostname", "-I"]).stdout.split()
        assert set(site.addresses) <= set(shown)
        for uplink in site.uplinks:
            shown = lab.hosts[uplink.host].run(["ip", "-br", "address", "show", uplink.interface]).stdout.split()
            assert [one.partition("/")[0] for one in shown[2:] if not one.startswith("fe80")] == [*uplink.addresses]
    laptop = lab.hosts["laptop"]
    laptop.run(["ping", "-c1", "-W15", planned.servers[0].addresses[0]])
    assert "via 192.168.1.1 dev eth0" in laptop.run(["ip", "route", "get", planned.servers[0].addresses[0]]).stdout
    assert stage.access == ""


def test_a_scene_is_built_looked_at_entered_and_ended(lab_privilege: None, place: Path) -> None:
    with stands(place, PLAIN, "plain") as record, watched(*(host["pid"] for host in record["hosts"].values())) as those:
        said = lab_command(place, "exec", "plain", "alice", "--", "sh", "-c", "hostname; hostname -I; echo $WARREN_RUN")
        assert said.split() == ["alice", "192.168.1.10", "/run/warren"]
        assert lab_command(place, "exec", "plain", "alice", "--", "warren", "--version").startswith("warren ")
        assert "└─ laptop  10.1.0.10  uplink eth1" in lab_command(place, "status", "plain")
        assert "has no host 'bob'; it has internet, dc" in lab_command(place, "exec", "plain", "bob", "id", check=False)
        assert "nonsense cannot be run" in lab_command(place, "exec", "plain", "alice", "nonsense", check=False)
        assert "stands already" in lab_command(place, "up", str(place / "plain.toml"), check=False)
        assert json.loads(lab_command(place, "list", "--json"))["standing"] == ["plain"]
        assert lab_command(place, "down", "plain") == "The scene plain is gone.\n"
        assert members(those) == []
        assert lab_command(place, "status").startswith("No scene stands")


def test_a_program_on_a_host_gives_its_status_to_the_command(lab_privilege: None, place: Path) -> None:
    with stands(place, PLAIN, "plain"):
        done = subprocess.run(
            [*WARREN, "exec", "plain", "dc", "--", "sh", "-c", "cat; exit 7"],
            env=environment(place),
            input="text",
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (7, "text")


def test_a_scene_whose_process_is_killed_leaves_nothing(lab_privilege: None, place: Path) -> None:
    with stands(place, PLAIN, "plain") as record, watched(*(host["pid"] for host in record["hosts"].values())) as those:
        assert members(those)
        os.kill(record["pid"], signal.SIGKILL)
        wait_until_empty(those)
        wait(lambda: "does not stand" in lab_command(place, "down", "plain", check=False))
        assert not list(place.glob("warren-lab-*/plain.json"))
        assert not list(place.glob("warren-plain-*"))


def _hear_ctrl_c() -> None:
    """Whoever runs the tests in the background may have it ignored, and a child inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_scene_in_the_foreground_ends_with_ctrl_c(lab_privilege: None, place: Path) -> None:
    file = place / "plain.toml"
    file.write_text(PLAIN)
    with subprocess.Popen(
        [*WARREN, "up", str(file), "--json"],
        env=environment(place),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_ctrl_c,  # noqa: PLW1509  one thread
    ) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            assert said["pid"] == process.pid
            assert said["plan"]["sites"][0]["uplinks"][0]["host"] == "alice"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert lab_command(place, "status").startswith("No scene stands")


@pytest.mark.skipif(not shutil.which("turnserver"), reason="not installed: coturn")
def test_networks_of_a_scene_have_their_members_and_relays_and_show_their_paths(
    lab_privilege: None, place: Path
) -> None:
    with stands(place, WHOLE, "whole"):
        listed = lab_command(place, "exec", "whole", "dc", "--", "warren", "network", "relay", "list", "blue")
        assert "dc2" in listed
        for name in ("dc2.red.internal", "alice.red.internal"):
            host = "alice" if name.startswith("dc2") else "dc2"
            wait(
                lambda host=host, name=name: (
                    "1 received"
                    in lab_command(place, "exec", "whole", host, "--", "ping", "-c1", "-W1", name, check=False)
                )
            )
        shown = json.loads(lab_command(place, "status", "whole", "--json"))
        assert shown["troubles"] == {}
        found = {(one["network"], one["source"], one["target"]): one for one in shown["paths"]}
        assert set(found) == {("red", "alice", "dc2"), ("red", "dc2", "alice")}
        assert found["red", "alice", "dc2"]["state"] == "connected"
        drawn = lab_command(place, "status", "whole")
        assert "red: fd" in drawn
        assert "; blue: fd" in drawn or "blue: fd" in drawn


@pytest.mark.skipif(not IS_ROOT, reason="only root can play other users")
def test_an_ordinary_user_builds_enters_and_ends_a_scene(python: str, sources: Path, tmp_path: Path) -> None:
    libraries = sysconfig.get_path("platlib")
    shared = Path(tempfile.mkdtemp(prefix="warren-user-"))
    shared.chmod(0o777)

    def warren(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", "warren", *arguments],
            preexec_fn=with_device(0o666),
            cwd="/",
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{sources}:{libraries}",
                "TMPDIR": str(shared),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": str(shared),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    if warren("--version").returncode:
        pytest.skip("an ordinary user cannot read the libraries of these tests")
    file = shared / "plain.toml"
    file.write_text(PLAIN)
    try:
        up = warren("lab", "up", str(file), "-d")
        if "namespace" in up.stderr:
            pytest.skip(up.stderr)
        assert up.returncode == 0, up.stderr
        done = warren("lab", "exec", "plain", "alice", "--", "ping", "-c1", "-W20", "45.80.1.2")
        assert "1 received" in done.stdout, done
        assert "uplink eth1" in warren("lab", "status").stdout
        assert (shared / f"warren-lab-{USER}" / "plain.json").stat().st_uid == USER
        assert warren("lab", "down", "plain").stdout == "The scene plain is gone.\n"
    finally:
        warren("lab", "down", "plain")
        shutil.rmtree(shared)


def test_a_scene_that_ends_while_it_is_entered_is_told() -> None:
    record = Record(1, 0.0, plan(read_scene("plain", {})), hosts={"gone": RecordedHost(2**22 - 1)})
    with pytest.raises(Unreachable, match="has just ended"):
        place_of(record, "gone")
