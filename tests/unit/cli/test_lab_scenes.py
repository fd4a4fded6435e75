"""Scenes by name and file; mistakes with file, line and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from warren.cli import lab_scenes, run
from warren.errors import OperationFailed, UsageError
from warren.lab.scene_plan import plan


@pytest.mark.parametrize("name", lab_scenes.shipped())
def test_every_scene_that_comes_along_is_one_and_says_what_it_shows(name: str) -> None:
    scene = lab_scenes.load(name)
    assert scene.name == name
    assert scene.description
    assert plan(scene).members


def test_those_of_the_documentation_are_there() -> None:
    assert {"home", "two-homes", "corporate", "cgn"} <= set(lab_scenes.shipped())


def test_a_file_is_a_scene_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[site.home]\nkind = "open"\n')
    assert lab_scenes.load(str(path)).name == lab_scenes.name_of(str(path)) == "mine"
    assert lab_scenes.name_of("two-homes") == "two-homes"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed = 1\n\n[site.home]\nkind = 'opn'\n", "x.toml:4: site.home.kind: 'opn' is none of"),
        (
            "[site.home]\nkind = 'open'\nhosts = [\n 'a',\n 1]\n",
            "x.toml:5: site.home.hosts[1]: this is a text in quotes",
        ),
        ("a = \n", "x.toml:1: this is not TOML (invalid value)"),
        ("[server.dc", "x.toml:1: "),
    ],
)
def test_a_mistake_names_file_line_and_key(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        lab_scenes.parse(text.encode(), "x.toml")
    assert str(caught.value).startswith(sentence)


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.toml:2: this is not UTF-8 text"):
        lab_scenes.parse(b"seed = 1\n\xff", "x.toml")
    with pytest.raises(OperationFailed, match="cannot be read: No such file"):
        lab_scenes.load(str(tmp_path / "nothing.toml"))


def test_several_mistakes_have_a_line_each(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("sed = 1\n[site.home]\nkin = 'open'\n")
    assert run(["lab", "up", str(path)]) == 2
    lines = capsys.readouterr().err.replace(str(path), "x.toml").splitlines()
    assert lines == [
        "x.toml:1: sed: there is no such key (did you mean seed?)",
        'x.toml:2: site.home: say what kind of site this is, as kind = "port-restricted", or nat = "…"',
        "x.toml:3: site.home.kin: there is no such key (did you mean kind?)",
        "warren: x.toml has 3 mistakes; nothing was built",
    ]


def test_an_unknown_scene_is_told_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lab", "up", "hom"]) == 2
    assert "there is no scene 'hom': say cgn, corporate" in capsys.readouterr().err


def test_what_does_not_stand_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for arguments in (["down", "home"], ["exec", "home", "alice", "--", "id"], ["status", "home"]):
        assert run(["lab", *arguments]) == 1
        assert capsys.readouterr().err == ("warren: the scene home does not stand; `warren lab up home` builds it\n")
    assert run(["lab", "status"]) == 0
    assert "No scene stands" in capsys.readouterr().out
    assert run(["lab", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(["lab", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["standing"] == []
