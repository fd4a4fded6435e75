"""What is compared as a public door: TLS streams passed on by their name, and web sites whose TLS ends there."""

from __future__ import annotations

import json
import shutil
import sys
from abc import ABC, abstractmethod
from pathlib import Path

from benchmarks.streams import web
from benchmarks.streams.contenders import NGINX_MODULE, STREAMS_MAX, output, tell, wait_for_port
from benchmarks.streams.ends import NAME
from warren.ingress.config import beginning, configuration
from warren.ingress.sites import Ports, Settings, Site, door
from warren.l4.config import Backend, Config, Entry, Limits, Listen, Name, Way
from warren.lab import Host, Process

CADDY_PORTS = Ports(8080, 8443)
Place = tuple[str, int]


class Door(ABC):
    name: str

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot take part; None when it can."""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def pass_on(self, host: Host, listen: Place, target: Place) -> list[Process]:
        """TLS streams for NAME go to ``target`` as they are. Returns when it listens."""

    @abstractmethod
    def end_tls(self, host: Host, listen: Place, target: Place) -> list[Process]:
        """TLS ends here, and requests go to the web server at ``target``. Returns when it listens."""


class Warren(Door):
    """The stream process and Caddy, both told what to do as an agent tells them."""

    name = "warren"

    def missing(self) -> str | None:
        return None if shutil.which("caddy") else "there is no program caddy"

    def version(self) -> str:
        return f"with Caddy {output(['caddy', 'version']).split()[0]}"

    def pass_on(self, host: Host, listen: Place, target: Place) -> list[Process]:
        name = Name(domain=NAME, connector="shop", way=_way(target), limits=Limits(streams_max=STREAMS_MAX))
        return [_streams(host, Config(entries=(_router(listen, name),)))]

    def end_tls(self, host: Host, listen: Place, target: Place) -> list[Process]:
        directory = Path(host.directory)
        settings = Settings(directory / "state", directory / "run")
        settings.storage.mkdir(parents=True)
        settings.sockets.mkdir(parents=True)
        site = Site("shop", (NAME,), "internal", directory / "site.sock")
        lookup = directory / "peers.sock"
        config = directory / "caddy.json"
        wanted = beginning(settings) | configuration([site], settings, CADDY_PORTS, lookup)
        config.write_text(json.dumps(wanted))
        home = str(settings.storage)
        environment = {"HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}
        caddy = host.start(["caddy", "run", "--config", str(config)], name="caddy", env=environment)
        wait_for_port(host, CADDY_PORTS.https)
        limits = Limits(streams_max=STREAMS_MAX)
        path = str(door(directory, CADDY_PORTS.https))
        way = Way(backends=(Backend(name="caddy", side="host", port=CADDY_PORTS.https, path=path),))
        name = Name(domain=NAME, connector="shop", way=way, limits=limits, ended=True)
        upstream = Entry(id="site", listen=(Listen(path=str(site.upstream)),), limits=limits, way=_way(target))
        entries = (_router(listen, name), upstream)
        return [_streams(host, Config(entries=entries, peer_lookup=str(lookup))), caddy]


class Nginx(Door):
    """Its stream module with ``ssl_preread``; its http module with a certificate of the same kind as Caddy's and the
    same cipher. Two workers for HTTP, as Caddy uses both cores; one for streams, as the stream process uses one.
    """

    name = "nginx"

    def missing(self) -> str | None:
        if shutil.which("nginx") is None:
            return "there is no program nginx"
        return None if NGINX_MODULE.exists() else "nginx has no stream module (libnginx-mod-stream)"

    def version(self) -> str:
        return output(["nginx", "-v"]).replace("nginx version: ", "")

    def pass_on(self, host: Host, listen: Place, target: Place) -> list[Process]:
        return self._run(
            host,
            listen,
            1,
            f"stream {{ map $ssl_preread_server_name $target {{ {NAME} {target[0]}:{target[1]}; }}\n"
            f" server {{ listen {listen[0]}:{listen[1]} backlog=4096; ssl_preread on; proxy_pass $target;"
            " proxy_half_close on; } }\n",
        )

    def end_tls(self, host: Host, listen: Place, target: Place) -> list[Process]:
        certificate = web.make_certificate(Path(host.directory, "site.pem"))
        return self._run(
            host,
            listen,
            2,
            "http { access_log off; keepalive_requests 100000000; proxy_max_temp_file_size 0;\n"
            f" upstream site {{ server {target[0]}:{target[1]}; keepalive 64; keepalive_requests 100000000; }}\n"
            f" server {{ listen {listen[0]}:{listen[1]} ssl backlog=4096; server_name {NAME};\n"
            f"  ssl_certificate {certificate}; ssl_certificate_key {certificate};\n"
            "  ssl_protocols TLSv1.2 TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;\n"
            '  location / { proxy_pass http://site; proxy_http_version 1.1; proxy_set_header Connection "";\n'
            "   proxy_set_header Host $host; proxy_set_header X-Real-Ip $remote_addr;\n"
            "   proxy_set_header X-Forwarded-For $remote_addr; } } }\n",
        )

    def _run(self, host: Host, listen: Place, workers: int, what: str) -> list[Process]:
        config = Path(host.directory, "nginx.conf")
        module = f"load_module {NGINX_MODULE};\n" if what.startswith("stream") else ""
        config.write_text(
            f"{module}user root;\ndaemon off;\npid {host.directory}/nginx.pid;\nerror_log stderr warn;\n"
            f"worker_processes {workers};\nworker_rlimit_nofile {STREAMS_MAX};\n"
            f"events {{ worker_connections {STREAMS_MAX}; }}\n{what}"
        )
        process = host.start(["nginx", "-c", str(config)], name="nginx")
        wait_for_port(host, listen[1])
        return [process]


def all_doors() -> list[Door]:
    return [Warren(), Nginx()]


def _way(target: Place) -> Way:
    return Way(backends=(Backend(name="target", side="host", host=target[0], port=target[1]),))


def _router(listen: Place, name: Name) -> Entry:
    return Entry(
        id="https",
        kind="sni",
        listen=(Listen(address=listen[0], port=listen[1]),),
        limits=Limits(streams_max=STREAMS_MAX),
        names=(name,),
    )


def _streams(host: Host, config: Config) -> Process:
    run = Path(host.directory)
    process = host.start([sys.executable, "-m", "warren.l4", "--run", str(run)], name="warren")
    host.wait_for((run / "streams.sock").exists)
    host.call(tell, run, config)
    return process
