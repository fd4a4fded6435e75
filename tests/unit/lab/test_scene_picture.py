from __future__ import annotations

from tests.unit.lab.scenes import planned
from warren.lab.scene_picture import SeenPath, paths, picture

STATUS = {
    "networks": [
        {
            "network": "b",
            "addresses": ["fd00::1/64", "10.78.0.1/16"],
            "peers": [
                {"name": "bob", "state": "connected", "path": "direct", "endpoint": "45.81.4.10:5", "rtt_ms": 1.25},
                {
                    "name": "one",
                    "state": "unreachable",
                    "path": "none",
                    "endpoint": "",
                    "rtt_ms": None,
                    "why": "no way at all",
                },
                {"name": "x", "state": "idle", "path": "relayed", "endpoint": "1.2.3.4:5", "relay": "dc", "rtt_ms": 9},
            ],
        }
    ]
}


def test_everything_is_where_it_is() -> None:
    assert picture(planned(), {"alice": STATUS}, {"bob": "no agent runs here"}) == [
        "internet",
        "├─ one  45.80.1.2, 2a0c:d000:1::2  coordinator",
        "├─ dc  45.80.2.2  relay",
        "├─ home  45.80.3.2  port-restricted (NAT eim apdf preserving)",
        "│  ├─ alice  192.168.1.10  b: fd00::1, 10.78.0.1",
        "│  └─ laptop  192.168.1.11",
        "├─ campus  45.80.4.2  open; link: delay_s=0.5",
        "│  └─ bob  45.81.4.10",
        "└─ six  45.80.5.2, 2a0c:d000:5::2  ipv6-only (IPv6 stateful; IPv6 with NAT64)",
        "   ├─ laptop  2a0c:d000:5:1::a  uplink eth1",
        "   └─ carol  2a0c:d000:5:1::b",
        "",
        "a  10.77.0.0/16, members alice",
        "",
        "b  10.78.0.0/16, members alice, bob, one",
        "  FROM   TO   STATE        PATH                   RTT",
        "  alice  bob  connected    direct 45.81.4.10:5    1.2 ms",
        "  alice  one  unreachable  none  (no way at all)  -",
        "  alice  x    idle         relayed via dc         9.0 ms",
        "  bob: no agent runs here",
    ]


def test_without_a_status_there_is_the_topology() -> None:
    lines = picture(planned(), {}, {})
    assert lines[-1] == "b  10.78.0.0/16, members alice, bob, one"


def test_paths_are_values_for_programs() -> None:
    assert paths({"alice": STATUS})[0] == SeenPath("b", "alice", "bob", "connected", "direct", "45.81.4.10:5", 1.25)
