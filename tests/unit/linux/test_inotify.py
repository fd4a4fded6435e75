"""The removal watch wakes for its own file and is not fooled by others."""

from __future__ import annotations

import select
from pathlib import Path

import pytest

from warren.linux.inotify import RemovalWatch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "watched"
    file.touch()
    return file


def test_a_removed_file_is_noticed(path: Path) -> None:
    watch = RemovalWatch(path)
    assert not select.select([watch], [], [], 0)[0]
    path.unlink()
    assert select.select([watch], [], [], 5)[0]
    assert watch.removed()
    watch.close()


def test_the_removal_of_a_neighbour_is_not_taken_for_it(path: Path) -> None:
    watch = RemovalWatch(path)
    neighbour = path.with_name("neighbour")
    neighbour.touch()
    neighbour.unlink()
    assert select.select([watch], [], [], 5)[0]
    assert not watch.removed()
    assert not select.select([watch], [], [], 0)[0]
    watch.close()


def test_a_file_that_was_replaced_counts_as_removed(path: Path) -> None:
    watch = RemovalWatch(path)
    other = path.with_name("other")
    other.touch()
    other.rename(path)
    assert watch.removed()
    watch.close()
