"""The kernels of `wide`, compiled for each geometry of wide_geometry.py.

A block of 128 threads adds up one segment of the taps for some output channels and columns: each thread holds 8 sums to
64 in registers. Chunk by chunk of 8 or 16 taps, weights and inputs go through shared memory, the next chunk's into
registers while one is added up: two buffers. Neighbouring threads fetch neighbouring taps, which lie side by side in
weights and input alike; a thread keeps its place among the taps and moves it on, so no weight is packed, and the shape
of the kernel, stride and dilation are no constants: all layers share the few compiled kernels. In shared memory
columns lie side by side; of the second eight taps of a chunk, those of a unit of 128 bits are turned, so that sixteen
neighbouring threads meet all banks, and reading them costs nothing: which register holds which is known beforehand.

Segments are independent until their sums are added: where there are several, each has its blocks, and a second kernel
adds up in order what they leave.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from .driver import cuda, inlined
from .kernels import kernel
from .tiling import THREADS
from .wide_geometry import Wide

# A thread's place among the taps: which tap, its depth, row and column by the dilation, and how far its channel lies in
# the input, and the tap in the weights.
TAP, DEPTH, ROW, COLUMN, INPUT, WEIGHT = range(6)


class Places(NamedTuple):
    """The integers of a launch, for all blocks."""

    channels: int
    channel_blocks: int
    out_h: int
    out_w: int
    out_pixels: int
    kernel_h: int
    kernel_w: int
    stride_d: int
    stride_h: int
    stride_w: int
    dilation_d: int
    dilation_h: int
    dilation_w: int
    depth_end: int
    row_end: int
    column_end: int
    volume: int
    taps: int
    period: int
    segment: int
    segments: int
    weight_channel: int
    weight_input: int
    in_channels: int
    out_plane: int
    out_channel: int
    relu: int


@inlined
def look_up(depth, height, width, place, met, units_at, units, deep):  # type: ignore[no-untyped-def]
    """Where one tap meets the input in each of this thread's units: its depth, row and column, or -1."""
    unit_depth, unit_row, unit_column = units_at
    for u in range(units):
        met[3 * u] = np.int32(0)
        if deep:
            met[3 * u] = depth[np.uint32(unit_depth[u] + place[DEPTH])]
        met[3 * u + 1] = height[np.uint32(unit_row[u] + place[ROW])]
        met[3 * u + 2] = width[np.uint32(unit_column[u] + place[COLUMN])]


@inlined
def fetch(x, weight, place, met, staged, froms, ends, strides, geometry):  # type: ignore[no-untyped-def]
    """One tap's weights and inputs of this thread, into registers; 0 behind the segment's end."""
    weights_from, inputs_from = froms
    end, frame = ends
    sd, sh, sw = strides
    weights, units, planes, deep, framed = geometry
    inside = place[TAP] < end
    for i in range(weights):
        value = weight.dtype.type(0)
        if inside:
            value = weight[np.uint32(weights_from[i] + place[WEIGHT])]
        staged[i] = value
    for u in range(units):
        d, h, w = met[3 * u], met[3 * u + 1], met[3 * u + 2]
        meets = inside & ((d | h | w) >= 0)
        at = np.int32(np.int32(h * sh) + np.int32(w * sw) + place[INPUT])
        if deep:
            at = np.int32(at + np.int32(d * sd))
        for p in range(planes):
            value = x.dtype.type(0)
            if framed and inside:
                value = frame
            if meets:
                value = x[np.uint32(inputs_from[u * planes + p] + at)]
            staged[weights + u * planes + p] = value


@inlined
def move_on(place, lanes, dilations, kernel_ends, steps):  # type: ignore[no-untyped-def]
    """A thread's place, so many taps further."""
    dilation_d, dilation_h, dilation_w = dilations
    depth_end, row_end, column_end = kernel_ends
    channel_step, weight_wrap = steps
    place[TAP] = np.int32(place[TAP] + np.int32(lanes))
    place[WEIGHT] = np.int32(place[WEIGHT] + np.int32(lanes))
    place[COLUMN] = np.int32(place[COLUMN] + np.int32(np.int32(lanes) * dilation_w))
    while place[COLUMN] >= column_end:
        place[COLUMN] = np.int32(place[COLUMN] - column_end)
        place[ROW] = np.int32(place[ROW] + dilation_h)
        if place[ROW] >= row_end:
            place[ROW] = np.int32(0)
            place[DEPTH] = np.int32(place[DEPTH] + dilation_d)
            if place[DEPTH] >= depth_end:
                place[DEPTH] = np.int32(0)
                place[INPUT] = np.int32(place[INPUT] + channel_step)
                place[WEIGHT] = np.int32(place[WEIGHT] + weight_wrap)


@inlined
def store(floats, staged, weight_to, input_to, counts):  # type: ignore[no-untyped-def]
    """From the registers to a buffer of shared memory."""
    weights, inputs, parts = counts
    for i in range(weights):
        floats[np.uint64(weight_to) + np.uint64(i * parts)] = staged[i]
    for i in range(inputs):
        floats[np.uint64(input_to) + np.uint64(i * parts)] = staged[weights + i]


@inlined
def add(sums, weights, inputs, floats, weight_at, input_at, first, end, of_rows, of_columns):  # type: ignore[no-untyped-def]
    """sums[i*columns+j] += weight of channel i * input of column j, for a chunk's taps from first to end."""
    rows, row_unit, row_step, row_pitch = of_rows
    columns, column_unit, column_step, column_pitch = of_columns
    weight_base = np.uint64(weight_at) * np.uint64(row_unit)
    input_base = np.uint64(input_at) * np.uint64(column_unit)
    for k in range(first, end):
        for i in range(rows):
            at = k * row_pitch + i // row_unit * row_step + i % row_unit
            weights[i ^ (k // 8 * (row_unit // 2))] = floats[weight_base + np.uint64(at)]
        for j in range(columns):
            at = k * column_pitch + j // column_unit * column_step + j % column_unit
            inputs[j ^ (k // 8 * (column_unit // 2))] = floats[input_base + np.uint64(at)]
        for i in range(rows):
            for j in range(columns):
                sums[i * columns + j] = cuda.fma(inputs[j], weights[i], sums[i * columns + j])


@functools.lru_cache(maxsize=256)
def build(wide: Wide) -> Any:
    """The kernel of a geometry, for the floats of its size.

    Arguments: x (flat memory), weight (flat: each channel's taps of one input channel side by side), bias (co,) and the
    padding's value, out (flat: each segment's sums, or the result), depth, height, width (padded position -> position
    or -1), places, the first segment, whether it is the only one, the number of planes, elements from one to the next
    and of the whole result, and x's start and strides in elements.
    """
    real, rows, columns, groups = wide.real, wide.rows, wide.columns, wide.groups
    lanes, parts, unit, deep, framed = wide.lanes, wide.parts, wide.unit, wide.deep, wide.framed
    tile_height, tile_units, few = wide.height, wide.units, wide.planes
    weights_fetched, inputs_fetched = wide.fetched
    weight_pitch, input_pitch = wide.pitches
    units = inputs_fetched // few
    fetched, met_size = weights_fetched + inputs_fetched, 3 * units
    shared_elements, input_buffers = wide.shared_elements, 2 * lanes * weight_pitch
    weight_buffer, input_buffer = lanes * weight_pitch, lanes * input_pitch
    sums_size, side = rows * columns, THREADS // groups
    row_unit, column_unit = min(unit, rows), min(unit, columns)
    # Units of 128 bits of one thread's channels, and columns, lie this far apart: neighbours read neighbouring ones.
    row_step, column_step = row_unit * groups, column_unit * side
    of_rows, of_columns = (rows, row_unit, row_step, weight_pitch), (columns, column_unit, column_step, input_pitch)
    weight_turn, input_turn = row_unit // 2, column_unit // 2
    geometry, counts = (weights_fetched, units, few, deep, framed), (weights_fetched, inputs_fetched, parts)
    halves = lanes > 8

    def correlate(  # type: ignore[no-untyped-def]
        x,
        weight,
        bias,
        out,
        depth,
        height,
        width,
        places,
        segment0,
        alone,
        planes,
        plane_step,
        size,
        start,
        sc,
        sd,
        sh,
        sw,
    ):
        floats = cuda.shared.array(shared_elements, real, alignment=16)
        sums = cuda.local.array(sums_size, real)
        weights = cuda.local.array(rows, real)
        inputs = cuda.local.array(columns, real)
        staged = cuda.local.array(fetched, real)
        place = cuda.local.array(6, np.int32)
        met = cuda.local.array(met_size, np.int32)
        weights_from = cuda.local.array(weights_fetched, np.int32)
        inputs_from = cuda.local.array(inputs_fetched, np.int32)
        unit_depth = cuda.local.array(units, np.int32)
        unit_row = cuda.local.array(units, np.int32)
        unit_column = cuda.local.array(units, np.int32)

        thread = np.uint32(cuda.threadIdx.x)
        column_group = np.uint32((thread & np.uint32(3)) + thread // np.uint32(4 * groups) * np.uint32(4))
        row_group = np.uint32(thread // np.uint32(4) % np.uint32(groups))
        lane = np.int32(thread % np.uint32(lanes))
        part = np.int32(thread // np.uint32(lanes))

        # What is fetched lies where the last of its kind does, beyond the last: such sums are left out at the end.
        channels = np.int32(places[0])
        group = np.int32(cuda.blockIdx.y) // np.int32(places[1])
        channel0 = np.int32((np.int32(cuda.blockIdx.y) - group * np.int32(places[1])) * tile_height)
        for i in range(weights_fetched):
            channel = min(np.int32(channel0 + np.int32(i * parts) + part), np.int32(channels - 1))
            weights_from[i] = np.int32((group * channels + channel) * np.int32(places[21]))
        pixels = np.int32(places[4])
        unit0 = np.int32(cuda.blockIdx.x) * np.int32(tile_units)
        last_plane = np.int32(planes) - np.int32(1)
        last_unit = np.int32(pixels * ((last_plane + np.int32(few)) // np.int32(few)) - np.int32(1))
        first = np.int32(start + np.int64(group) * places[23] * sc)
        for u in range(units):
            one = min(np.int32(unit0 + np.int32(u * parts) + part), last_unit)
            plane0 = np.int32(one // pixels)
            pixel = np.int32(one - plane0 * pixels)
            row = np.int32(pixel // np.int32(places[3]))
            plane_depth = np.int32(row // np.int32(places[2]))
            unit_column[u] = np.int32((pixel - row * np.int32(places[3])) * np.int32(places[9]))
            unit_row[u] = np.int32((row - plane_depth * np.int32(places[2])) * np.int32(places[8]))
            unit_depth[u] = np.int32(plane_depth * np.int32(places[7]))
            for p in range(few):
                plane = min(np.int32(plane0 * np.int32(few) + np.int32(p)), last_plane)
                inputs_from[u * few + p] = np.int32(first + np.int32(plane * np.int32(plane_step)))

        # The block's segment, and where in it this thread starts.
        segment = np.int32(np.int32(segment0) + np.int32(cuda.blockIdx.z))
        period = np.int32(segment // np.int32(places[20]))
        number = np.int32(segment - period * np.int32(places[20]))
        tap0 = np.int32(period * np.int32(places[18]) + number * np.int32(places[19]))
        end = min(np.int32(tap0 + np.int32(places[19])), np.int32((period + np.int32(1)) * np.int32(places[18])))
        end = min(end, np.int32(places[17]))
        dilations = (np.int32(places[10]), np.int32(places[11]), np.int32(places[12]))
        kernel_ends = (np.int32(places[13]), np.int32(places[14]), np.int32(places[15]))
        steps = (np.int32(sc), np.int32(np.int32(places[22]) - np.int32(places[16])))
        strides = (np.int32(sd), np.int32(sh), np.int32(sw))
        tap = np.int32(tap0 + lane)
        channel = np.int32(tap // np.int32(places[16]))
        rest = np.int32(tap - channel * np.int32(places[16]))
        place[TAP] = tap
        place[INPUT] = np.int32(channel * np.int32(sc))
        place[WEIGHT] = np.int32(channel * np.int32(places[22]) + rest)
        row = np.int32(rest // np.int32(places[6]))
        plane_depth = np.int32(row // np.int32(places[5]))
        place[COLUMN] = np.int32((rest - row * np.int32(places[6])) * dilations[2])
        place[ROW] = np.int32((row - plane_depth * np.int32(places[5])) * dilations[1])
        place[DEPTH] = np.int32(plane_depth * dilations[0])

        for i in range(sums_size):
            sums[i] = real(0)
        froms, units_at = (weights_from, inputs_from), (unit_depth, unit_row, unit_column)
        ends = (end, bias[len(bias) - 1])
        # Of the second eight taps, elements lie turned within their units.
        turned = np.int32(lane // np.int32(8))
        weight_to = np.uint32(lane * np.int32(weight_pitch) + (part ^ np.int32(turned * np.int32(weight_turn))))
        input_to = np.uint32(
            lane * np.int32(input_pitch) + (part ^ np.int32(turned * np.int32(input_turn))) + np.int32(input_buffers)
        )
        weight_at = row_group
        input_at = np.uint32(column_group + np.uint32(input_buffers // column_unit))
        look_up(depth, height, width, place, met, units_at, units, deep)
        fetch(x, weight, place, met, staged, froms, ends, strides, geometry)
        store(floats, staged, weight_to, input_to, counts)
        # Where the next chunk lies is known before it is fetched: a warp waits for no table.
        move_on(place, lanes, dilations, kernel_ends, steps)
        look_up(depth, height, width, place, met, units_at, units, deep)
        cuda.syncthreads()
        # From one buffer to the other: up, then down.
        flip = np.int32(1)
        weight_to = np.uint32(weight_to + np.uint32(weight_buffer))
        input_to = np.uint32(input_to + np.uint32(input_buffer))
        while tap0 < end:
            tap0 = np.int32(tap0 + np.int32(lanes))
            more = tap0 < end
            if more:
                fetch(x, weight, place, met, staged, froms, ends, strides, geometry)
                move_on(place, lanes, dilations, kernel_ends, steps)
                look_up(depth, height, width, place, met, units_at, units, deep)
            add(sums, weights, inputs, floats, weight_at, input_at, 0, 4, of_rows, of_columns)
            add(sums, weights, inputs, floats, weight_at, input_at, 4, 8, of_rows, of_columns)
            if halves:
                add(sums, weights, inputs, floats, weight_at, input_at, 8, 12, of_rows, of_columns)
                add(sums, weights, inputs, floats, weight_at, input_at, 12, 16, of_rows, of_columns)
            if more:
                store(floats, staged, weight_to, input_to, counts)
            weight_at = np.uint32(np.int32(weight_at) + flip * np.int32(weight_buffer // row_unit))
            input_at = np.uint32(np.int32(input_at) + flip * np.int32(input_buffer // column_unit))
            weight_to = np.uint32(np.int32(weight_to) - flip * np.int32(weight_buffer))
            input_to = np.uint32(np.int32(input_to) - flip * np.int32(input_buffer))
            flip = np.int32(-flip)
            cuda.syncthreads()

        relu = places[26] != 0
        of_segment = np.int64(cuda.blockIdx.z) * size
        for j in range(np.int32(columns)):
            column = np.int32(np.int32(j) // np.int32(column_unit) * np.int32(column_step))
            column = np.int32(column + np.int32(j) % np.int32(column_unit))
            column = np.int32(column + np.int32(column_group * np.uint32(column_unit)))
            slot = np.int32(column // np.int32(parts))
            one = np.int32(unit0 + np.int32(column - slot * np.int32(parts)) + slot // np.int32(few) * np.int32(parts))
            plane0 = np.int32(one // pixels)
            pixel = np.int32(one - plane0 * pixels)
            plane = np.int32(plane0 * np.int32(few) + slot % np.int32(few))
            if one <= last_unit and plane <= last_plane:
                target = of_segment + np.int64(plane) * places[24] + pixel
                for i in range(rows):
                    channel = np.int32(row_group * np.uint32(row_unit)) + np.int32(
                        i // row_unit * row_step + i % row_unit
                    )
                    channel = np.int32(channel0 + channel)
                    if channel < channels:
                        channel = np.int32(group * channels + channel)
                        total = sums[i * columns]
                        if alone != 0:
                            total = (real(0) + total) + bias[np.uint32(channel)]
                            if relu and total < real(0):
                                total = real(0)
                        out[np.uint64(target + np.int64(channel) * places[25])] = total
            # The next column's sums to where this one's were: indices known beforehand keep all in registers.
            for i in range(sums_size - 1):
                sums[i] = sums[i + 1]

    return kernel(correlate, THREADS, wide.resident)


@functools.cache
def build_sums() -> Any:
    """The kernel that adds up the segments."""

    def join(sums, bias, out, count, first, last, relu, size, pixels, channels):  # type: ignore[no-untyped-def]
        """out[i] += the sum of sums[s * size + i] over so many segments, in order; the first of all start from 0, and
        after the last comes the bias.
        """
        i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < size:
            total = out.dtype.type(0)
            if first > 0:
                total = out[i]
            for segment in range(count):
                total = total + sums[segment * size + i]
            if last != 0:
                total = total + bias[i // pixels % channels]
                if relu != 0 and total < out.dtype.type(0):
                    total = out.dtype.type(0)
            out[i] = total

    return kernel(join, THREADS, 1)
