"""Scenes by name or file; what is wrong with one is told with its line and key."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

import click

from warren.cli import output
from warren.errors import UsageError
from warren.lab.scene import Scene, SceneMistakes
from warren.lab.scene_reader import read_scene
from warren.toml.document import NotToml, document_of, read_bytes
from warren.toml.lines import line_of, path_text

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
        data = read_bytes(Path(scene), BYTES_MAX)
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
        document = document_of(data)
    except NotToml as error:
        raise UsageError(f"{file}:{error.line}: {error.what}") from None
    try:
        return read_scene(Path(file).stem, document.content)
    except SceneMistakes as error:
        found = sorted((line_of(one.path, document.lines), path_text(one.path), one.what) for one in error.mistakes)
    sentences = [f"{file}:{line}: {key + ': ' if key else ''}{what}" for line, key, what in found]
    if len(sentences) == 1:
        raise UsageError(sentences[0])
    for sentence in sentences:
        click.echo(output.clean(sentence), err=True)
    raise UsageError(f"{file} has {len(sentences)} mistakes; nothing was built")


def _is_file(scene: str) -> bool:
    return "/" in scene or scene.endswith(_SUFFIX)
