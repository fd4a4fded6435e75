"""Which engine is taken, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest

from warren.engine import choose as module
from warren.engine.choose import Choice, choose
from warren.errors import OperationFailed


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None, str | None], None]:
    """A host where the engines fail for these reasons; None: they work."""

    def make(userspace: str | None, rootless: str | None) -> None:
        monkeypatch.setattr(module.userns, "in_child", lambda attempt: attempt())
        monkeypatch.setattr(module, "_try_userspace", lambda: userspace)
        monkeypatch.setattr(module, "_try_rootless", lambda: rootless)

    return make


Host = Callable[[str | None, str | None], None]


def test_what_needs_no_namespace_comes_first(host: Host) -> None:
    host(None, None)
    assert choose() == Choice("userspace", "this process may make network interfaces")


def test_rootless_is_taken_where_the_other_does_not_work_and_says_why(host: Host) -> None:
    host("no privilege: run as root", None)
    assert choose() == Choice("rootless", "this process may make no interface of the host")


@pytest.mark.parametrize("engine", ["userspace", "rootless"])
def test_what_is_asked_for_is_taken_though_others_work(host: Host, engine: Literal["userspace", "rootless"]) -> None:
    host(None, None)
    assert choose(engine) == Choice(engine, "it was asked for")


def test_where_none_works_all_reasons_are_told(host: Host) -> None:
    host("reason one", "reason two")
    with pytest.raises(OperationFailed, match=r"^no engine works here; userspace: reason one; rootless: reason two$"):
        choose()
    with pytest.raises(OperationFailed, match=r"^the userspace engine does not work here: reason one$"):
        choose("userspace")
    with pytest.raises(OperationFailed, match=r"^the rootless engine does not work here: reason two$"):
        choose("rootless")
