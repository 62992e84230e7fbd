"""A dashboard's panels as a picture, for those who have no Grafana at hand.

``python -m tools.prometheus.plot URL FOLDER`` asks the Prometheus at URL what each dashboard of the chart shows of the
last hour and writes an SVG for each.
"""

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any
from xml.sax.saxutils import escape

import httpx

from tools.demo.rendered import CHART
from tools.prometheus.expressions import filled
from tools.prometheus.server import Line, Prometheus

#: Of one of Grafana's 24 columns and of a row, in pixels.
COLUMN, ROW = 40, 36
#: Around a panel's curves: left for the axis, top for the title, bottom for times and legend.
LEFT, TOP, RIGHT, BOTTOM = 52, 26, 10, 84
COLOURS = ("#3274d9", "#e0752d", "#56a64b", "#e02f44", "#8f3bb8", "#b5891c", "#1f8f8f", "#888888")
#: Points of a curve, and lines of a legend.
POINTS, LEGEND = 120, 5
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "µ"))


def picture(server: Prometheus, dashboard: dict[str, Any], start_s: float, end_s: float) -> str:
    """The dashboard over a window, as SVG."""
    panels = dashboard["panels"]
    height = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in panels) * ROW
    drawn = []
    for one in panels:
        place = one["gridPos"]
        x, y, width, tall = place["x"] * COLUMN, place["y"] * ROW, place["w"] * COLUMN, place["h"] * ROW
        inside = _text(one, width) if one["type"] == "text" else _chart(server, dashboard, one, (start_s, end_s))
        frame = f'<rect x="3" y="3" width="{width - 6}" height="{tall - 6}" fill="white" stroke="#ddd"/>'
        drawn.append(f'<g transform="translate({x},{y})">{frame}{inside}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{24 * COLUMN}" height="{height}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="#f4f5f5"/>{"".join(drawn)}</svg>\n'
    )


def _text(panel: dict[str, Any], width: int) -> str:
    lines = wrap(re.sub(r"[*`]", "", panel["options"]["content"]), width // 6)
    return "".join(f'<text x="14" y="{24 + 16 * number}">{escape(line)}</text>' for number, line in enumerate(lines))


def _chart(server: Prometheus, dashboard: dict[str, Any], panel: dict[str, Any], window: tuple[float, float]) -> str:
    """One panel's curves, their axis and legend."""
    start_s, end_s = window
    step_s = (end_s - start_s) / POINTS
    width, tall = panel["gridPos"]["w"] * COLUMN, panel["gridPos"]["h"] * ROW
    curves = [
        (legend(target["legendFormat"], line), line)
        for target in panel["targets"]
        for line in server.lines(filled(target["expr"], dashboard), start_s, end_s, step_s)
        if line.points
    ]
    title = f'<text x="14" y="20" font-weight="bold">{escape(panel["title"])}</text>'
    if not curves:
        return title + f'<text x="{width // 2}" y="{tall // 2}" text-anchor="middle" fill="#999">no data</text>'
    highest = max(value for _, line in curves for _, value in line.points) or 1.0
    right, bottom = width - RIGHT, tall - BOTTOM

    def at(time_s: float, value: float) -> str:
        x = LEFT + (time_s - start_s) / (end_s - start_s) * (right - LEFT)
        return f"{x:.1f},{bottom - max(value, 0) / highest * (bottom - TOP - 8):.1f}"

    parts = [title, *_axis(highest, panel["fieldConfig"]["defaults"]["unit"], right, bottom)]
    for number, (name, line) in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        for stretch in stretches(line.points, 1.5 * step_s):
            points = " ".join(at(*point) for point in stretch)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if number < LEGEND:
            told = f"{shorten(name, width // 8)}: {amount(line.points[-1][1])}"
            parts.append(f'<text x="{LEFT}" y="{bottom + 16 + 13 * number}" fill="{colour}">{escape(told)}</text>')
    if len(curves) > LEGEND:
        parts.append(f'<text x="{right}" y="{tall - 8}" text-anchor="end">and {len(curves) - LEGEND} more</text>')
    return "".join(parts)


def _axis(highest: float, unit: str, right: int, bottom: int) -> list[str]:
    """A line at nothing, half and all, each with its value; and the unit."""
    lines = []
    for share in (0, 0.5, 1):
        y = bottom - share * (bottom - TOP - 8)
        lines.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>')
        lines.append(f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{amount(share * highest)}</text>')
    return [*lines, f'<text x="{right}" y="20" text-anchor="end" fill="#999">{escape(unit)}</text>']


def stretches(points: Sequence[tuple[float, float]], longest_s: float) -> list[list[tuple[float, float]]]:
    """The points, parted where more than ``longest_s`` lie between two: a curve does not show what was not there."""
    parts: list[list[tuple[float, float]]] = []
    for point in points:
        if parts and point[0] - parts[-1][-1][0] <= longest_s:
            parts[-1].append(point)
        else:
            parts.append([point])
    return parts


def amount(value: float) -> str:
    """A number with three digits and a prefix: 12.3k, 450m."""
    for size, prefix in PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g}{prefix}"
    return "0"


def legend(pattern: str, line: Line) -> str:
    """A legend's text, its labels filled in."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda name: line.labels.get(name[1], ""), pattern)


def draw(server: Prometheus, dashboards: Sequence[dict[str, Any]], folder: Path, window_s: float) -> list[Path]:
    """A file in ``folder`` for each dashboard, over the last ``window_s`` seconds."""
    now = time.time()
    files = []
    for dashboard in dashboards:
        file = folder / f"{dashboard['uid']}.svg"
        file.write_text(picture(server, dashboard, now - window_s, now))
        files.append(file)
    return files


def main() -> None:
    """Draw the chart's dashboards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of a Prometheus, for example http://127.0.0.1:9090")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    found = [json.loads(file.read_text()) for file in sorted((CHART / "dashboards").glob("*.json"))]
    with httpx.Client(base_url=asked.url, timeout=60) as client:
        for file in draw(Prometheus(client), found, asked.folder, asked.minutes * 60):
            print(file)


if __name__ == "__main__":
    main()
