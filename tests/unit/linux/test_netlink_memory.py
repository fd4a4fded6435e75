"""The in-memory netlink conforms; the kernel's does in tests/lab."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.netlink_conformance import SCENARIOS
from warren.linux.netlink_memory import MemoryNetlink


@pytest.mark.parametrize("name", SCENARIOS)
def test_conformance(name: str) -> None:
    asyncio.run(SCENARIOS[name](MemoryNetlink({"tun0": 1500}), "tun0"))
