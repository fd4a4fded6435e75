"""``warren network plan`` and ``apply``: a desired-state file against the network as it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from warren.cli import access as access_
from warren.cli import entries, output
from warren.cli.completion_names import NETWORK
from warren.errors import OperationFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from warren.api.rest import AdminClient
    from warren.cli.network_file import FileProblem, StateFile
    from warren.proto.control.desired_state import Change, Plan

_SIGNS: Final = {"add": ("+", "green"), "remove": ("-", "red"), "change": ("~", "yellow")}
_STANDARD_INPUT: Final = "standard input"
_FILE = click.argument("file", metavar="[FILE]", required=False, type=click.Path(allow_dash=True))


@click.command("plan")
@_FILE
@click.option(
    "--network",
    metavar="NETWORK",
    type=NETWORK,
    help="Without FILE: the network to print; needed when there are several.",
)
@access_.access_option
@access_.json_option
def plan(file: str | None, network: str | None, access: str | None, as_json: bool) -> None:
    """Show what applying FILE would change, and change nothing. FILE - is standard input.

    What the plan shows is also the drift: how the network differs from the file that describes it. Without FILE the
    network as it is now is printed as such a file, to be kept and edited.

    \b
    Example:
      warren network plan > home.toml
      $EDITOR home.toml
      warren network plan home.toml
      warren network apply home.toml
    """
    if file is None:
        _print_present(access, network, as_json)
        return
    name, wanted = _read(file, as_json)
    if network is not None and network != wanted.network:
        raise UsageError(f"{name} is about the network {wanted.network}, not {network}; leave --network out")
    planned = _ask(access, name, wanted, as_json, lambda client: client.plan(wanted.network, wanted.state))
    if as_json:
        output.emit(_as_value(name, wanted, planned))
        return
    _print(name, wanted, planned)
    _warn(name, wanted, planned)
    if planned.changes:
        count = _count(planned)
        how = f"{count} to make" if file == "-" else f"{count} to make; `warren network apply {name}` does it"
        click.echo(f"\n{how}.")


@click.command("apply")
@_FILE
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@entries.wait_option
@access_.access_option
@access_.json_option
def apply(file: str | None, yes: bool, wait_s: int, access: str | None, as_json: bool) -> None:
    """Make the network what FILE says: everything in the plan, or nothing of it. FILE - is standard input.

    The plan is shown first and a terminal asked for consent. When somebody changes the network in between, the apply is
    refused.

    \b
    Example:
      warren network apply home.toml
    """
    if file is None:
        raise UsageError("say which file; `warren network plan` prints one to begin with")
    from warren.proto.control.desired_state import ApplyRequest

    name, wanted = _read(file, as_json)
    planned = _ask(access, name, wanted, as_json, lambda client: client.plan(wanted.network, wanted.state))
    if not as_json:
        _print(name, wanted, planned)
        _warn(name, wanted, planned)
    if not planned.changes:
        if as_json:
            output.emit({**_as_value(name, wanted, planned), "applied": False})
        return
    if not as_json:
        click.echo()
    output.confirm(f"Make {_count(planned)} in {wanted.network}?", yes=yes)
    request = ApplyRequest(state=wanted.state, version=planned.version)
    done = _ask(access, name, wanted, as_json, lambda client: client.apply(wanted.network, request))
    if as_json:
        output.emit({**_as_value(name, wanted, done), "applied": True})
        return
    click.echo(f"Done: {_count(done)}. {wanted.network} is as {name} says.")
    carried = {change.subject: change for change in done.changes if change.action != "remove" and _is_carried(change)}
    if carried and wait_s:
        anew = all(change.action == "add" for change in carried.values())
        lines = access_.ask(access, lambda client: entries.applied(client, wanted.network, carried, wait_s, anew=anew))
        entries.warn(lines)


# The file


def _read(file: str, as_json: bool) -> tuple[str, StateFile]:
    """What to call the file, and what it says. A file with problems ends the command."""
    from warren.cli import network_file

    name = _STANDARD_INPUT if file == "-" else file
    try:
        data = sys.stdin.buffer.read(network_file.BYTES_MAX + 1) if file == "-" else _bytes(Path(file))
    except OSError as error:
        what = f"{name} cannot be read: {error.strerror}"
        raise OperationFailed(f"{what}; name a file that `warren network plan` printed") from None
    read = network_file.read(data)
    if read.problems:
        raise _refusal(name, read.problems, read.network, as_json)
    return name, read


def _bytes(path: Path) -> bytes:
    from warren.cli import network_file

    with path.open("rb") as file:
        return file.read(network_file.BYTES_MAX + 1)


def _ask(
    access: str | None, name: str, wanted: StateFile, as_json: bool, question: Callable[[AdminClient], Awaitable[Plan]]
) -> Plan:
    """The coordinator's plan; what it finds wrong with the file ends the command."""
    from warren.api.rest import RequestInvalid

    try:
        planned = access_.ask(access, question)
    except RequestInvalid as error:
        if not error.problems:
            raise
        problems = error.problems
    else:
        if not planned.problems:
            return planned
        problems = planned.problems
    raise _refusal(name, [wanted.locate(problem) for problem in problems], wanted.network, as_json)


def _refusal(name: str, problems: list[FileProblem], network: str, as_json: bool) -> UsageError:
    """Tell what is wrong with the file, in the order of its lines; the error that ends the command."""
    problems = sorted(problems, key=lambda problem: problem.line)
    if as_json:
        found = [{"file": name, "line": p.line, "key": p.key, "what": p.what} for p in problems]
        output.emit({"file": name, "network": network, "problems": found, "applied": False})
    if len(problems) == 1:
        return UsageError(f"{_problem_text(name, problems[0])}; nothing was changed")
    if not as_json:
        for problem in problems:
            click.echo(output.clean(_problem_text(name, problem)), err=True)
    return UsageError(f"{name} has {len(problems)} problems; nothing was changed")


def _warn(name: str, wanted: StateFile, planned: Plan) -> None:
    """What is perhaps not meant, on stderr."""
    found = sorted((wanted.locate(warning) for warning in planned.warnings), key=lambda problem: problem.line)
    for problem in found:
        click.echo(click.style(output.clean(f"warning: {_problem_text(name, problem)}"), fg="yellow"), err=True)


def _problem_text(name: str, problem: FileProblem) -> str:
    """``home.toml:12: policy[2].from: what is wrong``."""
    key = f"{problem.key}: " if problem.key else ""
    return f"{name}:{problem.line}: {key}{problem.what}"


def _print_present(access: str | None, network: str | None, as_json: bool) -> None:
    from warren.cli.network_render import render
    from warren.proto.control.desired_state import DesiredState

    async def question(client: AdminClient) -> tuple[str, DesiredState]:
        name = network
        if name is None:
            names = [known.name for known in await client.networks()]
            if len(names) != 1:
                several = f"say which: --network {' or '.join(sorted(names))}" if names else "there is no network yet"
                raise UsageError(f"{several}, or name a FILE to plan")
            name = names[0]
        return name, await client.desired_state(name)

    name, state = access_.ask(access, question)
    output.answer({"network": name, "state": state}, render(name, state).removesuffix("\n"), as_json=as_json)


# The plan


def _print(name: str, wanted: StateFile, planned: Plan) -> None:
    if not planned.changes:
        click.echo(f"Nothing to do: {wanted.network} is as {name} says.")
        return
    click.echo(f"{wanted.network} differs from {name}:\n")
    for line in change_lines(planned.changes):
        click.echo(line)


def change_lines(changes: tuple[Change, ...]) -> list[str]:
    """A diff: what comes in green after ``+``, what goes in red after ``-``; a change shows both below each other."""
    width = max(len(change.subject) for change in changes)
    lines = []
    for change in changes:
        sign, colour = _SIGNS[change.action]
        subject = output.clean(change.subject).ljust(width)
        before, after = (output.clean(text) if text else "(none)" for text in (change.before, change.after))
        if change.action == "change":
            indent = " " * (width + 4)
            lines += [
                click.style(f"  {sign} {subject}", fg=colour) + "  " + click.style(f"- {before}", fg="red"),
                f"{indent}  " + click.style(f"+ {after}", fg="green"),
            ]
        else:
            lines.append(click.style(f"  {sign} {subject}  {after if change.action == 'add' else before}", fg=colour))
    return lines


def _is_carried(change: Change) -> bool:
    """Whether it is of a service or a connector, of which members say whether it works."""
    return change.subject.startswith(("service ", "connector "))


def _count(planned: Plan) -> str:
    return "1 change" if len(planned.changes) == 1 else f"{len(planned.changes)} changes"


def _as_value(name: str, wanted: StateFile, planned: Plan) -> dict[str, object]:
    warnings = [wanted.locate(warning) for warning in planned.warnings]
    return {
        "file": name,
        "network": wanted.network,
        "version": planned.version,
        "changes": planned.changes,
        "warnings": [{"file": name, "line": p.line, "key": p.key, "what": p.what} for p in warnings],
    }
