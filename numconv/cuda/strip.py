"""The strip of `depthwise`: its geometry, which one suits a Problem, and one kernel, compiled for each.

A block copies the windows of one or several planes to shared memory, then each thread sums `rows` rows of `pixels`
neighbouring pixels; the results go back through shared memory, so that neighbouring threads store neighbours. Columns
and rows of a window are split by the stride into phases, so that what neighbouring threads read lies side by side.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import numpy as np

from ..problem import Problem
from .arrays import LIMIT
from .driver import cuda, inlined
from .kernels import kernel
from .tiling import THREADS, Row

# Pixels side by side and rows of them that a thread sums: fewer where the stride makes the window large.
PIXELS = (16, 8)
ROWS = (8, 4, 2, 1)
# Elements of 4 bytes in registers: the pixels' sums; with what a row of taps meets and its weights.
SUMS, REGISTERS = 64, 104
RESIDENT = 4
# So that as many fit the 164 KiB of compute capability 8.0.
BYTES = 40 << 10
WARP = 32
# Threads that read 128 bits at a time meet all banks of shared memory.
NEAR = 8


@dataclasses.dataclass(frozen=True)
class Strip(Row):
    """A kernel's constants. threads_h: threads above one another, of `rows` rows each."""

    kernel_h: int
    stride_h: int
    dilation_h: int
    threads_h: int
    rows: int

    @property
    def planes(self) -> int:
        """Planes of a block."""
        return THREADS // (self.columns * self.threads_h)

    @property
    def height(self) -> int:
        """Rows of pixels of a block."""
        return self.rows * self.threads_h

    @property
    def registers(self) -> int:
        """Elements that a thread holds beside addresses."""
        return self.rows * self.pixels + self.phases * (self.pixels + self.shift) + self.weight_pitch

    @property
    def near(self) -> tuple[int, int, int]:
        """Columns, rows and planes of 8 neighbouring threads."""
        apart, across = self.pixels // self.unit, self.width // self.unit
        columns = min(self.columns, NEAR // apart)
        rows = min(self.threads_h, NEAR // across if across < NEAR else apart)
        return columns, rows, min(self.planes, NEAR // (columns * rows))

    def _apart(self, least: int, plane_rows: int, rows_read: int) -> tuple[int, int]:
        """(pitch of the rows, from `least` on; elements from one plane to the next), with which 8 neighbouring threads
        of 16 bytes each, and a warp that reads so many rows of results, share the fewest banks.
        """
        columns, rows, planes = self.near
        across = range(self.width // self.unit)

        def shared(pitch: int, plane_size: int) -> int:
            places = itertools.product(range(planes), range(rows), range(columns))
            threads = [(p * plane_size + r * pitch + c * self.pixels) // self.unit % NEAR for p, r, c in places]
            lanes = [(r * pitch // self.unit + c) % NEAR for r in range(rows_read) for c in across]
            return sum(max(map(units.count, units), default=0) for units in (threads, lanes))

        steps = range(0, NEAR * self.unit, self.unit)
        choices = ((least + more, plane_rows * (least + more) + pad) for more in steps for pad in steps)
        return min(choices, key=lambda pair: (shared(*pair), pair[1]))

    @functools.cached_property
    def window(self) -> tuple[int, int]:
        """Elements from one row of the window to the next, and from one plane's window to the next."""
        return self._apart(self.phases * self.pitch, self.stride_h * self.phase_rows, 0)

    @functools.cached_property
    def stage(self) -> tuple[int, int]:
        """The same for the results."""
        return self._apart(self.width, self.height, max(1, NEAR * self.unit // self.width))

    @property
    def window_rows(self) -> int:
        """Rows of a plane's window."""
        return (self.height - 1) * self.stride_h + (self.kernel_h - 1) * self.dilation_h + 1

    @property
    def phase_rows(self) -> int:
        """Rows of the window that lie a multiple of the stride apart."""
        return -(-self.window_rows // self.stride_h)

    @property
    def weight_pitch(self) -> int:
        """Elements from one row of weights to the next."""
        return -(-self.kernel_w // self.unit) * self.unit

    def elements(self) -> int:
        """Elements of shared memory: windows, later the results in their place."""
        return self.planes * max(self.window[1], self.stage[1])

    def weights(self) -> int:
        """Elements of shared memory for the weights."""
        return self.planes * self.kernel_h * self.weight_pitch


@functools.lru_cache(maxsize=1024)
def choose(problem: Problem) -> Strip | None:
    """The strip that wastes fewest pixels, or None where none fits shared memory and registers."""
    (kernel_h, kernel_w), (stride_h, stride_w), (dilation_h, dilation_w) = (
        (1, *values)[-2:] for values in (problem.kernel, problem.stride, problem.dilation)
    )
    itemsize = problem.accumulator.itemsize
    words = itemsize // 4
    best: tuple[tuple[int, int, int], Strip] | None = None
    for pixels, rows, columns, threads_h in itertools.product(PIXELS, ROWS, (8, 4, 2, 1), (32, 16, 8, 4, 2, 1)):
        strip = Strip(
            kernel_w, stride_w, dilation_w, columns, pixels // words, itemsize,
            kernel_h, stride_h, dilation_h, threads_h, rows,
        )  # fmt: skip
        if rows * pixels > SUMS or words * strip.registers > REGISTERS or columns * threads_h > THREADS:
            continue
        # Pixels to be computed, reads of shared memory, the shared memory that they wait in; then the longer strips.
        cost = (blocks(problem, strip) * rows * pixels, -pixels)
        if best is None or cost <= best[0][:2]:
            elements = strip.elements() + strip.weights()
            if itemsize * elements <= BYTES and (best is None or (*cost, elements // rows) < best[0]):
                best = ((*cost, elements // rows), strip)
    return best[1] if best else None


def tiles(problem: Problem, strip: Strip) -> tuple[int, int]:
    out_h, out_w = (1, *problem.out_spatial)[-2:]
    return -(-out_h // strip.height), -(-out_w // strip.width)


def blocks(problem: Problem, strip: Strip) -> int:
    """The number of blocks."""
    planes = problem.batch * problem.out_channels * (1, 1, *problem.out_spatial)[-3]
    return -(-planes // strip.planes) * math.prod(tiles(problem, strip))


@inlined
def add_row(sums, values, weights, memory, at, row, constants):  # type: ignore[no-untyped-def]
    """One row of taps for one of a thread's rows of pixels: values from the window at `at`, in units of 16 bytes."""
    kernel_w, phases, period, pitch, span, dilation, stride, apart, pixels, unit = constants
    base = np.uint64(at) * np.uint64(unit) + np.uint64(row * apart)
    first = row * pixels
    for phase in range(phases):
        for s in range(span):
            values[phase * span + s] = memory[base + np.uint64(phase * pitch + s)]
    for k in range(kernel_w):
        for j in range(pixels):
            at_value = k % period * span + k * dilation // stride + j
            sums[first + j] = cuda.fma(values[at_value], weights[k], sums[first + j])


@functools.lru_cache(maxsize=256)
def build(strip: Strip) -> Any:
    """The kernel of a strip, for the floats of its size.

    Arguments: x (flat), weight (co, taps), bias (co,) and the padding's value, out (flat), depth, height, width (padded
    position -> position or -1), places, and x's start and strides in elements.
    """
    real = strip.real
    kernel_h, kernel_w, stride_h, stride_w = strip.kernel_h, strip.kernel_w, strip.stride_h, strip.stride_w
    dilation_h, dilation_w, columns, threads_h = strip.dilation_h, strip.dilation_w, strip.columns, strip.threads_h
    each, pixels, unit = strip.rows, strip.pixels, strip.unit
    planes, rows, width, window_rows = strip.planes, strip.height, strip.width, strip.window_rows
    pitch, phases, phase_rows, columns_used = strip.pitch, strip.phases, strip.phase_rows, strip.width + strip.shift
    (row_pitch, plane_window), (stage_pitch, stage_size) = strip.window, strip.stage
    weight_pitch = strip.weight_pitch
    plane_weights = kernel_h * weight_pitch
    memory_size, weights_size = strip.elements(), strip.weights()
    span = pixels + strip.shift
    values_size, sums_size = span * phases, each * pixels
    lane_columns = -(-phases * pitch // WARP)
    # Rows of a thread lie threads_h apart, so that neighbouring threads read neighbouring rows.
    apart = threads_h * row_pitch
    constants = (kernel_w, phases, strip.period, pitch, span, dilation_w, stride_w, apart, pixels, unit)
    near_columns, near_rows, near_planes = strip.near
    far_rows, far_columns = threads_h // near_rows, columns // near_columns
    outside, threads = -LIMIT, THREADS

    def correlate(x, weight, bias, out, depth, height, table, places, start, stride_n, stride_c, sd, sh, sw):  # type: ignore[no-untyped-def]
        # Of their own, since the compiler joins up to 64 loads of one array, in whose midst a vector would part.
        taps = cuda.shared.array(weights_size, real, alignment=16)
        memory = cuda.shared.array(memory_size, real, alignment=16)
        sums = cuda.local.array(sums_size, real)
        values = cuda.local.array(values_size, real)
        weights = cuda.local.array(weight_pitch, real)
        from_w = cuda.local.array(lane_columns, np.int32)
        # Of each plane: where its image starts, or -1 in the padding, its channel, and what is added last.
        images = cuda.shared.array(planes, np.int64, alignment=16)
        channels = cuda.shared.array(planes, np.uint32, alignment=16)
        biases = cuda.shared.array(planes, real, alignment=16)
        thread = np.uint32(cuda.threadIdx.x)
        warp, lane = np.int32(thread // np.uint32(WARP)), np.int32(thread % np.uint32(WARP))
        out_h, out_w = np.int32(places[3]), np.int32(places[4])
        block = np.uint32(cuda.blockIdx.x)
        rest = np.uint32(block // np.uint32(places[6]))
        ow0 = np.int32(np.uint32(block % np.uint32(places[6])) * np.uint32(width))
        oh0 = np.int32(np.uint32(rest % np.uint32(places[5])) * np.uint32(rows))
        first_plane = np.int32(np.uint32(rest // np.uint32(places[5])) * np.uint32(planes))
        all_planes = np.int32(np.uint64(len(out)) // (np.uint64(out_h) * np.uint64(out_w)))
        here = np.int32(min(np.int32(planes), np.int32(all_planes - first_plane)))
        frame = bias[len(bias) - 1]

        if np.int32(thread) < here:
            number = np.uint32(np.uint32(first_plane) + thread)
            rest = np.uint32(number // np.uint32(places[2]))
            d = depth[np.uint32(number % np.uint32(places[2])) * np.uint32(places[7])]
            n = np.uint32(rest // np.uint32(places[0]))
            channel = np.uint32(rest % np.uint32(places[0]))
            image = np.int64(start) + n * stride_n + np.uint32(channel // np.uint32(places[1])) * stride_c + d * sd
            images[thread] = image if d >= 0 else np.int64(-1)
            channels[thread] = channel
            biases[thread] = bias[channel]
        # The columns of the window that this lane copies, in every row of it.
        for i in range(lane_columns):
            c = np.uint32(lane + np.int32(i * WARP))
            phase = np.uint32(c // np.uint32(pitch))
            column = np.uint32(c - phase * np.uint32(pitch))
            w = np.int32((ow0 + np.int32(column)) * stride_w + np.int32(phase) * dilation_w % stride_w)
            from_w[i] = np.int32(outside)
            if phase < phases and column < columns_used and w < len(table) and table[w] >= 0:
                from_w[i] = np.int32(table[w] * sw)
        cuda.syncthreads()

        for i in range(np.int32(-(-weights_size // threads))):
            at = np.uint32(thread + np.uint32(i) * np.uint32(threads))
            plane: Any = np.uint32(at // np.uint32(plane_weights))
            row = np.uint32(at // np.uint32(weight_pitch))
            kw = np.uint32(at - row * np.uint32(weight_pitch))
            if np.int32(plane) < here:
                # A compiler may read three elements as four.
                value = real(0)
                if kw < kernel_w:
                    row = np.uint32((channels[plane] - plane) * np.uint32(kernel_h) + row)
                    value = weight[np.uint32(row * np.uint32(kernel_w) + kw)]
                taps[at] = value
        for plane in range(here):
            image = images[plane]
            to_plane = np.uint32(np.uint32(plane) * np.uint32(plane_window) + np.uint32(lane))
            row = np.uint32(warp)
            while row < np.uint32(window_rows):
                h = np.uint32(np.uint32(oh0 * np.int32(stride_h)) + row)
                from_h = np.int32(-1)
                if h < len(height) and image >= 0:
                    from_h = height[h]
                base = image + from_h * sh
                row_place = np.uint32(row % np.uint32(stride_h) * np.uint32(phase_rows) + row // np.uint32(stride_h))
                to = np.uint32(to_plane + row_place * np.uint32(row_pitch))
                for i in range(lane_columns):
                    if i * WARP + WARP <= phases * pitch or lane < np.int32(phases * pitch - i * WARP):
                        value = frame
                        if from_h >= 0 and from_w[i] > outside:
                            value = x[np.uint64(base + from_w[i])]
                        memory[np.uint64(to) + np.uint64(i * WARP)] = value
                row = np.uint32(row + np.uint32(threads // WARP))
        cuda.syncthreads()

        # Whatever is a power of two divides an unsigned number by a shift.
        left = np.uint32(thread // np.uint32(near_columns))
        across = np.uint32(thread % np.uint32(near_columns))
        down = np.uint32(left % np.uint32(near_rows))
        left = np.uint32(left // np.uint32(near_rows))
        mine = np.uint32(left % np.uint32(near_planes))
        left = np.uint32(left // np.uint32(near_planes))
        down = np.uint32(down + left % np.uint32(far_rows) * np.uint32(near_rows))
        left = np.uint32(left // np.uint32(far_rows))
        across = np.uint32(across + left % np.uint32(far_columns) * np.uint32(near_columns))
        mine = np.uint32(mine + left // np.uint32(far_columns) * np.uint32(near_planes))
        for i in range(sums_size):
            sums[i] = real(0)
        if np.int32(mine) < here:
            window = np.uint32(
                mine * np.uint32(plane_window // unit)
                + down * np.uint32(row_pitch // unit)
                + across * np.uint32(pixels // unit)
            )
            weight_at = np.uint32(mine * np.uint32(plane_weights // unit))
            step = np.uint32(0)
            for _ in range(np.int32(kernel_h)):
                base = np.uint64(weight_at) * np.uint64(unit)
                for k in range(kernel_w):
                    weights[k] = taps[base + np.uint64(k)]
                row_place = np.uint32(step % np.uint32(stride_h) * np.uint32(phase_rows) + step // np.uint32(stride_h))
                at = np.uint32(window + row_place * np.uint32(row_pitch // unit))
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
                    add_row(sums, values, weights, memory, at, 7, constants)
                step = np.uint32(step + np.uint32(dilation_h))
                weight_at = np.uint32(weight_at + np.uint32(weight_pitch // unit))

        # The results go through shared memory, so that neighbouring threads store neighbouring pixels.
        cuda.syncthreads()
        stage = np.uint32(
            mine * np.uint32(stage_size // unit)
            + down * np.uint32(stage_pitch // unit)
            + across * np.uint32(pixels // unit)
        )
        for i in range(each):
            for j in range(pixels):
                memory[np.uint64(stage) * np.uint64(unit) + np.uint64(i * threads_h * stage_pitch + j)] = sums[
                    i * pixels + j
                ]
        cuda.syncthreads()
        column = np.uint32(thread % np.uint32(width))
        line = np.uint32(thread // np.uint32(width))
        ow = np.int32(ow0 + np.int32(column))
        relu = places[8] != 0
        plane_pixels = np.uint64(out_h) * np.uint64(out_w)
        target = np.uint64(first_plane) * plane_pixels + np.uint64(ow)
        if ow < out_w:
            for _ in range(np.int32(sums_size)):
                plane = np.uint32(line // np.uint32(rows))
                row = np.uint32(line % np.uint32(rows))
                oh = np.int32(oh0 + np.int32(row))
                if np.int32(plane) < here and oh < out_h:
                    at = np.uint32(plane * np.uint32(stage_size) + row * np.uint32(stage_pitch) + column)
                    total = real(0) + memory[at] + biases[plane]
                    if relu and total < real(0):
                        total = real(0)
                    out[target + plane * plane_pixels + np.uint64(oh) * np.uint64(out_w)] = total
                line = np.uint32(line + np.uint32(threads // width))

    return kernel(correlate, THREADS, RESIDENT)
