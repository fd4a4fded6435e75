"""What is compared: programs that take streams at one place and pass them on to another, one at a time."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path

from benchmarks.accounts import read_memory
from warren.l4.config import Backend, Config, Entry, Limits, Listen, Way
from warren.l4.process import StreamProcess
from warren.lab import Host, Process

NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
STREAMS_MAX = 60_000


class Forwarder(ABC):
    name: str

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot take part; None when it can."""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def start(self, host: Host, listen: tuple[str, int], target: tuple[str, int]) -> Process:
        """Returns when it listens. Raises OperationFailed when it does not."""


class Warren(Forwarder):
    """The stream process, told what to do as an agent tells it."""

    name = "warren"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        question = "import platform, warren; print(warren.__version__, 'on Python', platform.python_version())"
        return "Warren " + output([sys.executable, "-c", question])

    def start(self, host: Host, listen: tuple[str, int], target: tuple[str, int]) -> Process:
        run = Path(host.directory)
        process = host.start([sys.executable, "-m", "warren.l4", "--run", str(run)], name="warren")
        host.wait_for((run / "streams.sock").exists)
        host.call(configure, run, listen, target)
        wait_for_port(host, listen[1])
        return process


class Socat(Forwarder):
    """A process for each stream; ``block`` bytes at a time, else its default of 8 KiB."""

    def __init__(self, name: str, block: int | None = None) -> None:
        self.name = name
        self._options = [] if block is None else [f"-b{block}"]

    def missing(self) -> str | None:
        return None if shutil.which("socat") else "there is no program socat"

    def version(self) -> str:
        lines = output(["socat", "-V"]).splitlines()
        found = [line.split()[2] for line in lines if line.startswith("socat version")]
        return " ".join(["socat", *found, *self._options])

    def start(self, host: Host, listen: tuple[str, int], target: tuple[str, int]) -> Process:
        place = f"TCP-LISTEN:{listen[1]},bind={listen[0]},fork,reuseaddr,backlog=4096,nodelay"
        command = ["socat", *self._options, place, f"TCP:{target[0]}:{target[1]},nodelay"]
        process = host.start(command, name=self.name)
        wait_for_port(host, listen[1])
        return process


class Nginx(Forwarder):
    """Its stream module, one worker, otherwise with its defaults; half-closed streams are kept, as by the others."""

    name = "nginx"

    def missing(self) -> str | None:
        if shutil.which("nginx") is None:
            return "there is no program nginx"
        return None if NGINX_MODULE.exists() else "nginx has no stream module (libnginx-mod-stream)"

    def version(self) -> str:
        return output(["nginx", "-v"]).replace("nginx version: ", "")

    def start(self, host: Host, listen: tuple[str, int], target: tuple[str, int]) -> Process:
        config = Path(host.directory, "nginx.conf")
        config.write_text(
            f"load_module {NGINX_MODULE};\ndaemon off;\npid {host.directory}/nginx.pid;\nerror_log stderr warn;\n"
            f"worker_processes 1;\nworker_rlimit_nofile {STREAMS_MAX};\n"
            f"events {{ worker_connections {STREAMS_MAX}; }}\n"
            f"stream {{ server {{ listen {listen[0]}:{listen[1]}; proxy_pass {target[0]}:{target[1]};"
            " proxy_half_close on; } }\n"
        )
        process = host.start(["nginx", "-c", str(config)], name="nginx")
        wait_for_port(host, listen[1])
        return process


def all_forwarders() -> list[Forwarder]:
    return [Warren(), Socat("socat"), Socat("socat-64k", 65_536), Nginx()]


def configure(run: Path, listen: tuple[str, int], target: tuple[str, int]) -> None:
    """Tell the stream process of ``run`` to carry streams from one place to the other."""
    entry = Entry(
        id="forward",
        listen=(Listen(address=listen[0], port=listen[1]),),
        limits=Limits(streams_max=STREAMS_MAX),
        way=Way(backends=(Backend(name="target", side="host", host=target[0], port=target[1]),)),
    )
    tell(run, Config(entries=(entry,)))


def tell(run: Path, config: Config) -> None:
    """Have the stream process of ``run`` do this."""

    async def attached() -> None:
        process = await StreamProcess.attach_or_start(run, nest=None)
        await process.configure(config)
        await process.detach()

    asyncio.run(attached())


def processes_of(pid: int) -> list[int]:
    """A process and its children of all generations."""
    found = [pid]
    for one in found:
        try:
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        except OSError:
            continue
        found += [int(child) for child in children]
    return found


def cpu_s(pid: int) -> float:
    """That a process, its children and its children of the past have used so far."""
    ticks = 0
    for one in processes_of(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in (fields[11:15] if one == pid else fields[11:13]))
    return ticks / 100


def memory_kib(pid: int) -> float:
    """Of a process and its children; what they share counts once (PSS)."""
    return sum(read_memory(one).pss for one in processes_of(pid)) / 1024


def wait_for_port(host: Host, port: int) -> None:
    host.wait_for(["sh", "-c", f"ss -ltn | grep -q ':{port} '"])


def output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip()
