"""Where datagrams may not go."""

from __future__ import annotations

import asyncio
import socket

import pytest

from warren.l4.config import Listen
from warren.l4.destinations import Destination, connect
from warren.l4.kinds import Refused
from warren.l4.listening import listen
from warren.l4.overlay import HostSockets


@pytest.mark.parametrize("address", ["127.0.0.1", ""])
def test_datagrams_do_not_lead_back_to_another_entry_of_this_process(address: str) -> None:
    with asyncio.run(listen(Listen(protocol="udp", address=address), HostSockets())) as listener:
        place = ("127.0.0.1", listener.getsockname()[1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            with pytest.raises(Refused, match="a loop"):
                connect(sock, Destination("host", socket.AF_INET, place), ())
            connect(sock, Destination("overlay", socket.AF_INET, place), ())
