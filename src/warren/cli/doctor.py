"""``warren doctor``: how this host is connected, what keeps members from reaching it, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from warren.cli import output
from warren.errors import UsageError

if TYPE_CHECKING:
    from warren.doctor.observe import StunTarget
    from warren.doctor.report import Finding, Report

_STUN_PORT: Final = 3478
_MARKS: Final = {"good": "ok", "note": "note", "warning": "warn", "bad": "BAD", "unknown": "?"}
_COLOURS: Final = {"good": "green", "note": None, "warning": "yellow", "bad": "red", "unknown": "cyan"}


@click.command("doctor")
@click.option(
    "--stun", "servers", metavar="HOST[:PORT]", multiple=True, help="Ask this STUN server; may be given several times."
)
@click.option("--state", metavar="DIR", help="The agent's state directory. [default: /var/lib/warren]")
@click.option(
    "--within",
    "within_s",
    metavar="S",
    type=click.FloatRange(2, 120),
    default=10.0,
    show_default=True,
    help="Seconds that it may take.",
)
@click.option(
    "--lifetime",
    "lifetime_s",
    metavar="S",
    type=click.FloatRange(5, 600),
    help="Afterwards watch unused mappings of the NAT for S seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found and everything that was seen as JSON.")
def command(
    servers: tuple[str, ...], state: str | None, within_s: float, lifetime_s: float | None, as_json: bool
) -> int:
    """Find out how this host is connected: NAT, firewall, IPv6, proxies, MTU, clock, kernel; and say what to change.

    Asks the relays and coordinators of this machine's networks, or the servers named by --stun. The exit status is 1
    when something keeps members from being reached.
    """
    import asyncio

    import msgspec

    from warren.cli.doctor_targets import targets_of
    from warren.doctor.judge import judge
    from warren.doctor.observe import observe

    targets, passed_over = targets_of(state, tuple(_stun_target(text) for text in servers))
    if not as_json:
        longer = f", and {lifetime_s:g} s for lifetimes" if lifetime_s else ""
        click.echo(f"looking around; this takes up to {within_s:g} s{longer} …", err=True)
    observed = asyncio.run(observe(targets, within_s=within_s, lifetime_s=lifetime_s or 0.0))
    report = judge(msgspec.structs.replace(observed, passed_over=(*passed_over, *observed.passed_over)))
    if as_json:
        output.emit(report)
    else:
        for line in page(report):
            click.echo(line)
    return 0 if report.healthy else 1


def page(report: Report) -> list[str]:
    """The report for a person, the worst first."""
    order = {level: number for number, level in enumerate(("bad", "warning", "note", "good", "unknown"))}
    lines = [click.style(output.clean(report.words), bold=True), ""]
    for finding in sorted(report.findings, key=lambda one: order[one.level]):
        lines += _entry(finding)
    if report.healthy:
        unseen = any(finding.level == "unknown" for finding in report.findings)
        but = "; what is marked ? could not be looked at" if unseen else ""
        return [*lines, "", f"nothing was found that keeps members from being reached{but}"]
    return [*lines, "", "members may not be reached: see BAD above"]


def _entry(finding: Finding) -> list[str]:
    mark = click.style(f"{_MARKS[finding.level]:<4}", fg=_COLOURS[finding.level])
    lines = [f"{mark}  {output.clean(finding.topic)}: {output.clean(finding.what)}"]
    if finding.meaning:
        lines.append(f"      {output.clean(finding.meaning)}")
    if finding.remedy:
        lines.append(f"      → {output.clean(finding.remedy)}")
    return lines


def _stun_target(text: str) -> StunTarget:
    from warren.doctor.observe import StunTarget

    host, _, port = text.rpartition(":") if ":" in text.rpartition("]")[2] else (text, "", "")
    if text.count(":") > 1 and not text.startswith("["):  # an IPv6 address alone
        host, port = text, ""
    host = host.removeprefix("[").removesuffix("]")
    if not host or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536)):
        raise UsageError(f"--stun {text!r}: say HOST or HOST:PORT, an IPv6 address in brackets: [2001:db8::1]:3478")
    return StunTarget(host, int(port or _STUN_PORT))
