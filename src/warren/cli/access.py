"""``warren login`` and ``logout``, and how every command for administrators finds its coordinator.

An access string is looked for in ``--access``, then in WARREN_ACCESS, then in the file that ``login`` wrote
(~/.config/warren/access). It is a secret: the file is the owner's alone, and a file that others can read is refused.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from warren.errors import OperationFailed, UsageError

if TYPE_CHECKING:
    from warren.api.rest import AdminClient
    from warren.model.tickets import Access

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

VARIABLE = "WARREN_ACCESS"


def access_option(function: F) -> F:
    """``--access TEXT``."""
    option = click.option(
        "--access",
        metavar="TEXT",
        envvar=VARIABLE,
        help=f"Access string of the coordinator; else ${VARIABLE}, or what `warren login` keeps.",
    )
    return option(function)


def json_option(function: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def ask(access: str | None, question: Callable[[AdminClient], Awaitable[T]]) -> T:
    """Run ``question`` with a client of the coordinator that ``access`` (or what is configured) leads to."""
    return _ask(find(access), question)


def _ask(access: Access, question: Callable[[AdminClient], Awaitable[T]]) -> T:
    import asyncio

    from warren.api.rest import AdminClient

    async def session() -> T:
        async with AdminClient(access) as client:
            return await question(client)

    return asyncio.run(session())


def find(text: str | None) -> Access:
    """The access string in ``text``, else that of the file. Raises UsageError when there is none, or it is damaged."""
    from warren.model.tickets import read_access

    if text is not None:
        return read_access(text)
    path = file()
    try:
        mode = path.stat().st_mode
        kept = path.read_text("utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"no coordinator is known here: run `warren login` with the access string that the coordinator showed at "
            f"its first start, or set {VARIABLE}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise OperationFailed(f"{path} cannot be read ({_reason(error)}); run `warren login` again") from None
    if stat.S_IMODE(mode) & 0o077:
        raise OperationFailed(
            f"{path} holds a secret and others may read it: run `chmod 600 {path}`, and `warren login` with a new "
            "access string if somebody did"
        )
    try:
        return read_access(kept)
    except UsageError:
        raise OperationFailed(f"{path} is damaged; run `warren login` again") from None


def file() -> Path:
    """Where the access string is kept: below XDG_CONFIG_HOME, by default ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        directory = Path(base) if base.startswith("/") else Path.home() / ".config"
    except RuntimeError:
        raise OperationFailed(f"this user has no home directory to keep an access string in; set {VARIABLE}") from None
    return directory / "warren" / "access"


@click.command("login")
@click.argument("access", required=False)
@json_option
def login(access: str | None, as_json: bool) -> None:
    """Keep an access string, so that `warren network` finds its coordinator and is let in.

    ACCESS is what the coordinator printed at its first start, or `warren coordinator token create`. Without it, it is
    asked for (or read from standard input), which keeps it out of the shell's history. It is tried before it is kept.

    \b
    Example:
      warren login 'warren-access:…'
    """
    from warren import files
    from warren.cli import output
    from warren.model.tickets import access_text, read_access

    if access is None and sys.stdin.isatty():
        access = click.prompt("Access string", hide_input=True, err=True)
    elif access is None or access == "-":
        access = sys.stdin.read(65_536)
    found = read_access(str(access))
    networks = _ask(found, lambda client: client.networks())
    path = file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OperationFailed(
            f"{path.parent} cannot be made ({_reason(error)}); set {VARIABLE} instead, or XDG_CONFIG_HOME"
        ) from None
    files.write_atomically(path, f"{access_text(found)}\n".encode())
    if as_json:
        output.emit({"file": str(path), "urls": found.urls, "key": str(found.key), "networks": len(networks)})
        return
    click.echo(f"Logged in at {found.urls[0]} (coordinator {found.key.short}…), which has {_count(len(networks))}.")
    click.echo(f"The access string is in {path}; `warren logout` removes it.")


@click.command("logout")
@json_option
def logout(as_json: bool) -> None:
    """Forget the access string that `warren login` kept. The token in it stays valid at the coordinator."""
    from warren.cli import output

    path = file()
    try:
        path.unlink()
        removed = True
    except FileNotFoundError:
        removed = False
    except OSError as error:
        raise OperationFailed(f"{path} cannot be removed ({_reason(error)}); run as its owner") from None
    output.answer(
        {"file": str(path), "removed": removed},
        f"{path} is removed." if removed else "There was no access string.",
        as_json=as_json,
    )


def _count(networks: int) -> str:
    return {0: "no network yet", 1: "one network"}.get(networks, f"{networks} networks")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
