"""A router that gives ways in when asked, as those at home do: miniupnpd, which speaks UPnP-IGD, NAT-PMP and PCP."""

from __future__ import annotations

import json
from collections.abc import Collection
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Final, Literal

from warren.errors import OperationFailed, UsageError
from warren.lab.configure import checked_interface_name
from warren.lab.program import Process
from warren.lab.router import Router

Protocol = Literal["upnp", "nat-pmp", "pcp"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("upnp", "nat-pmp", "pcp")
TABLE: Final = "lab_gateway"
_FORWARD, _DNAT, _SNAT = "holes", "ways_in", "ways_out"
_PORT: Final = 5351  # of both NAT-PMP (whose version is 0) and PCP (2)
_PATIENCE_S: Final = 10.0


class LabGateway:
    """miniupnpd on a router. Made by :func:`start_gateway`; the lab ends it."""

    def __init__(self, router: Router, config: Path, *, needs_upnp: bool) -> None:
        self.router = router
        self._config = config
        self._needs_upnp = needs_upnp
        self.process: Process = self._start()

    def stop(self) -> None:
        """End it as a shutdown does: what it had mapped is taken away."""
        self.process.stop()

    def restart(self) -> None:
        """End it and start it anew: its mappings are gone, and its clock (the epoch) begins again."""
        self.stop()
        self.forget()
        self.process = self._start()

    def forget(self) -> None:
        """Take all ways in away behind its back."""
        flushed = "".join(f"flush chain inet {TABLE} {chain}\n" for chain in (_FORWARD, _DNAT, _SNAT))
        self.router.nft(flushed)

    def ways_in(self) -> list[str]:
        """The rules that are there for somebody who asked: ways in to IPv4 ports, and holes for IPv6. Each one line."""
        found = []
        for chain in (_DNAT, _FORWARD):
            listed = json.loads(self.router.run(["nft", "-j", "list", "chain", "inet", TABLE, chain]).stdout)
            rules: list[dict[str, Any]] = [one["rule"] for one in listed["nftables"] if "rule" in one]
            found += [json.dumps(rule["expr"]) for rule in rules]
        return found

    def _start(self) -> Process:
        directory = self._config.parent
        pid_file = directory / "miniupnpd.pid"
        process = self.router.start(["miniupnpd", "-d", "-f", str(self._config), "-P", str(pid_file)])

        def listens() -> bool:
            if process.returncode is not None:
                return True
            udp = self.router.run(["ss", "-Hlun"], check=False).stdout
            return f":{_PORT} " in udp and (not self._needs_upnp or ":1900 " in udp)

        self.router.wait_for(listens, _PATIENCE_S)
        if process.returncode is not None:
            raise OperationFailed(f"host {self.router.name}: miniupnpd ended: {_last_line(process)}")
        return process


def start_gateway(
    router: Router,
    *,
    lan: str,
    wan: str,
    protocols: Collection[Protocol] = PROTOCOLS,
    igd_version: Literal[1, 2] = 2,
    firewall6: bool = False,
    public_address: str | None = None,
    http_port: int = 0,
) -> LabGateway:
    """Make ``router`` give ways in from ``wan`` to the hosts of ``lan`` (names of its interfaces, with addresses).

    Only ``protocols`` are answered. NAT is the router's own business (:meth:`Router.nat`). With ``firewall6`` no IPv6
    flow may begin outside but through a hole that somebody asked for; the router's own firewall must not be stateful
    then. ``public_address``: what it says its address is, if another than that of ``wan``. ``http_port`` 0: another
    one at each start.

    Raises OperationFailed when miniupnpd is missing (Debian package miniupnpd-nftables) or does not come up, UsageError
    for other ``protocols``.
    """
    for interface in (lan, wan):
        checked_interface_name(interface)
    unknown = set(protocols) - set(PROTOCOLS)
    if unknown or not protocols:
        raise UsageError(f"protocols {', '.join(map(str, protocols)) or 'none'}: say {', '.join(PROTOCOLS)}")
    router.nft(_ruleset(lan, wan, protocols, firewall6=firewall6))
    directory = router.directory / "gateway"
    directory.mkdir(exist_ok=True)
    config = directory / "miniupnpd.conf"
    words = {
        "ext_ifname": wan,
        "ext_ip": public_address,
        "listening_ip": lan,
        "http_port": str(http_port),
        "enable_natpmp": "yes",  # PCP, too; what is not wanted, the ruleset drops
        "enable_upnp": "yes" if "upnp" in protocols else "no",
        "secure_mode": "yes",
        "system_uptime": "no",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "force_igd_desc_v1": "yes" if igd_version == 1 else "no",
        "upnp_table_name": TABLE,
        "upnp_nat_table_name": TABLE,
        "upnp_forward_chain": _FORWARD,
        "upnp_nat_chain": _DNAT,
        "upnp_nat_postrouting_chain": _SNAT,
    }
    lines = [f"{word}={value}" for word, value in words.items() if value is not None]
    lines += [f"allow 1024-65535 {network} 1024-65535" for network in _networks4(router, lan)]
    config.write_text("\n".join([*lines, "deny 0-65535 0.0.0.0/0 0-65535", ""]))
    return LabGateway(router, config, needs_upnp="upnp" in protocols)


def _networks4(router: Router, interface: str) -> list[str]:
    listed = json.loads(router.run(["ip", "-j", "-4", "address", "show", "dev", interface]).stdout)
    found = [f"{one['local']}/{one['prefixlen']}" for link in listed for one in link["addr_info"]]
    return [str(ip_interface(address).network) for address in found]


def _ruleset(lan: str, wan: str, protocols: Collection[Protocol], *, firewall6: bool) -> str:
    version = "@th,64,8"  # the first byte behind the UDP header
    drops = [] if "nat-pmp" in protocols else [f'iifname "{lan}" udp dport {_PORT} {version} 0 drop']
    drops += [] if "pcp" in protocols else [f'iifname "{lan}" udp dport {_PORT} {version} 2 drop']
    # A real gateway of either kind does not announce itself in the other's words.
    drops += [f'iifname "{wan}" udp dport {{ 1900, {_PORT} }} drop']
    stateful = [
        f'iifname "{wan}" meta nfproto ipv6 ct state established,related accept',
        f"jump {_FORWARD}",
        f'iifname "{wan}" meta nfproto ipv6 meta l4proto {{ tcp, udp }} drop',
    ]
    return "\n".join(
        [
            f"add table inet {TABLE}",
            f"delete table inet {TABLE}",
            f"table inet {TABLE} {{",
            *(f"chain {chain} {{ }}" for chain in (_FORWARD, _DNAT, _SNAT)),
            "chain hear { type filter hook input priority filter - 5;",
            *drops,
            "}",
            "chain pass { type filter hook forward priority filter - 5;",
            *(stateful if firewall6 else [f"jump {_FORWARD}"]),
            "}",
            f"chain enter {{ type nat hook prerouting priority dstnat - 5; jump {_DNAT}; }}",
            f"chain leave {{ type nat hook postrouting priority srcnat - 5; jump {_SNAT}; }}",
            "}",
        ]
    )


def _last_line(process: Process) -> str:
    return (process.output().strip() or "it said nothing").splitlines()[-1]
