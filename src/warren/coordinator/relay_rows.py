"""The relays of a network as they stand in the database."""

from __future__ import annotations

from typing import Final

import msgspec

from warren.coordinator.rows import RelayRow
from warren.coordinator.work import Work
from warren.model.documents import Relay

_relay: Final = msgspec.msgpack.Decoder(Relay)


async def relays_for(work: Work, network: bytes | None) -> list[RelayRow]:
    """Those of ``network`` and of all networks, by name; of two with one name the network's own. None: of all only."""
    found: dict[str, RelayRow] = {}
    for row in await work.find(RelayRow, order="name"):
        if row.network is None or row.network == network:
            found[row.name] = row if row.network is not None else found.get(row.name, row)
    return [found[name] for name in sorted(found)]


def relay_of(row: RelayRow) -> Relay:
    return _relay.decode(row.relay)
