from __future__ import annotations

import logging

import pytest

from warren.coordinator.limits import Limits, Rate
from warren.coordinator.web.auth import ALARM_FAILURES, Gate
from warren.coordinator.web.metrics import Metrics
from warren.proto.control.administration import Actor


class Nobody:
    async def actor(self, secret: str) -> Actor:
        raise AssertionError(secret)


def test_wrong_proofs_from_everywhere_are_two_lines_and_a_counter(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    gate = Gate(Nobody(), Limits(failures=Rate(burst=1e6, per_s=1.0)), metrics)
    with caplog.at_level(logging.INFO, logger="warren"):
        for i in range(ALARM_FAILURES * 3):
            gate.failed(f"192.0.2.{i % 256}", "node")
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert 'warren_authentication_failures_total{who="node"} 300.0' in metrics.text().decode()


def test_an_unknown_method_makes_no_series_of_its_own() -> None:
    metrics = Metrics()
    for i in range(100):
        metrics.answered(f"M{i}", 405, 0.0)
    assert metrics.text().decode().count("warren_http_requests_total{") == 1
