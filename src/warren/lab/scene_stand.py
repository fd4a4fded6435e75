"""A scene that stands: kept up by one process, looked at and entered by others."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from warren.errors import OperationFailed, Unreachable, UsageError
from warren.lab.lab import Lab
from warren.lab.network import warren_command
from warren.lab.program import Place, run_program
from warren.lab.scene import Scene
from warren.lab.scene_build import Stage, build
from warren.lab.scene_plan import plan
from warren.lab.scene_record import Record, RecordedHost, Records
from warren.linux.netns import namespace_id

_STATUS_WITHIN_S: Final = 15.0
_STATUSES_AT_ONCE: Final = 4


@contextmanager
def standing(records: Records, scene: Scene, tell: Callable[[str], None]) -> Iterator[Stage]:
    """Build ``scene``; it stands within the block, and others find it in ``records``.

    Raises OperationFailed when it stands already, or cannot be built. However this process ends, the scene ends too.
    """
    with records.claimed(scene.name):
        started = time.time()
        planned = plan(scene)
        records.write(Record(os.getpid(), started, planned))
        with Lab(scene.name, seed=scene.seed) as lab:
            stage = build(lab, scene, tell)
            hosts = {host.name: RecordedHost(host.pid, stage.environment(host)) for host in lab.hosts.values()}
            records.write(Record(os.getpid(), started, planned, ready=True, hosts=hosts))
            yield stage


def place_of(record: Record, host: str) -> tuple[Place, dict[str, str]]:
    """Where programs of ``host`` run, with a pidfd that the caller owns, and what their environment needs.

    Raises UsageError when the scene has no such host, Unreachable when it has ended.
    """
    found = record.hosts.get(host)
    if found is None:
        raise UsageError(f"the scene {record.plan.name} has no host {host!r}; it has {', '.join(record.hosts)}")
    try:
        pidfd = os.pidfd_open(found.pid)
    except ProcessLookupError:
        raise Unreachable(f"the scene {record.plan.name} has just ended") from None
    of_another = namespace_id(found.pid, "user") != namespace_id("self", "user")
    return Place(host, pidfd, of_another), dict(found.environment)


def enter_and_run(record: Record, host: str, command: tuple[str, ...]) -> None:
    """Become ``command`` on a host of a scene. Returns only by raising: UsageError, Unreachable or OperationFailed."""
    place, environment = place_of(record, host)
    beside = str(Path(warren_command()[0]).parent)
    try:
        place.enter()
    except OSError as error:
        raise OperationFailed(f"host {host} cannot be entered: {error.strerror}; only who built it may") from None
    path = f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    try:
        os.execvpe(command[0], command, {**os.environ, **environment, "PATH": path})  # noqa: S606  what the user named
    except OSError as error:
        raise OperationFailed(f"host {host}: {command[0]} cannot be run: {error.strerror}") from None


def statuses(record: Record) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """What ``warren status --json`` says on each member, and why it says nothing on others."""
    found: dict[str, Mapping[str, Any]] = {}
    troubles: dict[str, str] = {}
    members = record.plan.members
    with ThreadPoolExecutor(_STATUSES_AT_ONCE) as pool:
        for host, (status, trouble) in zip(members, pool.map(lambda one: _status(record, one), members), strict=True):
            if status is not None:
                found[host] = status
            else:
                troubles[host] = trouble
    return found, troubles


def _status(record: Record, host: str) -> tuple[Mapping[str, Any] | None, str]:
    place, environment = place_of(record, host)
    command = [*warren_command(), "status", "--json"]
    try:
        done = run_program(
            place, command, input=None, timeout=_STATUS_WITHIN_S, check=False, user=None, env=environment
        )
    except OperationFailed as error:
        return None, str(error)
    finally:
        os.close(place.pidfd)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        return None, _message(said[-1])
    return json.loads(done.stdout), ""


def _message(line: str) -> str:
    """Of an error that is told as JSON."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, LookupError, TypeError):
        return line
