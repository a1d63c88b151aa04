"""What a task of `winograd` does: fill a window, transform the inputs, multiply and add, transform the results."""

from __future__ import annotations

from typing import NamedTuple

from ..method import Array
from .blocks import Blocks, locate, take
from .pixel_tiles import CHANNELS, EXTENTS, PER_ROW, VECTORS, sweep
from .simd.copies import copy_finish, transpose_finish
from .simd.fields import record
from .simd.ir import vector_lanes
from .simd.shares import Share, njit, portion
from .simd.strided import clear_vectors
from .simd.tiles import call_tile
from .simd.winograd import call_transform
from .window import Tables, Window, fill


class Squares(NamedTuple):
    """The integers of a task's squares of outputs, called tiles; sizes in elements.

    outputs: of a tile, in each direction, and extent: of its transform. columns: tiles in a row of a block; pitch: from
    one row of tiles to the next among transformed ones, and rows: of tiles in one vector. places: for transformed tiles
    of a plane. tile_step and sum_step: from one element of the transforms to the next. buffer: of an input transform.
    together: output channels that are stored together, one, or, where they lie last, a unit. starts: in the window, of
    what a vector of tiles is made from.
    """

    outputs: int
    extent: int
    columns: int
    pitch: int
    rows: int
    places: int
    tile_step: int
    sum_step: int
    buffer: int
    together: int
    starts: Array


# Output channels of a tile of sums; and of a band, whose products with an element of the transforms come one after the
# other: so transformed inputs, which are more than a second-level cache holds, are fetched once for all of them.
UNIT, BAND = CHANNELS, 4 * CHANNELS
WIDTH = VECTORS
# Where the addresses of the transforms stand, and of a tile of two units by one vector, behind those of `sweep`.
INPUT_TRANSFORM = len(EXTENTS)
OUTPUT_TRANSFORM, PAIR = INPUT_TRANSFORM + 1, INPUT_TRANSFORM + 2


@njit(parallel=True)
def correlate(
    share: Share,
    x: Array,
    weight: Array,
    bias: Array,
    out: Array,
    flags: Array,
    scratch: Array,
    integers: Array,
) -> None:
    """The tasks of one share, and then what is left of the others: x (n, c, d, h, w), weight as `row_of` has it,
    out (n, groups*co, od, oh, ow), flags (n, od, rows, columns of tiles), scratch (shares, ...).
    """
    window, blocks, tables = record(Window, integers, 0), record(Blocks, integers, 1), record(Tables, integers, 2)
    squares = record(Squares, integers, 3)
    group_channels = out.shape[1] // blocks.groups
    # Vectors of tiles reach into what lies between the planes of the window.
    scratch[share.number, blocks.panel :] = 0
    task, end_task = take(share, 1, len(out), blocks)
    while task < end_task:
        n, group, first, od, oh, ow = locate(task, window, blocks)
        end = min(first + blocks.channels, group_channels)
        image = x[n, group * (x.shape[1] // blocks.groups) :]
        low, high = group * group_channels + first, group * group_channels + end
        own = scratch[share.number]
        correlate_block(
            image, weight, low, group_channels, bias, out[n, low:high, od], flags[n, od], od, oh, ow, own, tables,
            window, blocks, squares,
        )  # fmt: skip
        task, end_task = take(share, 1, len(out), blocks)


@njit()
def correlate_block(
    x: Array,
    weight: Array,
    channel: int,
    group_channels: int,
    bias: Array,
    out: Array,
    flags: Array,
    od: int,
    oh: int,
    ow: int,
    scratch: Array,
    tables: Tables,
    window: Window,
    blocks: Blocks,
    squares: Squares,
) -> None:
    """The block of out (co, oh, ow) at row oh and column ow, from x (c, d, h, w)."""
    outputs, places, depth = squares.outputs, squares.places, window.total_planes
    rows = -(-min(window.block_rows, out.shape[1] - oh) // outputs)
    lanes = vector_lanes(scratch)
    count = -(-((rows - 1) * squares.pitch + squares.columns) // lanes)
    elements = squares.extent * squares.extent
    checks, rest = scratch[:places], scratch[places:]
    buffer, rest = rest[: squares.buffer], rest[squares.buffer :]
    apart = outputs * outputs * places
    results, rest = rest[: squares.together * apart], rest[squares.together * apart :]
    size = elements * squares.sum_step
    sums, rest = rest[:size], rest[size:]
    size = elements * squares.tile_step
    tiles, panel = rest[:size], scratch[blocks.panel :]
    checks[:] = 0
    # Of the last vector of tiles, some lanes may be none's, and what lay there would go through all products: subnormal
    # numbers, with which processors are up to a hundred times as slow.
    if written_lanes(rows, lanes, squares) < count * lanes:
        for f in range(elements):
            clear_vectors(tiles[f * squares.tile_step + (count - 1) * lanes :], places, depth)
    for plane in range(0, window.total_planes, window.planes):
        planes = min(window.planes, window.total_planes - plane)
        fill(panel, x, plane, planes, od, oh, ow, tables, window)
        transform_inputs(panel, tiles, buffer, plane, planes, rows, tables, window, squares)
    for begin in range(0, len(out), BAND):
        end = min(begin + BAND, len(out))
        for f in range(elements):
            source, target = tiles[f * squares.tile_step :], sums[f * squares.sum_step :]
            multiply(
                target, places, count, source, weight, channel + begin, end - begin, group_channels, f, elements, depth,
                tables,
            )  # fmt: skip
        for co in range(begin, end):
            into = results[co % squares.together * apart :]
            call_transform(
                tables.tiles[OUTPUT_TRANSFORM],
                (sums[(co - begin) * places :], squares.sum_step, checks, into, outputs * places, count),
            )
            if (co + 1) % squares.together == 0 or co + 1 == end:
                low = co - co % squares.together
                store(out[low : co + 1], results, apart, bias[channel + low :], oh, ow, window, blocks, squares)
    for row in range(rows):
        for column in range(squares.columns):
            check = checks[row * squares.pitch + column]
            if check != check and ow // outputs + column < flags.shape[1]:
                flags[oh // outputs + row, ow // outputs + column] = 1


@njit()
def written_lanes(rows: int, lanes: int, squares: Squares) -> int:
    """How many lanes, from the first tile's on, the transforms of so many rows of tiles write."""
    part, last = lanes // squares.rows, (rows - 1) // squares.rows * squares.rows
    return (last + squares.rows - 1) * squares.pitch + -(-squares.columns // part) * part


@njit()
def multiply(
    sums: Array,
    places: int,
    count: int,
    source: Array,
    weight: Array,
    channel: int,
    channels: int,
    group_channels: int,
    f: int,
    elements: int,
    depth: int,
    tables: Tables,
) -> None:
    """sums[co, p] = weights of element f, [channel + co, plane], times source [plane, p], for so many vectors of p.

    Of the vectors that are no whole tile's, two units share each: with one, a step is short, and waits for the last.
    """
    lanes, whole, co = vector_lanes(sums), count - count % WIDTH, 0
    while co < channels:
        pair = co + 2 * UNIT <= channels and whole < count
        row = row_of(channel + co, group_channels, f, elements)
        second = row_of(channel + co + UNIT, group_channels, f, elements) if pair else row
        for unit in range(1 + pair):
            some, factors = min(UNIT, channels - co), weight[(second if unit else row) * depth :]
            width = whole if pair else count
            target = sums[(co + unit * UNIT) * places :]
            sweep(
                tables.tiles, target, places, width * lanes, some, factors, 1, some, 0, source, tables.offsets, 1, 0, 1
            )
        for vector in range(whole, count if pair else whole):
            call_tile(
                tables.tiles[PAIR], weight[row * depth :], (second - row) * depth, 1, source[vector * lanes :],
                tables.offsets, len(tables.offsets), 1, 0, UNIT, 0, sums[co * places + vector * lanes :], places, 1,
                0, 0, 0, weight, 0, 0, 0,
            )  # fmt: skip
        co += 2 * UNIT if pair else UNIT


@njit()
def row_of(channel: int, group_channels: int, f: int, elements: int) -> int:
    """The number of the row, one value a plane, at which a unit's weights begin for element f of the transforms.

    Weights are [band of channels of a group, element, unit of channels, plane, channel].
    """
    inside = channel % group_channels
    first = inside - inside % BAND
    return (channel - inside + first) * elements + f * min(BAND, group_channels - first) + inside - first


@njit()
def transform_inputs(
    panel: Array,
    tiles: Array,
    buffer: Array,
    plane: int,
    planes: int,
    rows: int,
    tables: Tables,
    window: Window,
    squares: Squares,
) -> None:
    """tiles[f, plane, p] = element f of the transformed inputs of tile p, from a window of some planes."""
    outputs, lanes, places = squares.outputs, vector_lanes(tiles), squares.places
    half = squares.pitch if squares.rows == 2 else lanes // 2
    for row in range(0, rows, squares.rows):
        for column in range(0, squares.columns, lanes // squares.rows):
            source = panel[row * outputs * window.pitch + column * outputs :]
            target = tiles[plane * places + row * squares.pitch + column :]
            call_transform(
                tables.tiles[INPUT_TRANSFORM],
                (
                    source, window.plane_size, window.pitch, squares.starts, buffer, target, places,
                    squares.tile_step, half, planes,
                ),
            )  # fmt: skip


@njit()
def store(
    out: Array,
    results: Array,
    apart: int,
    bias: Array,
    oh: int,
    ow: int,
    window: Window,
    blocks: Blocks,
    squares: Squares,
) -> None:
    """out[co, oh:, ow:] = the results of one channel, or of several that lie so far apart, transposed for channels
    last; with bias and activation.
    """
    outputs, lanes = squares.outputs, vector_lanes(out)
    columns, rows = min(window.block_columns, out.shape[2] - ow), min(window.block_rows, out.shape[1] - oh)
    for row in range(rows):
        tile, inside = divmod(row, outputs)
        source = results[(inside * squares.places + tile * squares.pitch) * outputs :]
        if squares.together == 1:
            copy_finish(source, out[0, oh + row, ow:], columns, bias[0], blocks.relu, 0)
            continue
        pixel = out.strides[2] // out.itemsize
        for j in range(0, columns, lanes):
            place, pixels = out[0, oh + row, ow + j :], min(lanes, columns - j)
            transpose_finish(PER_ROW, source[j:], apart, place, pixel, len(out), pixels, bias, blocks.relu, 0)


@njit(parallel=True)
def pack(share: Share, weight: Array, matrix: Array, transformed: Array, buffers: Array) -> None:
    """Transform weights (groups, co, planes * taps), unit by unit of channels: see `Prepared` in minimal_filtering.py.

    matrix is G (extent, 3); buffers (shares, ..., UNIT) are of float64.
    """
    units = -(-weight.shape[1] // UNIT)
    first, end = portion(len(weight) * units, share)
    for task in range(first, end):
        group, unit = divmod(task, units)
        before, channel = group * weight.shape[1], unit * UNIT
        pack_unit(weight[group], matrix, transformed, before, channel, buffers[share.number])


@njit()
def pack_unit(weight: Array, matrix: Array, transformed: Array, before: int, first: int, buffer: Array) -> None:
    """The unit of a group's weights (co, planes * taps) from channel `first` on, behind so many of other groups."""
    extent, taps = matrix.shape
    squares, halves = buffer[: taps * taps], buffer[taps * taps : taps * taps + extent * taps]
    results = buffer[taps * taps + extent * taps :]
    channels, planes = min(UNIT, len(weight) - first), weight.shape[1] // (taps * taps)
    for plane in range(planes):
        for tap in range(taps * taps):
            for co in range(channels):
                squares[tap, co] = weight[first + co, plane * taps * taps + tap]
        for row in range(extent):
            for column in range(taps):
                combine(halves[row * taps + column], matrix[row], squares[column:], taps)
        for row in range(extent):
            for column in range(extent):
                combine(results[row * extent + column], matrix[column], halves[row * taps :], 1)
        for f in range(extent * extent):
            row = row_of(before + first, len(weight), f, extent * extent)
            for co in range(channels):
                transformed[row * planes + plane * channels + co] = results[f, co]


@njit()
def combine(target: Array, factors: Array, rows: Array, step: int) -> None:
    """Three rows, so many apart, times three factors, added up."""
    a, b, c = rows[0], rows[step], rows[2 * step]
    for k in range(len(target)):
        target[k] = factors[0] * a[k] + factors[1] * b[k] + factors[2] * c[k]
