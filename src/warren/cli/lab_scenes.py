"""Scenes by name or file; what is wrong with one is told with its line and key."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Final

import click

from warren.cli import output
from warren.cli.network_toml import line_of, lines_of, path_text
from warren.errors import OperationFailed, UsageError
from warren.lab.scene import Scene, SceneMistakes
from warren.lab.scene_reader import read_scene

BYTES_MAX: Final = 1 << 20
_SUFFIX: Final = ".toml"


def shipped() -> list[str]:
    """Names of the scenes that come with Warren."""
    places = resources.files("warren.lab").joinpath("scenes").iterdir()
    return sorted(place.name.removesuffix(_SUFFIX) for place in places if place.name.endswith(_SUFFIX))


def name_of(scene: str) -> str:
    """What the scene of that name, or in that file, is called."""
    return Path(scene).stem if _is_file(scene) else scene


def load(scene: str) -> Scene:
    """Read a scene. Raises UsageError that names file, line and key; of several mistakes each is told before."""
    if _is_file(scene):
        path = Path(scene)
        try:
            with path.open("rb") as file:
                data = file.read(BYTES_MAX + 1)
        except OSError as error:
            raise OperationFailed(f"{scene} cannot be read: {error.strerror}") from None
    else:
        if scene not in shipped():
            raise UsageError(f"there is no scene {scene!r}: say {', '.join(shipped())}, or a file as ./{scene}.toml")
        data = resources.files("warren.lab").joinpath("scenes", f"{scene}{_SUFFIX}").read_bytes()
        scene = f"{scene}{_SUFFIX}"
    return parse(data, scene)


def parse(data: bytes, file: str) -> Scene:
    """As :func:`load`, from the bytes of ``file``."""
    if len(data) > BYTES_MAX:
        raise UsageError(f"{file}: larger than {BYTES_MAX} bytes")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        parsed = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}:{data.count(10, 0, error.start) + 1}: this is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason, _, place = str(error).partition(" (at line ")
        raise UsageError(f"{file}:{place.partition(',')[0] or text.count(chr(10)) + 1}: {reason}") from None
    try:
        return read_scene(Path(file).stem, parsed)
    except SceneMistakes as error:
        lines = lines_of(text)
        found = sorted((line_of(one.path, lines), path_text(one.path), one.what) for one in error.mistakes)
    sentences = [f"{file}:{line}: {key + ': ' if key else ''}{what}" for line, key, what in found]
    if len(sentences) == 1:
        raise UsageError(sentences[0])
    for sentence in sentences:
        click.echo(output.clean(sentence), err=True)
    raise UsageError(f"{file} has {len(sentences)} mistakes; nothing was built")


def _is_file(scene: str) -> bool:
    return "/" in scene or scene.endswith(_SUFFIX)
