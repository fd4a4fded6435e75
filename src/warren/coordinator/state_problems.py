"""What would be wrong with the state of a network after a change of one thing in it, and how a person is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from warren.coordinator.network_rows import members_of, spec_of, tags_to_come_of, tests_of
from warren.coordinator.problems import Problem
from warren.coordinator.rows import NetworkRow
from warren.coordinator.work import Work
from warren.model.members import Member
from warren.proto.control import desired
from warren.proto.control.desired_state import MemberState
from warren.proto.control.desired_state import Problem as KeyProblem


async def check_changed_member(
    work: Work, network: NetworkRow, node: bytes, *, name: str, tags: tuple[str, ...], routes: tuple[str, ...]
) -> None:
    """Whether the member may become this: routes that cannot be, overlaps, policies and tests that no longer hold.

    Problem with what would be wrong that is not wrong already: ``invalid`` for routes, ``conflict`` for a policy or a
    test that would break.
    """
    spec = await spec_of(work, network.key)
    tags_to_come = await tags_to_come_of(work, network)
    before = desired.state_of(spec, members := await members_of(work, network.key), tests_of(network))
    former = next(member.name for member in members if member.membership.node == node)
    renamed = [
        Member(msgspec.structs.replace(member.membership, name=name)) if member.membership.node == node else member
        for member in members
    ]
    states = {other: state for other, state in before.members.items() if other != former}
    after = msgspec.structs.replace(before, members={**states, name: MemberState(tags=tags, routes=routes)})
    planned = desired.plan(after, after, renamed, spec, known_tags=tags_to_come)
    problems = planned.plan.problems
    if problems:  # else there is no need to go through a large network once more
        known = desired.plan(before, before, members, spec, known_tags=tags_to_come).plan.problems
        problems = new_problems(problems, known)
    if any(".routes" in problem.where for problem in problems):
        raise Problem(
            "invalid", first_problem(problems), "Choose other routes; nothing was changed.", problems=problems
        )
    if problems:
        what = "the connectors" if problems[0].where.startswith("connectors.") else "the policy or its tests"
        remedy = f"Change {what} first; nothing was changed."
        raise Problem("conflict", first_problem(problems), remedy, problems=problems)


def new_problems(problems: Sequence[KeyProblem], known: Sequence[KeyProblem]) -> tuple[KeyProblem, ...]:
    """Those that were not there before: what is wrong already hinders no change that has nothing to do with it."""
    return tuple(problem for problem in problems if problem not in known)


def first_problem(problems: Sequence[KeyProblem]) -> str:
    first = f"{_place(problems[0].where)}: {problems[0].what}"
    return first if len(problems) == 1 else f"{first} (and {len(problems) - 1} more)"


def _place(where: str) -> str:
    """``policy rule 1`` for ``policy[0].sources``: numbered as a person sees them; ``service web`` for
    ``services.web.at[0]``.
    """
    found = _NUMBERED.match(where)
    if found is not None:
        return f"policy {_NOUNS[found[1]]} {int(found[2]) + 1}"
    named = _NAMED.match(where)
    return where if named is None else f"{named[1]} {named[2]}"


_NUMBERED: Final = re.compile(r"(policy|tests)\[(\d+)\]")
_NAMED: Final = re.compile(r"(service|connector)s\.([^.]+)")
_NOUNS: Final = {"policy": "rule", "tests": "test"}
