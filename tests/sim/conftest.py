"""Every simulation runs over both twins of the data path."""

from __future__ import annotations

import pytest

from warren.proto import datapath
from warren.proto.ip import coalesce, segment
from warren.proto.wireguard import transport
from warren.proto.wireguard.datapaths import DataPath

PURE = DataPath(segment.split, coalesce.Coalescer, transport.SealingKey, transport.OpeningKey)
_compiled = pytest.mark.skipif(not datapath.COMPILED, reason="the speedups are not built, or WARREN_PURE is set")


@pytest.fixture(params=[pytest.param(PURE, id="pure"), pytest.param(DataPath(), id="compiled", marks=_compiled)])
def twin(request: pytest.FixtureRequest) -> DataPath:
    """The batch functions that the devices of a test work with."""
    assert isinstance(request.param, DataPath)
    return request.param
