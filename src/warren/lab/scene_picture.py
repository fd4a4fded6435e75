"""A scene as text: who is where, behind what, and by which paths the members of its networks reach each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from warren.lab.scene_plan import Plan, PlannedServer, PlannedSite

_GAP: Final = "  "
_NOT_MEASURED: Final = "-"


@dataclass(frozen=True, slots=True)
class SeenPath:
    """How one member reaches another, as its agent says."""

    network: str
    source: str
    target: str
    state: str
    path: str
    via: str
    """The endpoint, or "via" and the relay's name."""
    rtt_ms: float | None
    reason: str = ""


def paths(statuses: Mapping[str, Mapping[str, Any]]) -> list[SeenPath]:
    """From what ``warren status --json`` says on each host."""
    found = []
    for host, status in statuses.items():
        for membership in status.get("networks", ()):
            for peer in membership["peers"]:
                via = f"via {peer['relay']}" if peer["path"] == "relayed" else str(peer["endpoint"])
                found.append(
                    SeenPath(
                        membership["network"],
                        host,
                        peer["name"],
                        peer["state"],
                        peer["path"],
                        "" if peer["path"] == "none" else via,
                        peer["rtt_ms"],
                        str(peer.get("why") or "") if peer["state"] == "unreachable" else "",
                    )
                )
    return found


def picture(plan: Plan, statuses: Mapping[str, Mapping[str, Any]], troubles: Mapping[str, str]) -> list[str]:
    """Lines for a person. ``troubles``: why there is no status of a host."""
    overlay = _overlay_addresses(statuses)
    lines = ["internet", *_tree(plan, overlay)]
    seen = paths(statuses)
    for network in plan.networks:
        rows = [_path_row(path) for path in seen if path.network == network.name]
        lines += ["", f"{network.name}  {network.ipv4}, members {', '.join(network.members)}"]
        if rows:
            lines += [f"  {line}" for line in _columns([["FROM", "TO", "STATE", "PATH", "RTT"], *rows])]
    lines += [f"  {host}: {trouble}" for host, trouble in troubles.items()]
    return lines


def _tree(plan: Plan, overlay: Mapping[str, str]) -> Iterator[str]:
    branches: list[PlannedServer | PlannedSite] = [*plan.servers, *plan.sites]
    for number, branch in enumerate(branches, 1):
        knot, trunk = ("└─ ", "   ") if number == len(branches) else ("├─ ", "│  ")
        if isinstance(branch, PlannedSite):
            yield f"{knot}{branch.name}  {', '.join(branch.addresses)}  {_behaviour(branch)}"
            yield from (f"{trunk}{line}" for line in _hosts(branch, overlay))
        else:
            words = [knot + branch.name, ", ".join(branch.addresses), ", ".join(branch.roles), overlay.get(branch.name)]
            yield _GAP.join(filter(None, words))


def _behaviour(site: PlannedSite) -> str:
    words = [f"{site.kind} ({site.behaviour})" if site.kind not in ("", site.behaviour) else site.behaviour]
    words += [f"gives ports by {', '.join(site.gateway)}"] if site.gateway else []
    words += [f"link: {site.link}"] if site.link else []
    return "; ".join(words)


def _hosts(site: PlannedSite, overlay: Mapping[str, str]) -> Iterator[str]:
    for number, uplink in enumerate(site.uplinks, 1):
        knot = "└─ " if number == len(site.uplinks) else "├─ "
        further = f"uplink {uplink.interface}" if uplink.metric else overlay.get(uplink.host)
        yield _GAP.join(filter(None, [knot + uplink.host, ", ".join(uplink.addresses), further]))


def _overlay_addresses(statuses: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """``home: fd12::1, 10.77.0.1`` by host."""
    found = {}
    for host, status in statuses.items():
        texts = [
            f"{one['network']}: {', '.join(address.partition('/')[0] for address in one['addresses'])}"
            for one in status.get("networks", ())
        ]
        found[host] = "; ".join(texts)
    return found


def _path_row(path: SeenPath) -> list[str]:
    how = " ".join(filter(None, [path.path, path.via]))
    rtt = _NOT_MEASURED if path.rtt_ms is None else f"{path.rtt_ms:.1f} ms"
    return [path.source, path.target, path.state, f"{how}  ({path.reason})" if path.reason else how, rtt]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
