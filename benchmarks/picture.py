"""The main figures as an SVG drawing: six panels of bars, readable on light and dark pages alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from xml.sax.saxutils import escape

from benchmarks.results import (
    CPU_MACHINE,
    PING_MEDIAN,
    TCP_FOUR_FLOWS,
    TCP_ONE_FLOW,
    UDP_LARGE,
    UDP_SMALL,
    Metric,
    Run,
    figure,
)
from benchmarks.tables import written

# Plain veth is no tunnel; as a bar it would press the others flat, so it is written beside the title instead.
_REFERENCE = "veth"
_OURS = "warren"
_PANELS = (
    replace(TCP_ONE_FLOW, title="TCP, one flow"),
    replace(TCP_FOUR_FLOWS, title="TCP, four flows"),
    replace(UDP_SMALL, title="UDP 64 B, delivered of 100 k/s"),
    replace(UDP_LARGE, title="UDP 1,400 B, delivered of 100 k/s"),
    replace(PING_MEDIAN, title="Ping, median"),
    replace(CPU_MACHINE, title="CPU of the machine per GB"),
)
_COLUMNS = 2
_PANEL_WIDTH, _MARGIN, _HEAD, _FOOT = 460, 24, 64, 40
_TITLE_HEIGHT, _ROW_HEIGHT, _BAR_HEIGHT = 40, 24, 16
_LABEL_WIDTH, _VALUE_WIDTH = 140, 70
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .head { font-size: 17px; font-weight: 600 }
.title { font-weight: 600 } .small { font-size: 11px; fill: #59636e } .other { fill: #a8b3bf } .ours { fill: #1a7f5a }
.paper { fill: #ffffff; stroke: #d1d9e0 }
"""


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Collects SVG elements."""

    parts: list[str]

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        self.parts.append(f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>')

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" class="{kind}"/>'
        )


def draw(run: Run) -> str:
    """The SVG document. Contenders without samples have a row without a bar."""
    names = [name for name in run.contenders if name != _REFERENCE]
    panel_height = _TITLE_HEIGHT + _ROW_HEIGHT * len(names) + _MARGIN
    width = 2 * _MARGIN + _COLUMNS * _PANEL_WIDTH
    height = _HEAD + panel_height * -(-len(_PANELS) // _COLUMNS) + _FOOT
    canvas = _Canvas([])
    canvas.box(0.5, 0.5, width - 1, height - 1, "paper")
    canvas.text(_MARGIN, 32, "Warren beside other tunnels, between two network namespaces of one machine", "head")
    for index, metric in enumerate(_PANELS):
        row, column = divmod(index, _COLUMNS)
        _draw_panel(canvas, run, metric, names, _MARGIN + column * _PANEL_WIDTH, _HEAD + row * panel_height)
    machine = run.machine
    facts = [
        machine["date"],
        f"{machine['cpu']}, {machine['cores']} cores",
        machine["kernel"],
        f"Python {machine['python']}",
    ]
    facts.append(f"medians of {run.settings['rounds']} interleaved rounds")
    canvas.text(_MARGIN, height - 16, " · ".join(facts), "small")
    body = "\n".join(canvas.parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>Benchmark figures</title>\n<style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


def _draw_panel(canvas: _Canvas, run: Run, metric: Metric, names: list[str], x: float, y: float) -> None:
    better = "more is better" if metric.more_is_better else "less is better"
    canvas.text(x, y + 16, f"{metric.title}, {metric.unit}", "title")
    reference = figure(run, _REFERENCE, metric)
    canvas.text(x, y + 31, better if reference is None else f"{better}; plain veth {written(reference)}", "small")
    figures = {name: figure(run, name, metric) for name in names}
    longest = max((value for value in figures.values() if value is not None), default=0.0)
    room = _PANEL_WIDTH - _LABEL_WIDTH - _VALUE_WIDTH
    for index, (name, value) in enumerate(figures.items()):
        top = y + _TITLE_HEIGHT + index * _ROW_HEIGHT
        middle = top + _BAR_HEIGHT - 3
        canvas.text(x + _LABEL_WIDTH - 8, middle, name, anchor="end")
        length = room * value / longest if value and longest else 0.0
        canvas.box(x + _LABEL_WIDTH, top, length, _BAR_HEIGHT, "ours" if name.startswith(_OURS) else "other")
        canvas.text(x + _LABEL_WIDTH + length + 6, middle, written(value))
