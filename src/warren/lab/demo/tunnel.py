"""One tunnel between two hosts: one end runs ``warren tunnel``, the other Debian's wireguard-go where it is installed,
else Warren too.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from warren.errors import OperationFailed
from warren.identity.keys import PrivateKey
from warren.lab import Host, Lab, Process
from warren.lab.demo.step import Step, flow_bits_per_s, speeds
from warren.lab.traffic import tcp_transfer

_INTERFACE = "wg0"
_OUTER = {"alice": "10.9.0.1", "bob": "10.9.0.2"}
_INNER = {"alice": ("10.77.0.1", "fd77::1"), "bob": ("10.77.0.2", "fd77::2")}
_PORT = 51820
_TRANSFER_BYTES = 64 << 20
_PINGS = 20
_PATIENCE_S = 30.0
_SECRET = b"nobody on the cable may read this line"
_CONFIG = """\
[Interface]
PrivateKey = {private}
Address = {inner4}/24, {inner6}/64
ListenPort = {port}

[Peer]
PublicKey = {peer}
AllowedIPs = {peer4}/32, {peer6}/128
"""


def run() -> Iterator[Step]:
    """Play the demonstration step by step; what it makes is gone when the iterator ends or is closed.

    Raises OperationFailed when a step does not come out as it must.
    """
    other = "wireguard-go" if shutil.which("wireguard-go") and shutil.which("wg") else "warren"
    with Lab(name="demo", seed=1) as lab:
        alice, bob = lab.host("alice"), lab.host("bob")
        lab.link(alice, bob, f"{_OUTER['alice']}/24", f"{_OUTER['bob']}/24")
        bare = flow_bits_per_s(alice, bob, _OUTER["bob"])
        capture = alice.capture("eth0")
        keys = {name: PrivateKey(os.urandom(32)) for name in _OUTER}
        yield _bring_up(alice, bob, keys, other)
        yield _ping(alice)
        yield _transfer(alice, bob)
        capture.stop()
        yield _wire(capture.packets())
        yield _wg_show(alice)
        measured = {"the bare cable": bare, f"tunnel, Warren to {other}": flow_bits_per_s(alice, bob, _INNER["bob"][0])}
        if other != "warren":
            # The same interface, key and addresses, so that only the program at bob's end changes.
            _until_answered(alice, _replace_by_warren(bob, keys))
            measured["tunnel, Warren at both ends"] = flow_bits_per_s(alice, bob, _INNER["bob"][0])
        yield speeds("One TCP flow from alice to bob", measured)


def _bring_up(alice: Host, bob: Host, keys: dict[str, PrivateKey], other: str) -> Step:
    if other == "warren":
        _start_warren(bob, keys)
    else:
        _start_wireguard_go(bob, keys)
    started = time.monotonic()
    tunnel = _start_warren(alice, keys, f"Endpoint = {_OUTER['bob']}:{_PORT}\n")
    _until_answered(alice, tunnel)
    seconds = time.monotonic() - started
    name = (
        "warren tunnel wg0.conf" if other == "warren" else "wireguard-go wg0          (a WireGuard that others wrote)"
    )
    return Step(
        "A tunnel between two hosts, alice and bob",
        (f"alice$ {'warren tunnel wg0.conf'}", f"bob$   {name}", f"bob's first answer came {seconds:.1f} s later"),
        {"other_end": other, "seconds_to_first_answer": round(seconds, 3)},
    )


def _start_warren(host: Host, keys: dict[str, PrivateKey], endpoint: str = "") -> Process:
    ((peer, peer_inner),) = ((name, inner) for name, inner in _INNER.items() if name != host.name)
    inner4, inner6 = _INNER[host.name]
    text = _CONFIG.format(
        private=keys[host.name].base64,
        inner4=inner4,
        inner6=inner6,
        port=_PORT,
        peer=keys[peer].public_key(),
        peer4=peer_inner[0],
        peer6=peer_inner[1],
    )
    config = _private_file(host, f"{_INTERFACE}.conf", text + endpoint)
    state = {"STATE_DIRECTORY": str(host.directory / "state")}  # not the machine's own
    return host.start([sys.executable, "-m", "warren", "tunnel", str(config)], name="warren", env=state)


def _until_answered(host: Host, tunnel: Process) -> None:
    """Wait until ``host`` gets an answer from bob. Raises OperationFailed, with what it said, when ``tunnel`` ends."""

    def answered_or_ended() -> bool:
        ping = ["ping", "-n", "-c1", "-W1", _INNER["bob"][0]]
        return tunnel.returncode is not None or host.run(ping, check=False).returncode == 0

    host.wait_for(answered_or_ended, timeout=_PATIENCE_S)
    if tunnel.returncode is not None:
        last = (tunnel.output().strip().splitlines() or ["it said nothing"])[-1]
        raise OperationFailed(f"the tunnel on {host.name} ended: {last}")


def _start_wireguard_go(host: Host, keys: dict[str, PrivateKey]) -> None:
    host.start(["wireguard-go", "--foreground", _INTERFACE], name="wireguard-go", env={"WG_PROCESS_FOREGROUND": "1"})
    host.wait_for(["test", "-S", f"/run/wireguard/{_INTERFACE}.sock"], timeout=_PATIENCE_S)
    secret = _private_file(host, "private", keys["bob"].base64)
    peer = ["peer", keys["alice"].public_key().base64, "allowed-ips", ",".join(_INNER["alice"])]
    host.run(["wg", "set", _INTERFACE, "private-key", str(secret), "listen-port", str(_PORT), *peer])
    inner4, inner6 = _INNER["bob"]
    host.ip(
        f"address add {inner4}/24 dev {_INTERFACE}",
        f"address add {inner6}/64 dev {_INTERFACE} nodad",
        f"link set {_INTERFACE} mtu 1420 up",
    )


def _replace_by_warren(host: Host, keys: dict[str, PrivateKey]) -> Process:
    host.ip(f"link del {_INTERFACE}")
    host.wait_for(lambda: not Path(f"/proc/{host.pid}/root/run/wireguard/{_INTERFACE}.sock").exists())
    return _start_warren(host, keys, f"Endpoint = {_OUTER['alice']}:{_PORT}\nPersistentKeepalive = 1\n")


def _private_file(host: Host, name: str, text: str) -> Path:
    path = host.directory / name
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _ping(alice: Host) -> Step:
    medians = {}
    for family, address in zip(("IPv4", "IPv6"), _INNER["bob"], strict=True):
        secret = _SECRET[:16].hex()  # ping repeats up to 16 bytes in every packet
        done = alice.run(["ping", "-n", "-i", "0.05", "-c", str(_PINGS), "-W", "2", "-p", secret, address])
        times = [float(word.removeprefix("time=")) for word in done.stdout.split() if word.startswith("time=")]
        if len(times) != _PINGS:
            raise OperationFailed(f"only {len(times)} of {_PINGS} pings to {address} were answered")
        medians[family] = statistics.median(times)
    lines = tuple(f"{family}: {_PINGS} of {_PINGS} answered, {ms:.2f} ms (median)" for family, ms in medians.items())
    return Step("Ping through it", lines, {"ping_ms": medians})


def _transfer(alice: Host, bob: Host) -> Step:
    lines = []
    for sender, receiver, family in ((alice, bob, 0), (bob, alice, 1)):
        if not tcp_transfer(sender, receiver, _INNER[receiver.name][family], _TRANSFER_BYTES).intact:
            raise OperationFailed(f"the transfer from {sender.name} to {receiver.name} arrived damaged")
        size = f"{_TRANSFER_BYTES >> 20} MiB over IPv{4 + 2 * family}"
        lines.append(f"{sender.name:5} → {receiver.name:5} {size}: SHA-256 equal at both ends")
    return Step("A TCP transfer each way, checked by its hash", tuple(lines), {"transfers_intact": len(lines)})


def _wire(packets: list[bytes]) -> Step:
    """What a capture on the cable shows: WireGuard's messages, and nothing that was sent inside them."""
    ours = _PORT.to_bytes(2, "big")
    wireguard = [packet for packet in packets if packet[23:24] == b"\x11" and ours in (packet[34:36], packet[36:38])]
    if not wireguard or any(_SECRET[:16] in packet for packet in packets):
        raise OperationFailed("the capture shows what was sent inside the tunnel")
    return Step(
        "What the cable between them saw",
        (
            f"{len(wireguard)} frames of UDP port {_PORT}, and {len(packets) - len(wireguard)} of ARP and the like",
            "the text that the pings carried is in none of them",
        ),
        {"wireguard_frames": len(wireguard), "other_frames": len(packets) - len(wireguard)},
    )


def _wg_show(alice: Host) -> Step:
    title = "The stock `wg` tool sees alice's interface like any other"
    if not shutil.which("wg"):
        return Step(title, ("(left out: the Debian package wireguard-tools is not installed)",), {})
    return Step(title, ("alice$ wg show", *alice.run(["wg", "show"]).stdout.rstrip().splitlines()), {})
