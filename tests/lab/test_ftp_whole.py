"""FTP of a hidden member without rights, used from outside through gateways, one of which has a private address."""

from __future__ import annotations

import ftplib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.ftp_clients import BIG, HEAD, TAIL, Mode, Place, files_of, modes, session
from tests.support.ftp_servers import FtpServer, missing, prepared
from tests.support.stream_world import GATEWAY, StreamWorld, configure
from warren.lab import Host, Lab
from warren.lab.site import Site

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(missing("vsftpd") is not None, reason=f"{missing('vsftpd')}"),
]

PORT = 2121


def put_behind(site: Site, host: str) -> None:
    """All that comes to the public address of the site goes to ``host``, as clouds do it."""
    site.router.nft(
        "table ip one_to_one { chain come { type nat hook prerouting priority dstnat - 1; "
        f'iifname "wan" ip daddr {site.internet.address(site.name)} dnat to {host}; }}; }}'
    )


class FtpWorld:
    """A service ``files`` of the hidden member, with public connectors at ``gw1`` and at ``cloud``, behind 1:1 NAT."""

    def __init__(self, lab: Lab) -> None:
        self.world = world = StreamWorld(lab)
        self.site = world.internet.site("cloudy", "full-cone")
        self.cloud = self.site.host("cloud")
        self.outside = world.internet.address("cloudy")
        put_behind(self.site, self.inside)
        configure(
            self.cloud, GATEWAY.format(domain="cloud.example.com") + f'[public]\naddresses = ["{self.outside}"]\n'
        )
        world.members.append(self.cloud)
        self.visitor6 = world.internet.server("visitor6", families="6")
        world.start()
        self.server = self._serve()
        world.service("files", "--at", "member:hidden", "--target", f"127.0.0.1:{PORT}", "--helper", "ftp")
        for name in ("gw1", "cloud"):
            world.connector(f"at-{name}", "--service", "files", "--at", f"member:{name}", "--listen", f"*:{PORT}")
        for host, name in ((world.gateways[0], "gw1"), (self.cloud, "cloud")):
            world.wait_done(host, f"connector at-{name}")

    @property
    def inside(self) -> str:
        """Of the gateway behind NAT."""
        return str(self.site.prefix4[10]) if self.site.prefix4 else ""

    def _serve(self) -> FtpServer:
        hidden = self.world.hidden
        server, commands = prepared("vsftpd", "127.0.0.1", PORT, hidden.directory / "ftp")
        for command in commands:
            hidden.start(command, name="vsftpd")
        return server


def passive_address(host: str, port: int) -> str:
    """What PASV says, and that something is there."""
    with ftplib.FTP() as ftp:  # noqa: S321
        ftp.trust_server_pasv_ipv4_address = True
        ftp.connect(host, port, timeout=20)
        ftp.login()
        address, _ = ftp.makepasv()
        assert "root" not in ftp.nlst()
        return address


@pytest.mark.logs_errors
def test_files_of_a_hidden_member_are_moved_in_every_mode_of_ftp_from_outside(lab: Lab) -> None:
    made = FtpWorld(lab)
    a_visitor_with_ipv6_alone_uses_a_server_with_ipv4_alone(made)
    every_mode_of_two_programs_moves_files_intact(made)
    behind_one_to_one_nat_clients_are_told_the_public_address(made)


def every_mode_of_two_programs_moves_files_intact(made: FtpWorld) -> None:
    place = Place(made.world.address(made.world.gateways[0]), PORT, made.server.user)
    for client in ("curl", "lftp"):
        for mode in modes(client, place.host):
            files_are_moved(made, made.world.visitor, client, mode, place)


def a_visitor_with_ipv6_alone_uses_a_server_with_ipv4_alone(made: FtpWorld) -> None:
    place = Place(made.world.internet.address("gw1", 6), PORT, made.server.user)
    for client, mode in (("curl", "EPSV"), ("lftp", "EPRT")):
        files_are_moved(made, made.visitor6, client, mode, place)


def files_are_moved(made: FtpWorld, visitor: Host, client: str, mode: Mode, place: Place) -> None:
    name = f"{visitor.name}-{client}-{mode.lower()}"
    directory = visitor.directory / name
    directory.mkdir(parents=True)
    files_of(directory)

    def run(command: Sequence[str], where: Path) -> None:
        visitor.run(["sh", "-c", 'cd "$0" && exec "$@"', where, *command], env={"HOME": str(where)})

    got = session(client, mode, place, name, directory, run)
    assert got.big == got.resumed == BIG == (made.server.root / f"{name}.big").read_bytes()
    assert (made.server.root / f"{name}.joined").read_bytes() == HEAD + TAIL
    assert got.empty == b""
    assert f"{name}.big" in got.listing


def behind_one_to_one_nat_clients_are_told_the_public_address(made: FtpWorld) -> None:
    assert made.world.visitor.call(passive_address, made.outside, PORT) == made.outside
    assert made.cloud.call(passive_address, made.inside, PORT) == made.inside
