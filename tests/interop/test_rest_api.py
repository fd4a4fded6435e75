"""The REST API against its own description, judged by schemathesis: what it takes, what it answers, and with what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.unit.coordinator.web.harness import Running, running
from warren.coordinator.web.openapi import describe
from warren.coordinator.web.public_routes import PUBLIC
from warren.coordinator.web.routes import GUARDED

pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")

schema = schemathesis.openapi.from_dict(describe(PUBLIC, GUARDED))
# Each bound of each field: too many, and too large, for a body of thousands of rules.
bounds = schema.exclude(operation_id=["plan_state", "apply_state"])
fuzzed = schemathesis.openapi.from_dict(describe(PUBLIC, GUARDED))
fuzzed.config.phases.update(phases=["examples", "fuzzing"])
REPEATABLE = settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NOT_JUDGED = [
    ignored_auth,  # it sends each call's token again; tests/unit/coordinator/web/test_access.py judges that
    positive_data_acceptance,  # what fits the description may still name a network that is not there
]


class Background:
    """A coordinator in a thread of its own, since schemathesis calls and waits."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.coordinator: Running

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(30)
        return self.coordinator

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with running() as self.coordinator:
            network = await self.coordinator.make_network("home")
            await self.coordinator.make_member(network, "web1")
            self._ready.set()
            await self._stop.wait()


@pytest.fixture(scope="module")
def coordinator() -> Iterator[Running]:
    with Background() as found:
        yield found


@bounds.parametrize()
@REPEATABLE
def test_answers_are_as_described(case: Any, coordinator: Running) -> None:
    judge(case, coordinator)


@fuzzed.include(path_regex=r"\{network\}").parametrize()
@REPEATABLE
def test_answers_about_a_network_that_is_there_are_as_described(case: Any, coordinator: Running) -> None:
    case.path_parameters["network"] = "home"
    if "member" in case.path_parameters:
        case.path_parameters["member"] = "web1"
    judge(case, coordinator)


def judge(case: Any, coordinator: Running) -> None:
    case.call_and_validate(
        base_url=coordinator.url,
        verify=False,
        headers={"authorization": f"Bearer {coordinator.token}"},
        excluded_checks=NOT_JUDGED,
    )
