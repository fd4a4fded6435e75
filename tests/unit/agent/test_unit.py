from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from warren.agent import unit
from warren.agent.state import locked
from warren.errors import OperationFailed, UsageError
from warren.l4.__main__ import DESCRIPTORS

EXECUTABLE = Path("/opt/warren/bin/warren")


@pytest.fixture(autouse=True)
def _no_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever runs on this machine, a test does not talk to it."""
    monkeypatch.setattr(unit, "_SYSTEMD_RUNS", tmp_path / "absent")


def test_the_unit_is_written_for_all_to_read_and_says_what_to_do(tmp_path: Path) -> None:
    written, hint = unit.install(EXECUTABLE, start=False, directory=tmp_path)
    path = tmp_path / "warren.service"
    assert written == f"{path} written"
    assert "systemd does not run here" in hint
    assert path.stat().st_mode & 0o777 == 0o644
    assert "ExecStart=/opt/warren/bin/warren up " in path.read_text()


def test_systemctl_reload_has_the_agent_read_its_file_again() -> None:
    texts = unit.unit_text(EXECUTABLE), unit.user_unit_text(EXECUTABLE, Path("/home/a/.local/state/warren"))
    assert all("\nExecReload=/bin/kill -HUP $MAINPID\n" in text for text in texts)


def test_the_stream_process_gets_as_many_descriptors_as_it_wants() -> None:
    line = next(line for line in unit.unit_text(EXECUTABLE).splitlines() if line.startswith("LimitNOFILE="))
    assert int(line.partition(":")[2]) >= DESCRIPTORS


def test_writing_it_again_changes_nothing(tmp_path: Path) -> None:
    unit.install(EXECUTABLE, start=False, directory=tmp_path)
    before = (tmp_path / "warren.service").stat().st_ino
    assert unit.install(EXECUTABLE, start=False, directory=tmp_path)[0].endswith("is up to date")
    assert (tmp_path / "warren.service").stat().st_ino == before


def test_an_older_unit_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "warren.service").write_text("[Unit]\n")
    assert unit.install(EXECUTABLE, start=False, directory=tmp_path)[0].endswith("replaced")


def test_a_host_without_systemd_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="does not use systemd"):
        unit.install(EXECUTABLE, start=False, directory=tmp_path / "missing")


@pytest.mark.parametrize(
    "path", ["bin/warren", "/opt/my programs/warren", '/opt/"/warren', "/opt/50%/warren", "/a\n/warren"]
)
def test_a_path_that_a_unit_would_misread_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        unit.unit_text(Path(path))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="not installed: systemd-analyze")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    path = tmp_path / "warren.service"
    path.write_text(unit.unit_text(Path("/bin/true")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "warren.service" in line]
    # Older systemd than the keys for slowing down restarts (254) passes over them.
    assert [line for line in complaints if "RestartSteps" not in line and "RestartMaxDelaySec" not in line] == []


@dataclass
class Systemctl:
    """Records what it is told; ``running`` is what it says of the service."""

    running: bool = False
    told: list[str] = field(default_factory=list)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        if "is-active" in arguments:
            return subprocess.CompletedProcess(arguments, 0 if self.running else 3)
        self.told.append(" ".join(arguments))
        return subprocess.CompletedProcess(arguments, 0)


@pytest.fixture
def systemctl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Systemctl:
    made = Systemctl()
    monkeypatch.setattr(unit, "_SYSTEMD_RUNS", tmp_path)
    monkeypatch.setattr(unit, "_ask", made)
    monkeypatch.setattr(unit, "networks", lambda _: ["home"])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return made


def test_the_unit_of_a_user_is_in_his_own_directory(systemctl: Systemctl, tmp_path: Path) -> None:
    state = tmp_path / "state"
    written, hint, lingering = unit.install_for_user(EXECUTABLE, state, start=False)
    path = tmp_path / "config/systemd/user/warren.service"
    assert written == f"{path} written"
    assert f"ExecStart=/opt/warren/bin/warren up --state {state}\n" in path.read_text()
    assert hint == "now run: systemctl --user enable --now warren"
    assert "enable-linger" in lingering
    unit.install_for_user(EXECUTABLE, state, start=True)
    assert systemctl.told == [
        "--user daemon-reload",
        "--user daemon-reload",
        "--user enable warren.service",
        "--user restart warren.service",
    ]
    unit.remove(for_user=True)
    assert systemctl.told[-2:] == ["--user disable --now warren.service", "--user daemon-reload"]
    assert not path.exists()
    assert unit.remove(for_user=True) == [f"there is no {path}"]


def test_what_runs_is_started_again_only_for_another_unit(systemctl: Systemctl, tmp_path: Path) -> None:
    systemctl.running = True
    unit.install(EXECUTABLE, tmp_path, start=True, directory=tmp_path)
    assert systemctl.told == ["daemon-reload", "enable warren.service", "restart warren.service"]
    systemctl.told.clear()
    assert "systemctl restart warren" in unit.install(EXECUTABLE, tmp_path, start=True, directory=tmp_path)[-1]
    assert systemctl.told == ["daemon-reload", "enable warren.service"]


def test_an_agent_that_has_nothing_to_do_or_runs_elsewhere_is_not_installed_to_fail_later(
    systemctl: Systemctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with locked(state), pytest.raises(OperationFailed, match=r"runs already .*`warren down`"):
        unit.install(EXECUTABLE, state, start=True, directory=tmp_path)
    monkeypatch.setattr(unit, "networks", lambda _: [])
    with pytest.raises(UsageError, match="in no network yet: join one first"):
        unit.install(EXECUTABLE, state, start=True, directory=tmp_path)
    assert not (tmp_path / "warren.service").exists()
    assert systemctl.told == []
    unit.install(EXECUTABLE, state, start=False, directory=tmp_path)
    assert (tmp_path / "warren.service").exists()


def test_a_user_without_systemd_or_with_a_closed_directory_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(OperationFailed, match="does not run systemd"):
        unit.install_for_user(EXECUTABLE, tmp_path, start=False)
    monkeypatch.setattr(unit, "_SYSTEMD_RUNS", tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "systemd").write_text("a file")
    with pytest.raises(OperationFailed, match="cannot be written"):
        unit.install_for_user(EXECUTABLE, tmp_path, start=False)
