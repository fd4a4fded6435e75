"""A system that hands out user namespaces without power, as Ubuntu's does, imitated for the real program.

There unshare(2) succeeds, and what needs a capability inside fails; or, where AppArmor's profile for such namespaces is
missing, unshare(2) fails itself. The sysctl is a file put in front of the kernel's.
"""

from __future__ import annotations

import errno
import json
import os
import sys

import pytest

from tests.support.labs import IS_ROOT
from tests.support.rootless import USER
from warren.lab import Host, Lab

pytestmark = pytest.mark.lab

_PLACE = "/run/restricted"
_PREPARE = r"""
mkdir -p "$2/kernel"
install -d -m 700 -o "$1" "$2/home"
for name in pid_max ngroups_max cap_last_cap overflowuid overflowgid random; do
    cp -r "/proc/sys/kernel/$name" "$2/kernel/" 2>/dev/null || true
done
echo "$3" >"$2/kernel/apparmor_restrict_unprivileged_userns"
mount --bind "$2/kernel" /proc/sys/kernel
mknod -m 666 "$2/tun" c 10 200
mount --bind "$2/tun" /dev/net/tun
"""
_REFUSING = """
import ctypes, errno, os, struct, sys
refused, number = sys.argv[1], int(sys.argv[2])
call = {"x86_64": {"ioctl": 16, "unshare": 272}, "aarch64": {"ioctl": 29, "unshare": 97}}[os.uname().machine][refused]
TUNSETIFF, CLONE_NEWUSER = 0x400454CA, 0x10000000
# struct seccomp_data: the call's number at 0, its first argument at 16, its second at 24 (little endian).
test = (0x15, TUNSETIFF, 24) if refused == "ioctl" else (0x45, CLONE_NEWUSER, 16)
filters = [(0x20, 0, 0, 0), (0x15, 0, 3, call), (0x20, 0, 0, test[2]), (test[0], 0, 1, test[1]),
           (0x06, 0, 0, 0x00050000 | number), (0x06, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("HBBI", *one) for one in filters)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filters", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(filters), code)), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.mark.skipif(not IS_ROOT, reason="becoming an ordinary user takes root")
@pytest.mark.skipif(os.uname().machine not in {"x86_64", "aarch64"}, reason="this processor's calls are not known here")
@pytest.mark.parametrize(
    ("refused", "number", "setting", "said"),
    [
        ("ioctl", errno.EPERM, "1", "AppArmor leaves user namespaces of ordinary users without power"),
        ("unshare", errno.EACCES, "1", "AppArmor leaves user namespaces of ordinary users without power"),
        ("ioctl", errno.EPERM, "0", "the kernel or the container gives no user namespace"),
    ],
)
def test_a_powerless_user_namespace_is_told_with_its_remedy(
    lab: Lab, refused: str, number: int, setting: str, said: str
) -> None:
    host = lab.host("machine")
    host.run(["sh", "-euc", _PREPARE, "sh", USER, _PLACE, setting])
    words = _words_of(host, refused, number)
    assert words.startswith("warren: no engine works here; userspace: ")
    assert f"rootless: {said}" in words


def _words_of(host: Host, refused: str, number: int) -> str:
    """What `warren up` says where a system call is refused with the error ``number``."""
    home = f"{_PLACE}/home"
    env = {"HOME": home, "XDG_RUNTIME_DIR": home, "XDG_STATE_HOME": home}
    command = [sys.executable, "-c", _REFUSING, refused, str(number), sys.executable, "-m", "warren", "up"]
    done = host.run(command, user=USER, env=env, check=False)
    assert done.returncode == 1, json.dumps(done.stdout + done.stderr)
    return done.stderr.splitlines()[-1]
