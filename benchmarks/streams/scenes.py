"""The scenes: who stands where, and what is measured there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from benchmarks import contenders as tunnels
from benchmarks.streams import ends, web
from benchmarks.streams.contenders import Forwarder, cpu_s, memory_kib, wait_for_port
from benchmarks.streams.doors import Door
from benchmarks.streams.figures import METRICS, Sample
from warren.errors import WarrenError
from warren.lab import Host, Lab, Process
from warren.lab.remote import Call

ROUND_TRIPS, HELD, AT_ONCE = 2000, 1000, 8
MANY = 10_000
MANY_HELD = 9_500
"""With two descriptors for each: some machines give a process 20,000 and no more."""
FORWARD_PORT, SERVER_PORT = 9000, 9001
CLIENT, FORWARD, INNER, SERVER = "10.9.1.2", "10.9.1.1", "10.9.2.1", "10.9.2.2"
DOOR, TARGET = (FORWARD, FORWARD_PORT), (SERVER, SERVER_PORT)
PLAIN = "plain TCP"


@dataclass(frozen=True, slots=True)
class Scene:
    client: Host
    place: tuple[str, int]
    """Where the client goes."""
    processes: list[Process]
    """That forward, if anybody does."""
    seconds: float

    def cpu_s(self) -> float:
        return sum(cpu_s(process.pid) for process in self.processes)

    def per_event_us(self, before: float, count: float) -> float:
        """CPU since ``before``."""
        return (self.cpu_s() - before) / count * 1e6


def transfer(scene: Scene, streams: int, *, down: bool, tls: bool = False) -> dict[str, float]:
    before = scene.cpu_s()
    moved = scene.client.call(ends.transfer, *scene.place, scene.seconds, streams, down, tls)
    spent = scene.cpu_s() - before
    values = {"mbit_s": moved.payload_bytes * 8 / moved.seconds / 1e6}
    if scene.processes:
        values["cpu_s_per_gb"] = spent / (moved.payload_bytes / 1e9)
    return values


def brief(scene: Scene, *, tls: bool = False) -> dict[str, float]:
    before = scene.cpu_s()
    rate = scene.client.call(ends.brief_streams, *scene.place, scene.seconds, AT_ONCE, tls)
    return {"streams_s": rate, "cpu_us_per_stream": scene.per_event_us(before, rate * scene.seconds)}


def echo(scene: Scene, *, tls: bool = False) -> dict[str, float]:
    return _spread(scene.client.call(ends.round_trips, *scene.place, ROUND_TRIPS, tls))


def memory(scene: Scene, count: int) -> dict[str, float]:
    if not scene.processes:
        return {}
    pid = scene.processes[0].pid
    before = memory_kib(pid)
    with tempfile.TemporaryDirectory() as meeting:
        holding = scene.client.begin(ends.hold, *scene.place, count, meeting)
        scene.client.wait_for(lambda: Path(meeting, "held").exists(), timeout=60)
        held = memory_kib(pid)
        Path(meeting, "done").touch()
        holding.result(30)
    return {"start_kib": before, "per_stream_kib": max(0.0, (held - before) / count)}


def checked(scene: Scene) -> dict[str, float]:
    before = scene.cpu_s()
    seconds = scene.client.call(ends.checked_streams, *scene.place, MANY, AT_ONCE, timeout=120)
    values = {"seconds": seconds}
    if scene.processes:
        values["cpu_us_per_stream"] = scene.per_event_us(before, MANY)
    return values


def requests(scene: Scene, client: Callable[..., web.Requests]) -> dict[str, float]:
    """By two processes: one in Python is not enough to keep two cores busy."""
    before = scene.cpu_s()
    halves = [scene.client.begin(client, *scene.place, scene.seconds, AT_ONCE // 2) for _ in range(2)]
    found = [half.result(scene.seconds + 30) for half in halves]
    rate = sum(half.per_s for half in found)
    return {
        "requests_s": rate,
        "cpu_us_per_request": scene.per_event_us(before, rate * scene.seconds),
        **_spread([seconds for half in found for seconds in half.seconds]),
    }


def body(scene: Scene) -> dict[str, float]:
    before = scene.cpu_s()
    mbit_s = scene.client.call(web.body, *scene.place, scene.seconds)
    moved_gb = mbit_s * scene.seconds / 8e3
    return {"mbit_s": mbit_s, "cpu_s_per_gb": (scene.cpu_s() - before) / moved_gb}


def _spread(seconds: list[float]) -> dict[str, float]:
    return {"median_us": median(seconds) * 1e6, "p99_us": quantiles(seconds, n=100)[98] * 1e6}


Measure = Callable[[Scene], dict[str, float]]
IN_A_ROW: dict[str, Measure] = {
    "up": lambda scene: transfer(scene, 1, down=False),
    "down": lambda scene: transfer(scene, 1, down=True),
    "up_8": lambda scene: transfer(scene, 8, down=False),
    "brief": brief,
    "echo": echo,
    "memory": lambda scene: memory(scene, HELD),
}
BY_THOUSANDS: dict[str, Measure] = {
    "many_held": lambda scene: memory(scene, MANY_HELD),
    "many_checked": checked,
}
THROUGH_A_TUNNEL: dict[str, Measure] = {
    "tunnel_up": lambda scene: transfer(scene, 1, down=False),
    "tunnel_down": lambda scene: transfer(scene, 1, down=True),
    "tunnel_echo": echo,
    "tunnel_many_held": lambda scene: memory(scene, MANY_HELD),
    "tunnel_many_checked": checked,
}
PASSED_ON: dict[str, Measure] = {
    "sni_down": lambda scene: transfer(scene, 1, down=True, tls=True),
    "sni_brief": lambda scene: brief(scene, tls=True),
    "sni_echo": lambda scene: echo(scene, tls=True),
}
ENDED: dict[str, Measure] = {
    "https_kept": lambda scene: requests(scene, web.kept),
    "https_new": lambda scene: requests(scene, web.new),
    "https_body": body,
}


class Session:
    """One run; each measurement has a lab and processes of its own: nothing is left over from the one before."""

    def __init__(self, seconds: float) -> None:
        self.samples: list[Sample] = []
        self.failures: list[str] = []
        self._seconds = seconds

    def in_a_row(self, forwarder: Forwarder, measure: str, turn: int) -> None:
        def measured() -> dict[str, float]:
            with Lab(name="bench-streams", seed=1) as lab:
                client, middle, server = _row(lab)
                serving = _serving(server, SERVER)
                process = forwarder.start(middle, DOOR, TARGET)
                scene = Scene(client, DOOR, [process], self._seconds)
                values = (IN_A_ROW | BY_THOUSANDS)[measure](scene)
                serving.cancel()
                return values

        self._take(forwarder.name, measure, turn, measured)

    def through_a_tunnel(self, forwarder: Forwarder | None, measure: str, turn: int) -> None:
        """``forwarder`` None: plain TCP."""

        def measured() -> dict[str, float]:
            with Lab(name="bench-streams", seed=1) as lab, tempfile.TemporaryDirectory() as directory:
                a, b = lab.host("a"), lab.host("b")
                lab.link(a, b, *(f"{address}/24" for address in tunnels.OUTER))
                tunnel = tunnels.Warren("tunnel", pure=False).open(tunnels.Pair(a, b, Path(directory)), 1)
                serving = _serving(b, tunnel.target)
                far = (tunnel.target, SERVER_PORT)
                near = ("127.0.0.1", FORWARD_PORT)
                processes = [] if forwarder is None else [forwarder.start(a, near, far)]
                scene = Scene(a, near if processes else far, processes, self._seconds)
                values = THROUGH_A_TUNNEL[measure](scene)
                serving.cancel()
                return values

        self._take(PLAIN if forwarder is None else forwarder.name, measure, turn, measured)

    def passed_on(self, door: Door, measure: str, turn: int) -> None:
        """TLS streams by their name."""

        def measured() -> dict[str, float]:
            with Lab(name="bench-streams", seed=1) as lab:
                client, middle, server = _row(lab)
                serving = _serving(server, SERVER, web.make_certificate(Path(server.directory, "server.pem")))
                processes = door.pass_on(middle, DOOR, TARGET)
                values = PASSED_ON[measure](Scene(client, DOOR, processes, self._seconds))
                serving.cancel()
                return values

        self._take(door.name, measure, turn, measured)

    def ended(self, door: Door, measure: str, turn: int) -> None:
        """Web sites."""

        def measured() -> dict[str, float]:
            with Lab(name="bench-streams", seed=1) as lab:
                client, middle, server = _row(lab)
                web.serve(server, *TARGET)
                wait_for_port(server, SERVER_PORT)
                processes = door.end_tls(middle, DOOR, TARGET)
                client.wait_for(lambda: client.call(web.answers, *DOOR))
                return ENDED[measure](Scene(client, DOOR, processes, self._seconds))

        self._take(door.name, measure, turn, measured)

    def _take(self, name: str, measure: str, turn: int, measured: Callable[[], dict[str, float]]) -> None:
        try:
            values = measured()
        except (WarrenError, OSError) as error:
            self.failures.append(f"{name}, {measure}, round {turn + 1}: {error}")
            print(f"  round {turn + 1}  {measure:<12} {name:<10} FAILED: {error}", flush=True)
            return
        self.samples.append(Sample(turn + 1, name, measure, values))
        shown = "  ".join(f"{metric} {values[metric]:,.4g}" for metric, _ in METRICS if metric in values)
        print(f"  round {turn + 1}  {measure:<12} {name:<10} {shown}", flush=True)


def _row(lab: Lab) -> tuple[Host, Host, Host]:
    client, middle, server = lab.host("client"), lab.host("middle"), lab.host("server")
    lab.link(client, middle, f"{CLIENT}/24", f"{FORWARD}/24")
    lab.link(middle, server, f"{INNER}/24", f"{SERVER}/24", interfaces=("eth1", "eth0"))
    return client, middle, server


def _serving(host: Host, address: str, certificate: Path | None = None) -> Call[None]:
    serving = host.begin(ends.serve, address, SERVER_PORT, certificate)
    wait_for_port(host, SERVER_PORT)
    return serving
