"""The roofline plot: how fast each layer ran, under what the machine can do at most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, QUIET, ROOF = "#1a1a1a", "#8a8a8a", "#4a4a4a"
SIZE, DPI = (12.0, 6.4), 110
# The diameter of a marker, in points.
MARKER = 13.0


class Style(NamedTuple):
    """How a contender's points look; `words` is its entry in the legend."""

    words: str
    marker: str
    face: str
    edge: str
    text: str


STYLES = {
    "loops": Style("numconv loops", "o", "#b2182b", "#b2182b", "white"),
    "tiled": Style("numconv tiled", "D", "#e08214", "#e08214", "white"),
    "depthwise": Style("numconv depthwise", "^", "#1b7837", "#1b7837", "white"),
    "matmul": Style("numconv matmul", "s", "#2166ac", "#2166ac", "white"),
    "np.matmul": Style("np.matmul on patches unrolled beforehand", "s", "white", "#2166ac", "#2166ac"),
}


class Point(NamedTuple):
    """A layer's number, its operations per byte, its GFLOP/s, and who ran it."""

    number: int
    intensity: float
    gflops: float
    contender: str


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the plot of a bench report."""
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.06, 0.1, 0.62, 0.8))
    points = [point for number, row in enumerate(report["layers"], 1) for point in points_of(number, row)]
    peak, bandwidth = report["peaks"]["flops"] / 1e9, report["peaks"]["bytes_per_second"] / 1e9
    axes.set(xscale="log", yscale="log", xlabel="operations per byte, input, weight and output counted once")
    axes.set_ylabel("GFLOP/s, float32")
    intensities, rates = [point.intensity for point in points], [point.gflops for point in points]
    axes.set_xlim(min(intensities) / 1.6, max(intensities) * 1.6)
    # The legend lies below the slowest.
    axes.set_ylim(min(rates) / 6, max(*rates, peak) * 1.7)
    draw_roof(axes, peak, bandwidth)
    draw_points(axes, points)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", color=QUIET, labelcolor=INK)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.grid(which="major", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    threads = report["machine"]["threads"].partition(",")[0]
    processor = report["machine"]["processor"]
    axes.set_title(f"{processor}, {threads} threads", loc="left", size=10.5, color=INK, pad=10)
    draw_names(figure, report["layers"])
    figure.savefig(path)


def points_of(number: int, row: dict[str, Any]) -> list[Point]:
    """A layer's points: numconv's methods, and the bare product where no method of numconv is a product."""
    rates = row["gflops"]
    shown = [name for name in STYLES if name in rates and not (name == "np.matmul" and "matmul" in rates)]
    return [Point(number, row["flops"] / row["bytes"], rates[name], name) for name in shown]


def draw_roof(axes: Axes, peak: float, bandwidth: float) -> None:
    """Memory's slope up to the ridge, then the processor's flat."""
    low, high = axes.get_xlim()
    ridge = peak / bandwidth
    x = np.array([low, ridge, high]) if low < ridge < high else np.array([low, high])
    axes.plot(x, np.minimum(x * bandwidth, peak), color=ROOF, linewidth=1.6)
    axes.annotate(
        f"fused multiply-add peak, {peak:.0f} GFLOP/s",
        (high, peak),
        (-4, 5),
        textcoords="offset points",
        ha="right",
        color=ROOF,
        size=9.5,
    )
    at = max(low * 1.15, axes.get_ylim()[0] * 1.3 / bandwidth)
    axes.annotate(
        f"memory peak, {bandwidth:.0f} GB/s",
        (at, at * bandwidth),
        (0, 6),
        textcoords="offset points",
        rotation=math.degrees(math.atan2(*slope(axes))),
        rotation_mode="anchor",
        color=ROOF,
        size=9.5,
    )


def slope(axes: Axes) -> tuple[float, float]:
    """(rise, run) on the page of a line that grows tenfold on both axes."""
    (x0, y0), (x1, y1) = axes.transData.transform([(1, 1), (10, 10)])
    return y1 - y0, x1 - x0


def draw_points(axes: Axes, points: Sequence[Point]) -> None:
    """The points with their layers' numbers in them, moved sideways where they would hide each other."""
    pixels = axes.transData.transform([(point.intensity, point.gflops) for point in points])
    apart(pixels, 1.15 * MARKER * DPI / 72)
    for (x, y), point in zip(axes.transData.inverted().transform(pixels), points, strict=True):
        style = STYLES[point.contender]
        axes.plot(x, y, style.marker, markersize=MARKER, markerfacecolor=style.face, markeredgecolor=style.edge)
        axes.annotate(str(point.number), (x, y), ha="center", va="center_baseline", size=8, color=style.text)
    present = {point.contender for point in points}
    handles = [
        Line2D([], [], linestyle="", marker=style.marker, markerfacecolor=style.face, markeredgecolor=style.edge)
        for name, style in STYLES.items()
        if name in present
    ]
    words = [style.words for name, style in STYLES.items() if name in present]
    axes.legend(handles, words, loc="lower right", frameon=False, labelcolor=INK, fontsize=9.5, markerscale=1.4)


def apart(pixels: np.ndarray[Any, Any], distance: float) -> None:
    """Move points along x, in place, until no two are nearer than a marker."""
    order = np.lexsort((np.arange(len(pixels)), pixels[:, 0]))
    for _ in range(200):
        moved = False
        for place, left in enumerate(order):
            for right in order[place + 1 :]:
                rise = abs(pixels[left, 1] - pixels[right, 1])
                if rise >= distance:
                    continue
                lack = math.sqrt(distance**2 - rise**2) - (pixels[right, 0] - pixels[left, 0])
                if lack > 0.5:
                    pixels[left, 0] -= lack / 2
                    pixels[right, 0] += lack / 2
                    moved = True
        if not moved:
            return


def draw_names(figure: Figure, layers: Sequence[dict[str, Any]]) -> None:
    """Number, name and rates of each layer, beside the plot."""
    columns = ((0.715, "right"), (0.725, "left"), (0.905, "right"), (0.948, "right"), (0.99, "right"))
    rows = [("", "layer", "loops", "tiles", "BLAS")]
    for number, row in enumerate(layers, 1):
        rates = row["gflops"]
        blas = rates.get("matmul", rates.get("np.matmul"))
        tiles = max(rates["tiled"], rates.get("depthwise", 0.0))
        figures = ("-" if rate is None else f"{rate:.0f}" for rate in (rates["loops"], tiles, blas))
        rows.append((str(number), row["name"], *figures))
    for line, cells in enumerate(rows):
        for cell, (x, side) in zip(cells, columns, strict=True):
            figure.text(x, 0.86 - 0.041 * line, cell, ha=side, size=9.5, color=QUIET if line == 0 else INK)
