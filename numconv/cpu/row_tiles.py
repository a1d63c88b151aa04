"""Register tiles of rows: the part of `depthwise` that sweeps a block of one channel's output, tile by tile."""

from __future__ import annotations

from typing import NamedTuple

from ..jit import njit
from ..method import Array
from .simd.ir import vector_lanes
from .simd.rows import tile_rows, tile_unrolled
from .window import Tables

# Extents of tiles, as the lengths of tuples: rows, each at most the kernel's, and vectors of columns. The largest has
# 20 sums, 4 inputs and a weight in 32 registers, or 10, 2 and 1 in 16.
Extent = tuple[int, ...]
ONE: Extent = (0,)
TWO: Extent = (0,) * 2
THREE: Extent = (0,) * 3
FOUR: Extent = (0,) * 4
FIVE: Extent = (0,) * 5
# Rows of a tile of small kernels, whose code has no loop: the common sizes of maps are its multiples.
SEVEN: Extent = (0,) * 7


class Sweep(NamedTuple):
    """How rows are swept: the kernel, and the input rows between two of its; the rows of a tile, and the output rows
    between two of them; the stride that tiles without loops have, or 0 for none; whether x is read where it lies; the
    planes of a window.
    """

    kernel_h: int
    kernel_w: int
    dilation_h: int
    tile_rows: int
    apart: int
    unrolled: int
    direct: int
    planes: int


class Places(NamedTuple):
    """Where a block lies: in x its start, the elements from one row to the next and from one that an output row starts
    at to that of the next; in the output its start, rows and columns; whether tiles must be whole.
    """

    x: int
    x_pitch: int
    x_stride: int
    out: int
    rows: int
    width: int
    whole: int


@njit()
def correlate_rows(
    out: Array, x: Array, weight: Array, bias: float, places: Places, relu: int, tables: Tables, sweep: Sweep
) -> None:
    """All rows of a block, by tiles. Rows that whole tiles leave over are a smaller tile, or one that overlaps."""
    for residue in range(min(sweep.apart, places.rows)):
        rows = places.rows if sweep.apart == 1 else -(-(places.rows - residue) // sweep.apart)
        row = 0
        while row < rows:
            height = tile_height(rows - row, rows, sweep)
            row = min(row, rows - height)
            first = residue + row * sweep.apart
            if height == len(SEVEN):
                correlate_strip(SEVEN, out, x, weight, bias, first, places, relu, tables, sweep)
            elif height == len(FIVE):
                correlate_strip(FIVE, out, x, weight, bias, first, places, relu, tables, sweep)
            elif height == len(THREE):
                correlate_strip(THREE, out, x, weight, bias, first, places, relu, tables, sweep)
            else:
                correlate_strip(ONE, out, x, weight, bias, first, places, relu, tables, sweep)
            row += height


@njit()
def tile_height(left: int, rows: int, sweep: Sweep) -> int:
    """Rows of the next tile, where some are left of all rows: few enough not to begin before the first."""
    if sweep.unrolled and rows >= len(SEVEN) and left > len(THREE):
        return len(SEVEN)
    if left == 1 or sweep.tile_rows > rows:
        return 1
    return min(sweep.tile_rows, len(THREE)) if left <= len(THREE) else sweep.tile_rows


@njit()
def correlate_strip(
    rows: Extent,
    out: Array,
    x: Array,
    weight: Array,
    bias: float,
    row: int,
    places: Places,
    relu: int,
    tables: Tables,
    sweep: Sweep,
) -> None:
    """The rows of a tile, from left to right. The last columns are a masked tile, or a whole one that overlaps."""
    lanes = vector_lanes(out)
    j = 0
    while j < places.width:
        rest = places.width - j
        if places.whole and rest < len(FOUR) * lanes:
            rest = len(FOUR) * lanes
            j = places.width - rest
        if len(rows) == len(SEVEN):
            columns = min(rest, len(FOUR) * lanes)
            straight_tile(out, x, weight, bias, row, j, columns, places, relu, tables, sweep)
        elif rest <= lanes:
            tile(rows, ONE, out, x, weight, bias, row, j, rest, places, relu, tables, sweep)
        elif rest <= len(TWO) * lanes:
            tile(rows, TWO, out, x, weight, bias, row, j, rest, places, relu, tables, sweep)
        else:
            columns = min(rest, len(FOUR) * lanes)
            tile(rows, FOUR, out, x, weight, bias, row, j, columns, places, relu, tables, sweep)
        j += len(FOUR) * lanes


@njit()
def tile(
    rows: Extent,
    vectors: Extent,
    out: Array,
    x: Array,
    weight: Array,
    bias: float,
    row: int,
    column: int,
    columns: int,
    places: Places,
    relu: int,
    tables: Tables,
    sweep: Sweep,
) -> None:
    """One tile, at a row and column of the block."""
    x_start, x_pitch = places.x + row * places.x_stride + column, places.x_pitch * sweep.dilation_h
    start, pitch = places.out + row * places.width + column, places.width * sweep.apart
    height, width = sweep.kernel_h, sweep.kernel_w
    tile_rows(
        rows,
        vectors,
        x,
        x_start,
        x_pitch,
        tables.offsets,
        width,
        weight,
        height,
        bias,
        relu,
        out,
        start,
        pitch,
        columns,
    )


@njit()
def straight_tile(
    out: Array,
    x: Array,
    weight: Array,
    bias: float,
    row: int,
    column: int,
    columns: int,
    places: Places,
    relu: int,
    tables: Tables,
    sweep: Sweep,
) -> None:
    """The tile without loops for a kernel, a stride and a width."""
    place = x, weight, bias, row, column, columns, places, relu, tables, sweep
    narrow = columns <= vector_lanes(out)
    if sweep.kernel_h == len(FIVE):
        unrolled_tile(ONE, FIVE, ONE, out, *place)
    elif sweep.kernel_h == len(SEVEN):
        unrolled_tile(ONE, SEVEN, ONE, out, *place)
    elif narrow and sweep.unrolled == 1:
        unrolled_tile(ONE, THREE, ONE, out, *place)
    elif narrow:
        unrolled_tile(ONE, THREE, TWO, out, *place)
    elif sweep.unrolled == 1:
        unrolled_tile(FOUR, THREE, ONE, out, *place)
    else:
        unrolled_tile(FOUR, THREE, TWO, out, *place)


@njit()
def unrolled_tile(
    vectors: Extent,
    kernel: Extent,
    stride: Extent,
    out: Array,
    x: Array,
    weight: Array,
    bias: float,
    row: int,
    column: int,
    columns: int,
    places: Places,
    relu: int,
    tables: Tables,
    sweep: Sweep,
) -> None:
    """One of them, at a row and column of the block."""
    x_start, x_pitch = places.x + row * places.x_stride + column, places.x_pitch * sweep.dilation_h
    start, pitch, offsets = places.out + row * places.width + column, places.width * sweep.apart, tables.offsets
    tile_unrolled(
        SEVEN, vectors, kernel, stride, x, x_start, x_pitch, offsets, weight, bias, relu, out, start, pitch, columns
    )
