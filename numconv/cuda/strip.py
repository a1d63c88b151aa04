"""The kernel of `depthwise`, compiled for each geometry of strip_geometry.py.

A block copies the windows of one or several planes to shared memory, many loads at a time, from places worked out once
for every line; then each thread sums `rows` rows of `pixels` neighbouring pixels; the results go back through shared
memory, so that neighbouring threads store neighbours.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .arrays import LIMIT
from .driver import cuda, inlined
from .kernels import kernel
from .strip_geometry import RESIDENT, Strip
from .tiling import THREADS


@inlined
def add_row(sums, values, weights, memory, at, row, constants):  # type: ignore[no-untyped-def]
    """One row of taps for one of a thread's rows of pixels: values from the window at `at`, in units of 16 bytes."""
    kernel_w, phases, period, pitch, span, dilation, stride, step, apart, pixels, unit = constants
    base = np.uint64(at) * np.uint64(unit) + np.uint64(row * apart)
    first = row * pixels
    for phase in range(phases):
        for s in range(span):
            values[phase * span + s] = memory[base + np.uint64(phase * pitch + s)]
    for k in range(kernel_w):
        for j in range(pixels):
            at_value = k % period * span + k * dilation // stride + j * step
            sums[first + j] = cuda.fma(values[at_value], weights[k], sums[first + j])


@inlined
def copy_lines(x, memory, staged, places, from_w, frame, line, to, limits, constants):  # type: ignore[no-untyped-def]
    """So many rounds of lines: all loads, then all stores. limits: the lane's elements beyond the row are not there."""
    batch, each, side, across, pitch, columns, outside = constants
    for b in range(batch):
        place = places[np.uint64(line) + np.uint64(b * side)]
        for i in range(each):
            value = frame
            if (place >= 0) & (from_w[i] > outside):
                value = x[np.uint32(place + from_w[i])]
            staged[b * each + i] = value
    for b in range(batch):
        for i in range(each):
            if i * across + across <= columns or limits:
                memory[np.uint64(to) + np.uint64(b * side * pitch + i * across)] = staged[b * each + i]


@functools.lru_cache(maxsize=256)
def build(strip: Strip) -> Any:
    """The kernel of a strip, for the floats of its size.

    Arguments: x (flat), weight (co, taps), bias (co,) and the padding's value, out (flat), depth, height, width (padded
    position -> position or -1), places, and x's start and strides in elements.
    """
    real = strip.real
    kernel_h, kernel_w, stride_h, stride_w = strip.kernel_h, strip.kernel_w, strip.stride_h, strip.stride_w
    dilation_h, dilation_w, columns, threads_h = strip.dilation_h, strip.dilation_w, strip.columns, strip.threads_h
    each, pixels, unit, step, span = strip.rows, strip.pixels, strip.unit, strip.step, strip.span
    planes, rows, width, phase_rows = strip.planes, strip.height, strip.width, strip.phase_rows
    pitch, phases, plane_lines = strip.pitch, strip.phases, strip.plane_lines
    columns_used, row_size = (width - 1) * step + 1 + strip.shift, phases * pitch
    near_planes, row_pitch, stage_pitch, _ = strip.near
    weight_pitch = strip.weight_pitch
    plane_weights = kernel_h * weight_pitch
    memory_size, weights_size = strip.elements(), strip.weights()
    values_size, sums_size = span * phases, each * pixels
    # Copying: threads along a line, elements of each, lines side by side, and rounds, some at a time.
    across, lane_columns, side, rounds = strip.fill
    batch, slots = strip.batch(lane_columns, rounds), side * rounds
    out_across, out_columns, out_side, out_rounds = strip.drain
    out_batch, out_slots = strip.batch(out_columns, out_rounds), out_side * out_rounds
    copies = (batch, lane_columns, side, across, row_pitch, row_size, -LIMIT)
    table_rounds, out_table_rounds = -(-slots // THREADS), -(-out_slots // THREADS)
    # Rows of a thread lie threads_h apart, so that neighbouring threads read neighbouring rows.
    apart = threads_h * row_pitch
    constants = (kernel_w, phases, strip.period, pitch, span, dilation_w, stride_w, step, apart, pixels, unit)
    staged_size, out_staged_size = batch * lane_columns, out_batch * out_columns
    # Lines of results that a warp reads at a time lie so far apart that they share no bank.
    out_bytes = width * strip.itemsize
    together = 128 // out_bytes if out_side % 8 == 128 % out_bytes == 0 and out_bytes < 128 else 1
    outside, threads = -LIMIT, THREADS

    def correlate(x, weight, bias, out, depth, height, table, places, start, stride_n, stride_c, sd, sh, sw):  # type: ignore[no-untyped-def]
        # Of their own, since the compiler joins up to 64 loads of one array, in whose midst a vector would part.
        taps = cuda.shared.array(weights_size, real, alignment=16)
        memory = cuda.shared.array(memory_size, real, alignment=16)
        sums = cuda.local.array(sums_size, real)
        values = cuda.local.array(values_size, real)
        weights = cuda.local.array(weight_pitch, real)
        staged = cuda.local.array(staged_size, real)
        out_staged = cuda.local.array(out_staged_size, real)
        out_places = cuda.local.array(out_batch, np.int64)
        from_w = cuda.local.array(lane_columns, np.int32)
        from_h = cuda.local.array(table_rounds, np.int32)
        # Of each plane: where its image starts, or -1 in the padding, its channel, and what is added last.
        images = cuda.shared.array(planes, np.int32, alignment=16)
        channels = cuda.shared.array(planes, np.uint32, alignment=16)
        biases = cuda.shared.array(planes, real, alignment=16)
        # Of each line of the windows and of the results: where it starts, or -1.
        line_places = cuda.shared.array(slots, np.int32, alignment=16)
        out_lines = cuda.shared.array(out_slots, np.int64, alignment=16)
        thread = np.uint32(cuda.threadIdx.x)
        out_h, out_w = np.int32(places[3]), np.int32(places[4])
        block = np.uint32(cuda.blockIdx.x)
        # Remainders are multiplied out, since a division takes a score of instructions.
        rest = np.uint32(block // np.uint32(places[6]))
        ow0 = np.int32(np.uint32(block - rest * np.uint32(places[6])) * np.uint32(width))
        number = np.uint32(rest // np.uint32(places[5]))
        oh0 = np.int32(np.uint32(rest - number * np.uint32(places[5])) * np.uint32(rows))
        first_plane = np.int32(number * np.uint32(planes))
        plane_pixels = np.int64(out_h) * np.int64(out_w)
        left = np.int64(len(out)) - first_plane * plane_pixels
        here = np.int32(planes)
        if left < planes * plane_pixels:
            here = np.int32(left // plane_pixels)
        frame = bias[len(bias) - 1]

        if np.int32(thread) < here:
            number = np.uint32(np.uint32(first_plane) + thread)
            rest = np.uint32(number // np.uint32(places[2]))
            d = depth[np.uint32(number - rest * np.uint32(places[2])) * np.uint32(places[7])]
            n = np.uint32(rest // np.uint32(places[0]))
            channel = np.uint32(rest - n * np.uint32(places[0]))
            image = np.int64(start) + n * stride_n + np.uint32(channel // np.uint32(places[1])) * stride_c + d * sd
            images[thread] = np.int32(image) if d >= 0 else np.int32(-1)
            channels[thread] = channel
            biases[thread] = bias[channel]
        # Where the lines that this thread looks up start in their plane, and its columns of each line that it copies.
        for i in range(table_rounds):
            at = np.uint32(np.uint32(thread + np.uint32(i * threads)) % np.uint32(plane_lines))
            row = np.uint32(at % np.uint32(phase_rows) * np.uint32(stride_h) + at // np.uint32(phase_rows))
            h = np.uint32(np.uint32(oh0 * np.int32(stride_h)) + row)
            from_h[i] = np.int32(-1)
            if h < len(height):
                from_h[i] = height[h]
        group = np.uint32(thread // np.uint32(across))
        lane = np.uint32(thread % np.uint32(across))
        for i in range(lane_columns):
            c = np.uint32(lane + np.uint32(i * across))
            phase = np.uint32(c // np.uint32(pitch))
            column = np.uint32(c - phase * np.uint32(pitch))
            w = np.int32((ow0 * np.int32(step) + np.int32(column)) * stride_w + np.int32(phase) * dilation_w % stride_w)
            from_w[i] = np.int32(outside)
            if phase < phases and column < columns_used and w < len(table) and table[w] >= 0:
                from_w[i] = np.int32(table[w] * sw)
        cuda.syncthreads()

        for i in range(table_rounds):
            at = np.uint32(thread + np.uint32(i * threads))
            if at < slots:
                place = np.int32(-1)
                plane = np.uint32(at // np.uint32(plane_lines))
                if np.int32(plane) < here and from_h[i] >= 0 and images[plane] >= 0:
                    place = np.int32(images[plane] + from_h[i] * sh)
                line_places[at] = place
        for i in range(out_table_rounds):
            at = np.uint32(thread + np.uint32(i * threads))
            if at < out_slots:
                to_line = np.int64(-1)
                plane = np.uint32(at // np.uint32(rows))
                oh = np.int32(oh0 + np.int32(at - plane * np.uint32(rows)))
                if np.int32(plane) < here and oh < out_h:
                    number = np.uint32(np.uint32(first_plane) + plane)
                    to_line = np.int64(number) * plane_pixels + np.int64(oh) * np.int64(out_w) + np.int64(ow0)
                out_lines[at] = to_line
        for i in range(np.int32(-(-weights_size // threads))):
            at = np.uint32(thread + np.uint32(i) * np.uint32(threads))
            plane = np.uint32(at // np.uint32(plane_weights))
            row = np.uint32(at // np.uint32(weight_pitch))
            kw = np.uint32(at - row * np.uint32(weight_pitch))
            if np.int32(plane) < here:
                # A compiler may read three elements as four.
                value = real(0)
                if kw < kernel_w:
                    row = np.uint32((channels[plane] - plane) * np.uint32(kernel_h) + row)
                    value = weight[np.uint32(row * np.uint32(kernel_w) + kw)]
                taps[at] = value
        cuda.syncthreads()

        if group < side:
            line = group
            to = np.uint32(group * np.uint32(row_pitch) + lane)
            last = lane < np.uint32(row_size - (lane_columns - 1) * across)
            for _ in range(np.int32(rounds // batch)):
                copy_lines(x, memory, staged, line_places, from_w, frame, line, to, last, copies)
                line = np.uint32(line + np.uint32(batch * side))
                to = np.uint32(to + np.uint32(batch * side * row_pitch))
        cuda.syncthreads()

        # As Strip.thread tells.
        left = np.uint32(thread // np.uint32(near_planes))
        mine = np.uint32(thread - left * np.uint32(near_planes))
        rest = np.uint32(left // np.uint32(threads_h))
        down = np.uint32(left - rest * np.uint32(threads_h))
        left = np.uint32(rest // np.uint32(columns))
        column = np.uint32(rest - left * np.uint32(columns))
        mine = np.uint32(mine + left * np.uint32(near_planes))
        for i in range(sums_size):
            sums[i] = real(0)
        if np.int32(mine) < here:
            window = np.uint32(
                (mine * np.uint32(plane_lines) + down) * np.uint32(row_pitch // unit)
                + column * np.uint32(pixels * step // unit)
            )
            weight_at = np.uint32(mine * np.uint32(plane_weights // unit))
            reach = np.uint32(0)
            for _ in range(np.int32(kernel_h)):
                base = np.uint64(weight_at) * np.uint64(unit)
                for k in range(kernel_w):
                    weights[k] = taps[base + np.uint64(k)]
                row = np.uint32(reach % np.uint32(stride_h) * np.uint32(phase_rows) + reach // np.uint32(stride_h))
                at = np.uint32(window + row * np.uint32(row_pitch // unit))
                add_row(sums, values, weights, memory, at, 0, constants)
                # Written out, since a loop over them would not unroll.
                if each > 1:
                    add_row(sums, values, weights, memory, at, 1, constants)
                if each > 2:
                    add_row(sums, values, weights, memory, at, 2, constants)
                    add_row(sums, values, weights, memory, at, 3, constants)
                if each > 4:
                    add_row(sums, values, weights, memory, at, 4, constants)
                    add_row(sums, values, weights, memory, at, 5, constants)
                    add_row(sums, values, weights, memory, at, 6, constants)
                if each > 7:
                    add_row(sums, values, weights, memory, at, 7, constants)
                reach = np.uint32(reach + np.uint32(dilation_h))
                weight_at = np.uint32(weight_at + np.uint32(weight_pitch // unit))

        # The results go through shared memory, so that neighbouring threads store neighbouring pixels.
        cuda.syncthreads()
        if np.int32(mine) < here:
            added, relu = biases[mine], places[8] != 0
            stage = np.uint32(
                (mine * np.uint32(rows) + down) * np.uint32(stage_pitch // unit) + column * np.uint32(pixels // unit)
            )
            for i in range(each):
                for j in range(pixels):
                    total = real(0) + sums[i * pixels + j] + added
                    if relu and total < real(0):
                        total = real(0)
                    memory[np.uint64(stage) * np.uint64(unit) + np.uint64(i * threads_h * stage_pitch + j)] = total
        cuda.syncthreads()
        group = np.uint32(thread // np.uint32(out_across))
        lane = np.uint32(thread % np.uint32(out_across))
        if together > 1:
            near = np.uint32(group % np.uint32(8))
            near = np.uint32(near % np.uint32(together) * np.uint32(8 // together) + near // np.uint32(together))
            group = np.uint32(group - group % np.uint32(8) + near)
        if group < out_side:
            line = group
            at = np.uint32(group * np.uint32(stage_pitch) + lane)
            columns_left = np.int32(out_w - ow0)
            for _ in range(np.int32(out_rounds // out_batch)):
                for b in range(out_batch):
                    out_places[b] = out_lines[np.uint64(line) + np.uint64(b * out_side)]
                    for i in range(out_columns):
                        if out_places[b] >= 0 and np.int32(lane + np.uint32(i * out_across)) < columns_left:
                            from_stage = np.uint64(at) + np.uint64(b * out_side * stage_pitch + i * out_across)
                            out_staged[b * out_columns + i] = memory[from_stage]
                for b in range(out_batch):
                    for i in range(out_columns):
                        if out_places[b] >= 0 and np.int32(lane + np.uint32(i * out_across)) < columns_left:
                            to_out = np.uint64(out_places[b]) + np.uint64(lane + np.uint32(i * out_across))
                            out[to_out] = out_staged[b * out_columns + i]
                line = np.uint32(line + np.uint32(out_batch * out_side))
                at = np.uint32(at + np.uint32(out_batch * out_side * stage_pitch))

    return kernel(correlate, THREADS, RESIDENT)
