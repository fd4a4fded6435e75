"""What ``warren status`` and ``warren forward --list`` show of streams: services, connectors, forwards."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import click

from warren.cli import output
from warren.cli.output import clean
from warren.proto.control.local import Stream

_TITLES: Final = ("STREAMS", "TO", "STATE", "OPEN", "TOTAL", "REFUSED", "RECEIVED", "SENT")
_RIGHT: Final = ("OPEN", "TOTAL", "REFUSED", "RECEIVED", "SENT")
_COLOURS: Final = {"listening": "green", "pending": "yellow", "unhealthy": "red", "failed": "red"}
_FACT_WIDTH: Final = 11


def stream_lines(streams: Sequence[Stream], width: int | None, said: Collection[str] = ()) -> list[str]:
    """A table, and below it why what does not work does not, unless that is ``said`` elsewhere. ``width``: of the
    terminal; None: unlimited.
    """
    if not streams:
        return []
    margin = 2 if width is not None else 0
    lines = output.table(_TITLES, [_row(one) for one in streams], right=_RIGHT, flexible=_TITLES[:2], margin=margin)
    for stream in streams:
        if stream.reason in said:
            continue
        if stream.reason:
            lines.append(f"{click.style(stream.state.ljust(_FACT_WIDTH), fg='red')}  {_about(stream, stream.reason)}")
        elif stream.last_refusal:
            lines.append(
                f"{click.style('refused'.ljust(_FACT_WIDTH), fg='yellow')}  {_about(stream, stream.last_refusal)}"
            )
    return lines


def goal(stream: Stream) -> str:
    """Where it goes, and by whom, if that is not said already."""
    said = {stream.target, stream.target.partition(":")[0].partition(".")[0]}
    others = [name for name in stream.backends if name not in said]
    return f"{stream.target} ({', '.join(others)})" if others else stream.target


def _about(stream: Stream, sentence: str) -> str:
    return clean(f"{stream.id}: {sentence}")


def _row(stream: Stream) -> list[str]:
    held = " (held)" if stream.origin == "held" else ""
    return [
        clean(f"{stream.id}{held}"),
        clean(goal(stream)),
        click.style(stream.state, fg=_COLOURS.get(stream.state)),
        str(stream.open),
        str(stream.opened),
        str(sum(stream.refused.values())),
        output.size(stream.bytes_in),
        output.size(stream.bytes_out),
    ]
