"""What must be so before the agent starts: each failure is one sentence, and nothing was touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from warren.agent import app
from warren.agent.places import places
from warren.engine.choose import Choice
from warren.errors import UsageError


def test_places_are_said_by_the_command_line_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARREN_STATE", "/from/environment")
    monkeypatch.delenv("WARREN_RUN", raising=False)
    assert places("/said", None).state == Path("/said")
    assert places(None, None).state == Path("/from/environment")
    assert places(None, None).socket == Path("/run/warren/agent.sock")


def test_without_a_network_or_a_ticket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(app, "choose", lambda wanted: Choice("rootless", wanted))
    with pytest.raises(UsageError, match="get a ticket with `warren network invite NETWORK`"):
        app.run(places(str(tmp_path / "state"), str(tmp_path / "run")), None, None, lambda _: None)
    assert not (tmp_path / "run").exists()
