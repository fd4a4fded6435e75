"""How it stands with the streams of a node: for its people, for the tasks of its networks (R12), for the log; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from msgspec import structs

from warren.agent.streams.values import Item
from warren.l4.config import EntryState, Status
from warren.proto.control.local import Stream
from warren.proto.control.messages import Task

_REASON_CHARACTERS_MAX: Final = 1024
_NAME_CHARACTERS_MAX: Final = 256
_NOTHING: Final = EntryState(id="", state="listening")

State = Literal["listening", "pending", "unhealthy", "failed"]


def stream_values(items: Sequence[Item], status: Status) -> tuple[Stream, ...]:
    """One for each item."""
    known = {entry.id: entry for entry in status.entries}
    by_id = {item.id: item for item in items}
    found = []
    for item in items:
        state, reason = _state(item, known, by_id)
        entry = _counts(item, known)
        found.append(
            Stream(
                id=item.id,
                kind=item.kind,
                origin=item.origin,
                target=item.target,
                backends=item.backends,
                state=state,
                reason=reason,
                places=entry.places,
                open=entry.open,
                opened=entry.opened,
                refused=dict(entry.refused),
                last_refusal=entry.last_refusal,
                bytes_in=entry.bytes_in,
                bytes_out=entry.bytes_out,
            )
        )
    return tuple(found)


def _counts(item: Item, known: Mapping[str, EntryState]) -> EntryState:
    """What came for it. Of what shares a place: clients' streams there; those of a web site are counted once more when
    they come from Caddy, which is of interest for what was refused then.
    """
    own = known.get(item.id, _NOTHING) if item.entry is not None else _NOTHING
    shared = known.get(item.part_of, _NOTHING).parts.get(item.id)
    if shared is None:
        return own
    refused = Counter(shared.refused) + Counter(own.refused)
    return structs.replace(
        own,
        open=shared.open,
        opened=shared.opened,
        refused=dict(refused),
        last_refusal=own.last_refusal or shared.last_refusal,
        bytes_in=shared.bytes_in,
        bytes_out=shared.bytes_out,
    )


def tasks(items: Sequence[Item], streams: Sequence[Stream], label: str) -> tuple[Task, ...]:
    """Those of the network called ``label``."""
    return tuple(
        Task(
            name=item.task[:_NAME_CHARACTERS_MAX],
            state=_TASK_STATES[stream.state],
            reason=stream.reason[:_REASON_CHARACTERS_MAX],
        )
        for item, stream in zip(items, streams, strict=True)
        if label in item.networks
    )


_TASK_STATES: Final[Mapping[State, Literal["done", "failed", "pending"]]] = {
    "listening": "done",
    "pending": "pending",
    "unhealthy": "failed",
    "failed": "failed",
}


def _state(item: Item, known: Mapping[str, EntryState], by_id: Mapping[str, Item]) -> tuple[State, str]:
    if item.problem:
        return "failed", item.problem
    if item.pending:
        return "pending", ""
    if item.entry is not None:
        entry = known.get(item.id)
        if entry is None:
            return "pending", ""
        if entry.state != "listening":
            return entry.state, entry.reason
    if item.part_of:
        whole = by_id.get(item.part_of)
        return ("pending", "") if whole is None else _state(whole, known, {})
    return "listening", ""


def news(before: Mapping[str, tuple[State, str]], streams: Sequence[Stream]) -> tuple[list[str], list[str]]:
    """What is worth a line of the log: what does not work any more, or in another way, and what works again."""
    bad, good = [], []
    for stream in streams:
        state, reason = before.get(stream.id, ("pending", ""))
        if stream.reason and stream.reason != reason:
            bad.append(f"{stream.id}: {stream.reason}")
        elif stream.state == "listening" and state in {"failed", "unhealthy"}:
            good.append(f"{stream.id}: works now")
    return bad, good
