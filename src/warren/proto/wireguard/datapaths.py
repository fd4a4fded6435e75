"""The batch functions a device works with, as one value, so that tests can run the same device over either twin."""

from __future__ import annotations

from typing import NamedTuple

from warren.proto import datapath
from warren.proto.datapath import Coalescer, OpeningKey, SealingKey
from warren.proto.wireguard.outbound import Split


class DataPath(NamedTuple):
    """``split`` and the classes of :mod:`warren.proto.datapath`, or twins of them."""

    split: Split = datapath.split
    coalescer: type[Coalescer] = Coalescer
    sealing_key: type[SealingKey] = SealingKey
    opening_key: type[OpeningKey] = OpeningKey
