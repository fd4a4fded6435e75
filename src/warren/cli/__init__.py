"""The ``warren`` command. One file per noun; a command's file is imported when it is called, not before.

Exit status: 0 done, 1 the operation failed, 2 wrong usage, 3 what should answer does not. An error is one line on
stderr.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Final, NoReturn

import click

from warren import __version__, log
from warren.cli.groups import LazyGroup
from warren.errors import WarrenError

_SECTIONS: Final = {
    "Everyday": {
        "up": ("warren.cli.up", "Join networks and stay in them, in the foreground."),
        "down": ("warren.cli.down", "Stop the agent, or leave one network."),
        "status": ("warren.cli.status", "Show the networks of this machine, and who is in them."),
        "ping": ("warren.cli.ping", "See whether another member answers, and by which path."),
        "exec": ("warren.cli.exec", "Run a program in the overlay, where members have names."),
        "forward": ("warren.cli.forward", "Forward ports to members, services, and what is behind members."),
        "explain": ("warren.cli.explain", "Explain by which path two members reach each other, and why."),
        "doctor": ("warren.cli.doctor", "Find out how this host is connected, and what to change."),
        "install": ("warren.cli.install", "Run the agent as a systemd service."),
    },
    "Networks": {
        "network": ("warren.cli.network", "Create networks, invite, plan and apply policies, revoke."),
        "coordinator": ("warren.cli.coordinator", "Run the service that networks are managed by."),
        "relay": ("warren.cli.relay", "Run a relay: the way between members when there is no other."),
        "service": ("warren.cli.service", "What members serve to others, by name."),
        "connector": ("warren.cli.connector", "Where streams to services come in: ports, TLS names, web sites."),
        "login": ("warren.cli.access:login", "Keep an access string for `warren network`."),
        "logout": ("warren.cli.access:logout", "Forget the access string."),
    },
    "More": {
        "tunnel": ("warren.cli.tunnel", "Run a WireGuard tunnel from a wg-quick config."),
        "lab": ("warren.cli.lab", "Rehearse networks: sites, NATs and bad links inside this machine."),
        "demo": ("warren.cli.demo", "Show a network at work between hosts inside this machine."),
        "completion": ("warren.cli.completion", "Print the completion script for bash, zsh or fish."),
    },
}
_INTERRUPTED = 128 + 2  # a shell's status of a program that SIGINT ended
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@click.group(
    cls=LazyGroup,
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="warren", message="%(prog)s %(version)s")
def program() -> None:
    """Join machines into private, end-to-end encrypted networks.

    `warren COMMAND --help` explains a command. WARREN_DEBUG=1 in the environment adds debug lines and, for a bug in
    Warren, its traceback.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale that lacks a character is no reason to fail
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit status; every failure has been told on stderr, in one line."""
    as_json = "--json" in arguments
    try:
        result = program.main(args=arguments, prog_name="warren", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else _command_of(arguments)
        what = " ".join(error.format_message().split()).rstrip(".")  # click lists choices on lines of their own
        _complain(f"{what}{' See' if what.endswith('?') else '; see'} `{command} --help`", as_json)
        return 2
    except click.ClickException as error:
        _complain(error.format_message(), as_json)
        return error.exit_code
    except WarrenError as error:
        _complain(str(error), as_json)
        return error.exit_status
    except (KeyboardInterrupt, click.Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        _print_no_more()  # whoever read our output has gone; nothing is left to say
        return 1
    except Exception as error:  # noqa: BLE001 - the last door: a bug is told in one line too
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            _print_no_more()
            _complain(f"what this prints cannot be written ({error.strerror}); make room, or print elsewhere", as_json)
        else:
            _complain(_report(error), as_json)
        return 1
    return result if isinstance(result, int) else 0


def _command_of(arguments: list[str]) -> str:
    """``warren network invite``: the command that the first of the ``arguments`` name."""
    words = ["warren"]
    command: click.Command = program
    for word in arguments:
        found = command.get_command(click.Context(command), word) if isinstance(command, click.Group) else None
        if found is None:
            break
        command = found
        words.append(word)
    return " ".join(words)


def _print_no_more() -> None:
    """What stdout still holds must not be tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, as_json: bool) -> None:
    import json

    message = log.printable(message)
    print(json.dumps({"level": "error", "message": message}) if as_json else f"warren: {message}", file=sys.stderr)


def _report(error: Exception) -> str:
    """Keep the traceback for the report; one line on what to do with it."""
    import tempfile
    import traceback

    what = f"this is a bug in Warren ({type(error).__name__}: {error})"
    if log.debugging():
        traceback.print_exc()
        return f"{what}; please report it with the lines above"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="warren-bug-", suffix=".txt", delete=False) as file:
            file.writelines(f"{log.printable(line)}\n" for line in traceback.format_exc().splitlines())
    except OSError:
        return f"{what}; please report it with what WARREN_DEBUG=1 shows"
    return f"{what}; please report it with the file {file.name}"
