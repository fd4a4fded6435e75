"""``warren lab``: rehearse networks between hosts inside this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from warren.cli import output
from warren.cli.groups import Group

if TYPE_CHECKING:
    from warren.lab.scene_build import Stage
    from warren.lab.scene_record import Record, Records

_PATIENCE_S: Final = 20.0
_STARTUP_S: Final = 300.0
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("lab", cls=Group)
def command() -> None:
    """Rehearse networks: sites, NATs, firewalls and bad links inside this machine, with the real programs on them.

    A scene is a TOML file; some come with Warren. Nothing outside the scene is touched. Runs as root, or as any user
    where user namespaces are allowed.
    """


@command.command("list")
@_json_option
def list_(as_json: bool) -> None:
    """List the scenes that come with Warren, and those that stand."""
    from warren.cli import lab_scenes
    from warren.lab.scene_record import records

    shipped = {name: lab_scenes.load(name).description for name in lab_scenes.shipped()}
    stand = records().names()
    if as_json:
        output.emit({"scenes": shipped, "standing": stand})
        return
    rows = [[name, "stands" if name in stand else "", text] for name, text in shipped.items()]
    rows += [[name, "stands", ""] for name in stand if name not in shipped]
    for line in output.table(["SCENE", "", "DESCRIPTION"], rows, flexible=("DESCRIPTION",)):
        click.echo(line)


@command.command("up")
@click.argument("scene")
@click.option("--background", "-d", is_flag=True, help="Return when it stands; `warren lab down` ends it.")
@_json_option
def up(scene: str, background: bool, as_json: bool) -> None:
    """Build SCENE, a name or a file, and keep it up until Ctrl-C.

    \b
    Example:
      warren lab up two-homes -d
      warren lab exec two-homes alice -- ping bob.home.internal
      warren lab down two-homes
    """
    from warren.cli import lab_scenes
    from warren.lab.scene_record import records

    found = lab_scenes.load(scene)
    known = records()
    if background:
        _start_in_background(known, scene, found.name)
        _show_standing(_standing(known, found.name), as_json)
        return
    import signal
    import sys

    from warren.lab import privilege
    from warren.lab.scene_stand import standing

    privilege.ensure()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def tell(what: str) -> None:
        if not as_json:
            click.echo(f"… {what}")

    ends = {signal.SIGINT, signal.SIGTERM}
    with standing(known, found, tell) as stage:
        # Blocked, they are waited for: pause() would sleep through one that comes right before it.
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        try:
            _show_stage(stage, as_json)
            came = signal.sigwait(ends)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
        if came == signal.SIGINT and not as_json:
            click.echo()


@command.command("status")
@click.argument("scene", required=False)
@_json_option
def status(scene: str | None, as_json: bool) -> None:
    """Draw SCENE, or all that stand: who is where, behind what, and by which paths members reach each other."""
    from warren.cli import lab_scenes
    from warren.lab.scene_picture import paths, picture
    from warren.lab.scene_record import records
    from warren.lab.scene_stand import statuses

    known = records()
    names = known.names() if scene is None else [lab_scenes.name_of(scene)]
    shown: list[Any] = []
    for name in names:
        record = _standing(known, name)
        found, troubles = statuses(record)
        if as_json:
            shown.append({"plan": record.plan, "pid": record.pid, "paths": paths(found), "troubles": troubles})
            continue
        click.secho(f"{name}  {_age(record)}", bold=True)
        for line in picture(record.plan, found, troubles):
            click.echo(output.clean(line))
        click.echo()
    if as_json:
        output.emit(shown if scene is None else shown[0])
    elif not names:
        click.echo("No scene stands; `warren lab up SCENE` builds one, `warren lab list` names some.")


@command.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("scene")
@click.argument("host")
@click.argument("words", metavar="-- CMD…", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(scene: str, host: str, words: tuple[str, ...]) -> None:
    """Run CMD on HOST of SCENE, with this terminal. `warren` finds the agent there, and the coordinator.

    \b
    Example:
      warren lab exec two-homes alice -- warren status
    """
    from warren.cli import lab_scenes
    from warren.lab.scene_record import records
    from warren.lab.scene_stand import enter_and_run

    enter_and_run(_standing(records(), lab_scenes.name_of(scene)), host, words)


@command.command("down")
@click.argument("scene")
@_json_option
def down(scene: str, as_json: bool) -> None:
    """End SCENE and everything that runs in it."""
    import os
    import signal
    import time

    from warren.cli import lab_scenes
    from warren.errors import OperationFailed
    from warren.lab.scene_record import records

    known = records()
    name = lab_scenes.name_of(scene)
    record = _standing(known, name, ready=False)
    os.kill(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_S
    while known.find(name):
        if time.monotonic() > deadline:
            raise OperationFailed(f"the scene {name} (process {record.pid}) does not end; look into {known.log(name)}")
        time.sleep(0.05)
    output.answer({"scene": name, "ended": True}, f"The scene {name} is gone.", as_json=as_json)


def _standing(known: Records, name: str, *, ready: bool = True) -> Record:
    from warren.errors import OperationFailed

    record = known.find(name)
    if record is None:
        others = ", ".join(known.names())
        raise OperationFailed(
            f"the scene {name} does not stand"
            + (f"; there is {others}" if others else f"; `warren lab up {name}` builds it")
        )
    if ready and not record.ready:
        raise OperationFailed(f"the scene {name} is still being built; wait a moment")
    return record


def _start_in_background(known: Records, scene: str, name: str) -> None:
    """Run ``warren lab up`` in a session of its own, and wait until its scene stands."""
    import subprocess
    import sys
    import time

    from warren.errors import OperationFailed

    if known.find(name):
        raise OperationFailed(f"the scene {name} stands already; `warren lab down {name}` ends it")
    log = known.log(name)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "warren", "lab", "up", scene],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    deadline = time.monotonic() + _STARTUP_S
    try:
        while process.poll() is None and time.monotonic() < deadline:
            record = known.find(name)
            if record and record.ready:
                process.returncode = 0  # it is nobody's child any more; no warning about that
                return
            time.sleep(0.05)
    except KeyboardInterrupt:
        process.terminate()
        process.wait(_PATIENCE_S)
        raise
    if process.poll() is None:
        process.terminate()
        raise OperationFailed(f"the scene {name} does not stand after {_STARTUP_S:.0f} s; look into {log}")
    said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    raise OperationFailed(said[-1].removeprefix("warren: "))


def _show_standing(record: Record, as_json: bool) -> None:
    if as_json:
        output.emit({"plan": record.plan, "pid": record.pid})
        return
    from warren.lab.scene_picture import picture

    for line in picture(record.plan, {}, {}):
        click.echo(line)
    click.echo()
    click.echo(f"It stands; `warren lab status {record.plan.name}` shows the paths, `warren lab down` ends it.")


def _show_stage(stage: Stage, as_json: bool) -> None:
    import os

    if as_json:
        output.emit({"plan": stage.plan, "pid": os.getpid()})
        return
    from warren.lab.scene_picture import picture

    for line in picture(stage.plan, {}, {}):
        click.echo(line)
    click.echo()
    click.echo(f"It stands; `warren lab status {stage.plan.name}` shows the paths, Ctrl-C ends it.")


def _age(record: Record) -> str:
    import time

    return f"for {output.span(time.time() - record.started)}, process {record.pid}"
