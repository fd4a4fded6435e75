"""What the demonstration shows of streams: a member without root, a page for everybody, a forwarded port, a program."""

from __future__ import annotations

import shutil
import time
from functools import partial

from warren.errors import OperationFailed
from warren.lab.demo.network_world import World, until
from warren.lab.demo.step import Step
from warren.lab.host import Host
from warren.lab.network import warren_command

_PAGE = "the page of a member behind a NAT, run by an ordinary user"
_PORT = 8080


_GATEWAY = '[gateway]\nenabled = true\ndomain = "gw.example.com"\n'


def make_gateway(host: Host) -> None:
    """Before it joins: its operator lets it publish services of others."""
    state = host.directory / "state"
    state.mkdir(mode=0o700)
    (state / "agent.toml").write_text(_GATEWAY)


def rootless_member(world: World) -> Step:
    """Dave has no rights on his machine."""
    network, dave, alice = world.network, world.dave, world.alice
    started = time.monotonic()
    network.join(dave, rights=False)
    until(dave, partial(network.knows, dave, [alice]), "alice")
    seconds = time.monotonic() - started
    if (engine := network.status(dave)["engine"]) != "rootless":
        raise OperationFailed(f"dave has the engine {engine}, which takes rights that he has not")
    links = dave.run(["ip", "-brief", "link"]).stdout.split("\n")
    if any(line.startswith("w-") for line in links):
        raise OperationFailed("there is an interface of the network in dave's host")
    program = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", f"alice.{network.name}.internal"]
    until(dave, lambda: network.warren(dave, "exec", "--", *program, check=False).returncode == 0, "alice's answer")
    said = network.warren(dave, "exec", "--", *program).stdout.strip().splitlines()
    return Step(
        "A member without root",
        (
            f"dave$ warren up 'warren-ticket:…'   is {network.address(dave)} after {seconds:.1f} s",
            "dave$ ip link                      no interface of it: the network is in a namespace of his own",
            f"dave$ warren exec -- ping -c 3 {program[-1]}",
            f"      {said[-2]}",
        ),
        {"seconds": round(seconds, 3)},
    )


def page_for_everybody(world: World) -> Step:
    """Dave's page through the gateway, fetched by somebody who is no member."""
    network, dave, visitor = world.network, world.dave, world.dc2
    pages = dave.directory / "pages"
    pages.mkdir()
    (pages / "index.html").write_text(f"{_PAGE}\n")
    serve = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(pages), str(_PORT)]
    dave.start(serve, name="pages")
    by_caddy = shutil.which("caddy") is not None
    service = ["service", "add", network.name, "page", "--at", "member:dave", "--target", f"127.0.0.1:{_PORT}"]
    connector = ["connector", "add", network.name, "www", "--service", "page", "--at", "member:gw"]
    connector += ["--kind", "http", "--certificate", "internal"] if by_caddy else ["--listen", "*:80"]
    for command in (service, connector):
        network.warren(network.server, *command)
    at = world.internet.address("gw")
    name = "www.gw.example.com"
    url = f"https://{name}/" if by_caddy else f"http://{name}/"
    fetch = [
        "curl",
        "-sSk",
        "-4",
        "--max-time",
        "3",
        "--resolve",
        f"{name}:443:{at}",
        "--resolve",
        f"{name}:80:{at}",
        url,
    ]
    started = time.monotonic()
    until(visitor, lambda: _PAGE in visitor.run(fetch, check=False).stdout, f"{url} at the gateway")
    seconds = time.monotonic() - started
    began = time.monotonic()
    visitor.run(fetch)
    once = time.monotonic() - began
    without = () if by_caddy else ("Caddy is not installed, so the gateway ends no TLS here",)
    return Step(
        "A page of a hidden member, for everybody",
        (
            f"dc1$ warren {' '.join(service)}",
            f"dc1$ warren {' '.join(connector)}",
            f"dc2$ curl -4 {url}    (dc2 is no member; {seconds:.1f} s later)",
            f"     {_PAGE}",
            *without,
        ),
        {"seconds": round(seconds, 3), "fetch_s": round(once, 3), "tls": by_caddy},
    )


def forwarded_port(world: World) -> Step:
    """A port of alice's own leads to dave's service."""
    alice = world.alice
    held = alice.start([*warren_command(), "forward", "8000", "page", "--run", "/run/warren"], name="forward")
    fetch = ["curl", "-sS", "--max-time", "3", "http://127.0.0.1:8000/"]
    until(alice, lambda: _PAGE in alice.run(fetch, check=False).stdout, "the forwarded port")
    held.stop()
    return Step(
        "A forwarded port",
        (
            "alice$ warren forward 8000 page",
            "alice$ curl http://127.0.0.1:8000/",
            f"       {_PAGE}",
        ),
        {},
    )
