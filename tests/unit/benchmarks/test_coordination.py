"""The pure parts of the coordinator's benchmark: frames, percentiles, tables, the page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode

from benchmarks.coordination.figures import Run, Trial, notes, percentile, spread, table
from benchmarks.coordination.frames import PING, Frames, WebSocketError, binary
from benchmarks.coordination.publish import BEGIN, END, publish

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def from_server(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=False)


def parsed_frame(data: bytes) -> Frame:
    """As the library of the coordinator reads it."""
    from websockets.streams import StreamReader

    reader = StreamReader()
    reader.feed_data(data)
    steps = Frame.parse(reader.read_exact, mask=True)
    try:
        while True:
            next(steps)
    except StopIteration as done:
        frame: Frame = done.value
        return frame


@pytest.fixture
def frames() -> Frames:
    return Frames("127.0.0.1:1", "/v1/node", "warren.node.1")


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 200_000])
def test_messages_of_every_length_arrive_however_they_were_cut(frames: Frames, size: int) -> None:
    wire = ACCEPTED + from_server(Opcode.BINARY, b"x" * size) + from_server(Opcode.BINARY, b"last")
    received = []
    for start in range(0, len(wire), 7_001):
        received += frames.receive(wire[start : start + 7_001])
    assert received == [b"x" * size, b"last"]


def test_fragments_are_one_message(frames: Frames) -> None:
    frames.receive(ACCEPTED)
    assert frames.receive(from_server(Opcode.BINARY, b"one ", fin=False)) == []
    assert frames.receive(from_server(Opcode.CONT, b"message")) == [b"one message"]


def test_a_ping_is_answered_with_its_own_bytes(frames: Frames) -> None:
    frames.receive(ACCEPTED + from_server(Opcode.PING, b"are you there"))
    [answer] = frames.take_answers()
    assert parsed_frame(answer) == Frame(Opcode.PONG, b"are you there")
    assert frames.take_answers() == []


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_the_library_of_the_coordinator_reads_what_is_sent(size: int) -> None:
    assert parsed_frame(binary(b"m" * size)) == Frame(Opcode.BINARY, b"m" * size)
    assert parsed_frame(PING).opcode is Opcode.PING


def test_a_refused_handshake_and_a_close_end_the_connection(frames: Frames) -> None:
    with pytest.raises(WebSocketError, match="429"):
        frames.receive(b"HTTP/1.1 429 Too Many Requests\r\n\r\n")
    other = Frames("127.0.0.1:1", "/v1/node", "warren.node.1")
    with pytest.raises(WebSocketError, match="closed"):
        other.receive(ACCEPTED + from_server(Opcode.CLOSE, b"\x03\xe8"))


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 0.99) == 99.0
    assert percentile(values, 1.0) == 100.0
    assert percentile([3.0], 0.01) == 3.0
    assert math.isnan(percentile([], 0.5))
    assert spread([1.0, 2.0, 9.0]) == {"p50_s": 2.0, "p99_s": 9.0, "most_s": 9.0}


@pytest.fixture
def run() -> Run:
    small = Trial("sqlite", 100, {"join": {"per_s": 115.4, "p50_s": 0.25, "failures": {}}})
    large = Trial("sqlite", 5000, {"join": {"per_s": float("nan")}}, {"join": "4,000 of 5,000 joined in 300 s"})
    return Run({"date": "2026-01-02", "cpu": "a big one"}, {"repeats": 10}, [small, large])


def test_trials_stand_side_by_side_and_what_was_not_measured_is_a_dash(run: Run) -> None:
    head, *rows = table(run, "sqlite")
    assert head == ["sqlite", "unit", "100 nodes", "5,000 nodes"]
    assert rows[0] == ["Join storm: nodes a second", "1/s", "115", "–"]
    assert rows[1][2:] == ["0.25", "–"]
    assert len(rows) == 2
    assert notes(run) == ["sqlite, 5,000 nodes, join: 4,000 of 5,000 joined in 300 s."]


def test_a_run_survives_its_file_and_nan_becomes_null(run: Run) -> None:
    text = run.dump()
    assert json.loads(text)["trials"][1]["figures"]["join"]["per_s"] is None
    again = Run.load(text)
    assert again.trials[0] == run.trials[0]
    assert table(again, "sqlite") == table(run, "sqlite")


def test_the_page_is_rewritten_between_its_markers_only(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "benchmarks-coordination.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert publish(run, tmp_path) == [page, tmp_path / "benchmarks/coordination.json"]
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n\nMeasured 2026-01-02.")
    assert text.endswith(f"{END}\nafter\n")
    assert "| Join storm: nodes a second | 1/s | 115 | – |" in text
    assert "old" not in text


def test_a_page_without_markers_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "benchmarks-coordination.md").write_text("nothing\n")
    with pytest.raises(ValueError, match="needs the lines"):
        publish(run, tmp_path)
    assert not (tmp_path / "benchmarks").exists()
