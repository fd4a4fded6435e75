"""Findings about the host itself: kernel, privileges, clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from warren.api.trust import FAR_OFF_S, clock_sentence
from warren.doctor.observed import Kernel, Observed
from warren.doctor.report import Finding

_ENGINE: Final = "the rootless engine does not work here: "  # choose() puts it before the reason
_BUFFER_BYTES: Final = 1 << 20
"""About 5 ms of packets at 1.5 Gbit/s."""


def host_findings(observed: Observed) -> Iterator[Finding]:
    """Those of everything that needs no network."""
    kernel = observed.kernel
    yield from _tun(kernel)
    yield from _nftables(kernel)
    yield from _batches(kernel)
    yield from _clock(observed)
    yield from _rootless(kernel)
    if kernel.user_namespaces:
        yield Finding("lab", "note", kernel.user_namespaces, "`warren demo` needs root here")


def _tun(kernel: Kernel) -> Iterator[Finding]:
    if kernel.tun.startswith("may not"):
        yield Finding(
            "TUN", "unknown", f"/dev/net/tun {kernel.tun}", "root's agent needs it, and may open it", _as_root("this")
        )
    elif kernel.tun:
        yield Finding(
            "TUN",
            "bad",
            f"/dev/net/tun {kernel.tun}",
            "no tunnel can be made",
            "run `modprobe tun`, or give the container that device (--device /dev/net/tun)",
        )
    elif kernel.admin:
        yield Finding("TUN", "good", "tunnels can be made")
    else:
        yield Finding(
            "TUN",
            "unknown",
            "there is a TUN device; this user may not configure networks, so nothing was made with it",
            "",
            _as_root("more"),
        )


def _rootless(kernel: Kernel) -> Iterator[Finding]:
    if not kernel.rootless:
        yield Finding("rootless", "good", "`warren up` works for ordinary users too, by the rootless engine")
        return
    what, _, remedy = kernel.rootless.removeprefix(_ENGINE).rpartition(": ")
    yield Finding(
        "rootless",
        "note" if kernel.admin else "warning",
        f"an ordinary user cannot be a member here: {what or remedy}",
        "only root's `warren up` works",
        remedy if what else "",
    )


def _nftables(kernel: Kernel) -> Iterator[Finding]:
    if not kernel.nftables:
        yield Finding("nftables", "good", "policies can be enforced")
    elif kernel.admin:
        yield Finding(
            "nftables",
            "bad",
            kernel.nftables,
            "policies cannot be enforced, and no member is let in without",
            "install libnftables1, with a kernel that has nf_tables",
        )
    else:
        yield Finding("nftables", "unknown", f"the packet filter: {kernel.nftables}", "", _as_root("it"))


def _batches(kernel: Kernel) -> Iterator[Finding]:
    missing = [name for name, there in (("UDP GSO", kernel.gso), ("UDP GRO", kernel.gro)) if not there]
    if missing:
        yield Finding(
            "kernel",
            "note",
            f"Linux {kernel.release} has no {' and no '.join(missing)}",
            "tunnels work, at a fraction of the speed",
            "use Linux 5.0 or newer",
        )
    buffer = kernel.receive_buffer_bytes
    if not kernel.admin and buffer is not None and buffer < _BUFFER_BYTES:
        yield Finding(
            "kernel",
            "note",
            f"sockets of ordinary users have at most {buffer >> 10} KB of buffer",
            "an agent without CAP_NET_ADMIN loses packets in bursts; as root it is not bound by this",
            f"set sysctl net.core.rmem_max={4 * _BUFFER_BYTES}",
        )


def _clock(observed: Observed) -> Iterator[Finding]:
    offsets = [seen.clock_offset_s for seen in observed.tcp if seen.clock_offset_s is not None]
    worst = max(offsets, key=abs, default=None)
    if worst is not None and abs(worst) >= FAR_OFF_S:
        what, _, remedy = clock_sentence(worst).partition(": ")
        yield Finding("clock", "warning", what, "documents and certificates look too old or too new", remedy)
    elif worst is not None:
        shown = round(worst, 1) + 0.0  # which is never -0.0
        yield Finding("clock", "good", f"the clock agrees with the coordinator's ({shown:+.1f} s)")
    elif observed.kernel.clock_synchronised is False:
        yield Finding(
            "clock",
            "note",
            "nothing keeps this host's clock right, as far as the kernel knows",
            "if it drifts by minutes, leases and certificates look expired",
            "`timedatectl set-ntp true`, or another time daemon",
        )
    elif observed.kernel.clock_synchronised:
        yield Finding("clock", "good", "a time daemon keeps the clock right")


def _as_root(what: str) -> str:
    return f"run `warren doctor` as root to look at {what}"
