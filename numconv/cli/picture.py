"""The demo's picture: the photograph, and each filter's response with its kernel in the corner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from ..method import Array
from .filters import Filter

# Inches: the picture, its outer margin, the gap between tiles, the line of text above a tile.
WIDTH, MARGIN, GAP, LINE = 16.0, 0.16, 0.12, 0.30
DPI = 100
COLUMNS = 4
INK, FRAME = "#1a1a1a", "#9a9a9a"
NOTES = (
    ("monospace", 'y = numconv.conv2d(photograph, bank, padding="same",'),
    ("monospace", '                   padding_mode="reflect")'),
    ("sans-serif", ""),
    ("sans-serif", "One call: 3 colours in, 16 channels out, kernels of 15x15."),
    ("sans-serif", "Red is positive, blue negative; the kernel is in the corner."),
)
# How a response of one channel is coloured: each map is lightest at zero and even in lightness to both sides of it.
MAPS: dict[str, str | Colormap] = {
    "grey": "gray",
    "signed": "RdBu_r",
    "red-green": LinearSegmentedColormap.from_list("rg", ["#00664f", "#6fc3a5", "#f7f7f7", "#e8837c", "#a5112c"]),
    "blue-yellow": LinearSegmentedColormap.from_list("by", ["#8a6100", "#dfb13a", "#f7f7f7", "#7fa6d8", "#17428f"]),
}
# What writing a format takes: these photographs come out at a quarter of their PNG's bytes.
SAVING: dict[str, Any] = {".jpg": {"quality": 88, "subsampling": 0, "optimize": True}, ".png": {"optimize": True}}


def draw(photo: Array, filters: Sequence[Filter], responses: Sequence[Array], path: Path) -> None:
    """Write the picture. photo is (3, h, w), each response (1 or 3, h, w)."""
    aspect = photo.shape[1] / photo.shape[2]
    rows = -(-len(filters) // COLUMNS)
    # The photograph is as high as two rows of tiles with what is between them; the tiles share the rest.
    tile = (WIDTH - 2 * MARGIN - COLUMNS * GAP - (LINE + GAP) / aspect) / (COLUMNS + 2)
    big = 2 * tile + (LINE + GAP) / aspect
    high = tile * aspect
    height = 2 * MARGIN + rows * (LINE + high) + (rows - 1) * GAP
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")

    def place(left: float, top: float, width: float, tall: float) -> Axes:
        axes = figure.add_axes((left / WIDTH, 1 - (top + tall) / height, width / WIDTH, tall / height))
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes

    def write(left: float, base: float, text: str, family: str = "sans-serif") -> None:
        figure.text(left / WIDTH, 1 - base / height, text, color=INK, size=12, family=family)

    top = MARGIN + LINE
    write(MARGIN, top - 0.09, "photograph")
    show(place(MARGIN, top, big, big * aspect), photo, "colour")
    for index, (family, line) in enumerate(NOTES):
        write(MARGIN, top + big * aspect + 0.55 + 0.27 * index, line, family)
    for index, (kind, response) in enumerate(zip(filters, responses, strict=True)):
        row, column = divmod(index, COLUMNS)
        left = MARGIN + big + GAP + column * (tile + GAP)
        top = MARGIN + LINE + row * (LINE + high + GAP)
        write(left, top - 0.09, kind.name)
        show(place(left, top, tile, high), response, kind.look)
        show_kernel(place(left + 0.06, top + 0.73 * high - 0.06, 0.27 * high, 0.27 * high), kind)
    figure.savefig(path, pil_kwargs=SAVING.get(path.suffix.lower()))


def show(axes: Axes, values: Array, look: str) -> None:
    """Three channels as colours, or one by its map, which the strongest percent saturates."""
    if look == "colour":
        axes.imshow(np.clip(values, 0, 1).transpose(1, 2, 0))
        return
    limit = float(np.quantile(np.abs(values), 0.99))
    axes.imshow(values[0], cmap=MAPS[look], vmin=-limit, vmax=limit)


def show_kernel(axes: Axes, kind: Filter) -> None:
    """The colour plane where a kernel is strongest, without the zeros around it."""
    weight = kind.weight[0]
    plane = weight[np.abs(weight).max(axis=(1, 2)).argmax()]
    limit = np.abs(plane).max()
    middle = len(plane) // 2
    # The farthest element that is more than a trace, from the middle.
    radius = int(np.abs(np.argwhere(np.abs(plane) > 0.02 * limit) - middle).max())
    window = slice(middle - radius, middle + radius + 1)
    look = kind.look if kind.look in ("red-green", "blue-yellow") else "signed"
    axes.imshow(plane[window, window], cmap=MAPS[look], vmin=-limit, vmax=limit)
    axes.spines[:].set(visible=True, color=FRAME, linewidth=0.8)
