"""Register tiles of rows: what sweeps a plane with a kernel of any shape, tile by tile."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..machine import machine
from ..method import Array
from .simd.ir import WIDE, vector_lanes
from .simd.rows import call_rows, rows_tile
from .simd.shares import njit

# Extents of tiles: rows, each at most the kernel's, and vectors of columns. The largest has 20 sums, 4 inputs and a
# weight in 32 registers. In 16 there is room for half as many vectors.
HEIGHTS = (5, 3, 1)
VECTORS = 4 if WIDE else 2
# Addresses of `tiles`.
TILES = 3 * len(HEIGHTS)
# Cycles until a multiply-add has its sum.
LATENCY = 3.5


class Sweep(NamedTuple):
    """How rows are swept: the kernel, and the input rows between two of its; the rows of a tile, and the output rows
    between two of them; whether x is read where it lies; the planes of a window. Of strips (row_strips.py): the
    stride, or 0 where tiles serve; the rows of padding above; the length of the row of zeros, and where, behind it and
    the spare tile, the window begins. The elements of a block of output that goes to channels which lie last, or 0.
    """

    kernel_d: int
    kernel_h: int
    kernel_w: int
    dilation_h: int
    tile_rows: int
    apart: int
    direct: int
    planes: int
    strip: int
    above: int
    zeros: int
    window: int
    block: int = 0


class Places(NamedTuple):
    """Where a block lies: in x its start, the elements from one row to the next, from one that an output row starts at
    to that of the next, and from one plane of the kernel's to the next; in the output its start, rows and columns, and
    the elements from one row to the next; whether tiles must be whole.
    """

    x: int
    x_pitch: int
    x_stride: int
    x_plane: int
    out: int
    rows: int
    width: int
    out_pitch: int
    whole: int


def tiles(dtype: np.dtype[Any], widths: tuple[int, ...], tile_rows: int, deep: bool = False) -> Array:
    """The addresses of the tiles that blocks of those widths need, those of each height by one, two and all vectors."""
    lanes = machine(1).lanes(dtype)
    most = VECTORS * lanes
    # Whole tiles alone serve an input that is read where it lies, but a view may need the window all the same.
    rests = [width % most for width in widths]
    extents = (
        (1, any(0 < rest <= lanes for rest in rests)),
        (2, any(lanes < rest <= 2 * lanes for rest in rests) or most == 2 * lanes),
        (VECTORS, max(widths) > 2 * lanes),
    )
    return np.array([
        rows_tile(dtype, height, vectors, deep).address if needed and height <= tile_rows else 0
        for height in HEIGHTS
        for vectors, needed in extents
    ])  # fmt: skip


def sweep_cycles(kernel: tuple[int, int, int], tile_rows: int, rows: int, vectors: int) -> int:
    """About how long tiles take for so many rows of vectors, in cycles."""
    kernel_d, kernel_h, kernel_w = kernel

    def tile(width: int) -> float:
        """For each column of the kernel, multiply-adds and loads, some over the end of a cache line, or a sum's own
        chain of multiply-adds, each of which waits for the last; then the tile's start and end.
        """
        column = max(width * (0.8 * kernel_h * tile_rows + kernel_h + tile_rows - 1), LATENCY * kernel_h)
        return column * kernel_w * kernel_d + 3 * tile_rows * width + 45

    full, rest = divmod(vectors, VECTORS)
    return int(-(-rows // tile_rows) * (full * tile(VECTORS) + (rest > 0) * tile(rest)))


@njit()
def correlate_rows(
    out: Array,
    x: Array,
    weight: Array,
    bias: float,
    places: Places,
    relu: int,
    offsets: Array,
    addresses: Array,
    sweep: Sweep,
) -> None:
    """All rows of a block, by tiles. Rows that whole tiles leave over are a smaller tile, or one that overlaps."""
    for residue in range(min(sweep.apart, places.rows)):
        rows = places.rows if sweep.apart == 1 else -(-(places.rows - residue) // sweep.apart)
        row = 0
        while row < rows:
            height = tile_height(rows - row, rows, sweep)
            row = min(row, rows - height)
            first = residue + row * sweep.apart
            correlate_strip(height, out, x, weight, bias, first, places, relu, offsets, addresses, sweep)
            row += height


@njit()
def tile_height(left: int, rows: int, sweep: Sweep) -> int:
    """Rows of the next tile, where some are left of all rows: few enough not to begin before the first."""
    if left == 1 or sweep.tile_rows > rows:
        return 1
    return min(sweep.tile_rows, HEIGHTS[1]) if left <= HEIGHTS[1] else sweep.tile_rows


@njit()
def correlate_strip(
    height: int,
    out: Array,
    x: Array,
    weight: Array,
    bias: float,
    row: int,
    places: Places,
    relu: int,
    offsets: Array,
    addresses: Array,
    sweep: Sweep,
) -> None:
    """The rows of a tile, from left to right. The last columns are a masked tile, or a whole one that overlaps."""
    lanes = vector_lanes(out)
    most = VECTORS * lanes
    pitch, start = places.x_pitch * sweep.dilation_h, places.x + row * places.x_stride
    kernel_h, kernel_w = sweep.kernel_h, sweep.kernel_w
    out_pitch, out_start = places.out_pitch * sweep.apart, places.out + row * places.out_pitch
    j = 0
    while j < places.width:
        rest = places.width - j
        if places.whole and rest < most:
            rest = most
            j = places.width - rest
        columns = min(rest, most)
        index = (HEIGHTS[0] - height) // 2 * 3 + (0 if columns <= lanes else 1 if columns <= 2 * lanes else 2)
        call_rows(
            addresses[index],
            x,
            start + j,
            pitch,
            offsets,
            kernel_w,
            weight,
            kernel_h,
            sweep.kernel_d,
            places.x_plane,
            bias,
            relu,
            out,
            out_start + j,
            out_pitch,
            columns,
        )
        j += most


@njit()
def scatter(block: Array, out: Array) -> None:
    """Out (h, w) = a block's rows one behind the other, where other channels lie between the output's pixels."""
    for row in range(len(out)):
        line, source = out[row], block[row * out.shape[1] :]
        for j in range(len(line)):
            line[j] = source[j]
