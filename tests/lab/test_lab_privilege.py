"""The lab without root: ordinary users on this machine, played by root who gives up his rights."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import warren
from tests.support.labs import IS_ROOT
from warren.lab import privilege
from warren.linux import netns

USER = 12345
FIRST_PYTHON = (3, 11)
CANDIDATES = (sys.executable, "/usr/bin/python3", "/usr/bin/python3.11", "/usr/bin/python3.12", "/usr/bin/python3.13")
TUN = os.makedev(10, 200)

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="only root can play other users")


@pytest.fixture(scope="module")
def sources() -> Iterator[Path]:
    """A copy of Warren that every user can read."""
    directory = Path(tempfile.mkdtemp(prefix="warren-sources-"))
    directory.chmod(0o755)
    shutil.copytree(
        Path(warren.__file__).parent, directory / "warren", ignore=shutil.ignore_patterns("_speed", "*.pyc")
    )
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def python() -> str:
    """A Python that every user can run: root's own may be in his home."""
    question = f"import sys; sys.exit(sys.version_info < {FIRST_PYTHON})"
    for candidate in CANDIDATES:
        try:
            if subprocess.run([candidate, "-c", question], user=USER, cwd="/", check=False).returncode == 0:
                return candidate
        except (FileNotFoundError, PermissionError):
            continue
    pytest.skip("there is no Python ≥ 3.11 that an ordinary user could run")


def device(mode: int | None) -> None:
    """Replace /dev/net in a mount namespace of the calling process, with a tun device of that mode or none."""
    netns.unshare(netns.CLONE_NEWNS)
    netns.keep_mounts_private()
    netns.mount("tmpfs", "/dev/net", "tmpfs")
    if mode is not None:
        os.umask(0)
        os.mknod("/dev/net/tun", stat.S_IFCHR | mode, TUN)


def become_user() -> None:
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)


def with_device(mode: int | None) -> Callable[[], None]:
    def prepare() -> None:
        device(mode)
        become_user()

    return prepare


def without_user_namespaces() -> None:
    """Become a user, as another user namespace sees him, whose limit of further ones is zero."""
    device(0o666)
    user, group = os.getuid(), os.getgid()
    netns.unshare(netns.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{USER} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{USER} {group} 1")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def run(prepare: Callable[[], None], python: str, sources: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments],
        preexec_fn=prepare,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SCRIPT = """
    import os, sys
    from warren.errors import WarrenError
    from warren.lab import Impairment, Lab, privilege
    from warren.lab.traffic import tcp_transfer
    assert os.getuid() != 0
    try:
        privilege.ensure()
    except WarrenError as error:
        sys.exit(str(error))
    privilege.ensure()
    with Lab() as lab:
        a, r, b = lab.host("a"), lab.router("r"), lab.host("b")
        lab.link(a, r, "10.1.0.2/24", "10.1.0.1/24", interfaces=("eth0", "lan0"))
        lab.link(r, b, "10.2.0.1/24", "10.2.0.2/24", interfaces=("wan0", "eth0"), impairment=Impairment(loss=0.001))
        a.route("default", via="10.1.0.1")
        r.masquerade("wan0", udp_timeout_s=2)
        capture = b.capture("eth0")
        print(tcp_transfer(a, b, "10.2.0.2", 1 << 20).intact, len(capture.packets()) + capture.dropped > 700)
        print(a.run(["ls", "/sys/class/net", "/run/wireguard"]).stdout.split())
"""


def test_an_ordinary_user_has_the_whole_lab(python: str, sources: Path) -> None:
    done = run(with_device(0o666), python, sources, "-W", "error", "-c", textwrap.dedent(SCRIPT))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["True True", "['/run/wireguard:', '/sys/class/net:', 'eth0', 'lo']"]


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (with_device(None), "there is no /dev/net/tun: "),
        (with_device(0o600), "this user may not open /dev/net/tun: run as root, or `chmod 0666 /dev/net/tun`"),
        (without_user_namespaces, "no more user namespaces are allowed: run as root, or raise the sysctl"),
    ],
    ids=["no device", "device of root", "no user namespaces"],
)
def test_where_it_is_impossible_one_sentence_says_why(
    python: str, sources: Path, prepare: Callable[[], None], reason: str
) -> None:
    # The player of the last case is root to the file system, so that any Python will do.
    done = run(prepare, python, sources, "-c", textwrap.dedent(SCRIPT))
    assert done.returncode == 1
    assert done.stderr.startswith(reason)
    assert len(done.stderr.splitlines()) == 1


def test_a_process_with_threads_is_told_the_other_way(python: str, sources: Path) -> None:
    script = """
        import threading
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    """
    done = run(with_device(0o666), python, sources, "-c", textwrap.dedent(script) + textwrap.dedent(SCRIPT))
    assert done.returncode == 1
    assert done.stderr.startswith(
        "a process with 2 threads cannot enter a user namespace: run it as root, or by `python"
    )


def test_any_program_can_be_run_with_the_privilege(python: str, sources: Path) -> None:
    module = ("-m", "warren.lab.privilege")
    done = run(with_device(0o666), python, sources, *module, "sh", "-c", "id -u; ip -brief link | wc -l; exit 7")
    assert (done.returncode, done.stdout) == (7, "0\n1\n")
    done = run(with_device(0o666), python, sources, *module, "no-such-program")
    assert done.returncode == 1
    assert done.stderr.startswith("cannot run no-such-program: ")
    assert run(with_device(0o666), python, sources, *module).returncode == 2


def test_root_has_nothing_to_do() -> None:
    before = [Path(f"/proc/self/ns/{kind}").readlink() for kind in ("user", "net", "mnt", "uts")]
    assert privilege.obstacle() is None
    privilege.ensure()
    assert [Path(f"/proc/self/ns/{kind}").readlink() for kind in ("user", "net", "mnt", "uts")] == before
