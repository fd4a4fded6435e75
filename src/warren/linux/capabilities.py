"""Giving up privileges: capabilities(7), core dumps and new privileges, for a process that needs few of them."""

from __future__ import annotations

import ctypes
import os
import resource

CAP_SETPCAP = 8
CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12
CAP_NET_RAW = 13

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_NO_ROOT = 0b11  # linux/securebits.h: SECBIT_NOROOT and its lock
_CAP_LAST = 63

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def effective() -> frozenset[int]:
    """The numbers of the capabilities this thread has in effect."""
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)()
    _check(_libc.capget(ctypes.byref(header), data), "capget")
    bits = data[0].effective | data[1].effective << 32
    return frozenset(n for n in range(_CAP_LAST + 1) if bits >> n & 1)


def keep_only(capabilities: frozenset[int]) -> None:
    """Drop every capability but those of ``capabilities`` that are held now, for good: no exec can regain them.

    Acts on the calling thread: call it before starting others. Core dumps are switched off too, since they would hold
    keys.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    kept = capabilities & effective()
    for number in range(_CAP_LAST + 1):
        if number not in kept:
            _libc.prctl(
                _PR_CAPBSET_DROP, number, 0, 0, 0
            )  # EPERM without CAP_SETPCAP, EINVAL past the kernel's last: no loss
    bits = sum(1 << number for number in kept)
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    data = (_Data * 2)(_Data(low, low, 0), _Data(high, high, 0))
    _check(_libc.capset(ctypes.byref(header), data), "capset")


def give_up_root() -> None:
    """From now on executing a program as root brings no capabilities, for good. Raises OSError."""
    _check(_libc.prctl(_PR_SET_SECUREBITS, _NO_ROOT, 0, 0, 0), "prctl(PR_SET_SECUREBITS)")


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
