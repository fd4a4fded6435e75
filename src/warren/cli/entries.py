"""What ``warren service`` and ``warren connector`` say in one manner: which members an entry is at, and what is perhaps
not meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from warren.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def selected(selectors: Sequence[str], count: int) -> str:
    """``tag:web (2)``: selectors, and how many members they pick."""
    return f"{', '.join(selectors)} ({count})"


def members(names: Sequence[str], count: int) -> str:
    """``web1, web2 …``: the ``names`` an entry has room for, of ``count`` members."""
    return ", ".join(names) + (" …" if count > len(names) else "") if names else "nobody yet"


def warn(warnings: Iterable[str]) -> None:
    """What is perhaps not meant goes to stderr: what was asked for is done."""
    for warning in warnings:
        click.echo(click.style(output.clean(f"warning: {warning}"), fg="yellow"), err=True)
