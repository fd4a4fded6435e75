from __future__ import annotations

import msgspec

from tests.unit.cli import fakes
from warren.cli.status_metrics import page


def test_what_an_agent_says_becomes_metrics() -> None:
    streams = (
        fakes.stream(
            "home: connector shop", open=3, opened=10, refused={"source": 2, "rate": 1}, bytes_in=7, bytes_out=9
        ),
    )
    lines = page(msgspec.structs.replace(fakes.agent_status(fakes.membership()), streams=streams)).splitlines()
    assert 'warren_agent_info{engine="userspace",version="1"} 1.0' in lines
    assert 'warren_network_up{network="home"} 0.0' in lines  # degraded
    assert 'warren_coordinator_connected{network="home"} 1.0' in lines
    assert 'warren_tasks{network="home",state="failed"} 1.0' in lines
    assert 'warren_peers{network="home",path="none",state="unreachable"} 1.0' in lines
    assert 'warren_streams_open{stream="home: connector shop"} 3.0' in lines
    assert 'warren_streams_opened_total{stream="home: connector shop"} 10.0' in lines
    assert 'warren_streams_refused_total{reason="source",stream="home: connector shop"} 2.0' in lines
    assert 'warren_streams_received_bytes_total{stream="home: connector shop"} 7.0' in lines
    assert 'warren_streams_sent_bytes_total{stream="home: connector shop"} 9.0' in lines


def test_a_peer_without_a_round_trip_has_no_value_for_it() -> None:
    text = page(fakes.agent_status(fakes.membership()))
    assert 'warren_peer_rtt_seconds{network="home",peer="web1"}' in text
    assert 'warren_peer_rtt_seconds{network="home",peer="bob"}' not in text
    assert 'warren_peer_received_bytes_total{network="home",peer="bob"}' in text


def test_an_agent_in_no_network_says_that_it_runs() -> None:
    assert "warren_agent_info" in page(fakes.agent_status())
