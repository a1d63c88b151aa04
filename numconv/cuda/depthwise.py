"""One input channel for each output channel on the GPU: depthwise layers and image filters, eight rows in registers.

The idea: a block copies the windows of one or several planes to shared memory once; each thread sums eight rows of
eight neighbouring pixels in registers and goes through the kernel's rows from top to bottom, so that a row of weights
is read once for 64 pixels and a row of the window once for eight [1]_. Columns are split by the stride into phases,
as in tile.py. It keeps the one order of summation.

It wins wherever there is one input channel to a group: such layers are bound by memory.

.. [1] P. Zhang, E. Lo, B. Lu, "High performance depthwise and pointwise convolutions on mobile devices", AAAI 2020.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from ..accuracy import direct_bound, direct_expected
from ..machine import Machine
from ..method import Work
from ..problem import Problem
from . import pack
from .driver import cuda, inlined, kernel
from .tiling import LIMIT, MAX_COLUMNS, PIXELS, THREADS

NAME = "depthwise"
REPRODUCIBLE = True
NEEDS_RTOL = False

# Rows of pixels that a thread sums: fewer where the stride makes the window large.
ROWS = (8, 4, 2, 1)
RESIDENT = 4
# So that as many fit the 164 KiB of compute capability 8.0.
STRIP_BYTES = 40 << 10
WARP = 32
# Share of multiply-adds in the loop over a 7x7 kernel's rows (tests/cuda_static.json), less the copying.
EFFICIENCY = 0.6

error_bound, expected_error = direct_bound, direct_expected


class Strip(NamedTuple):
    """A kernel's constants. columns: groups of 8 pixels in a row; threads_h: threads above one another, of `rows`
    rows each.
    """

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    columns: int
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
    def width(self) -> int:
        """Pixels in a row."""
        return PIXELS * self.columns

    @property
    def period(self) -> int:
        """After how many taps of a row the phases of the columns repeat."""
        return self.stride_w // math.gcd(self.stride_w, self.dilation_w)

    @property
    def phases(self) -> int:
        """Phases of the columns that some tap meets."""
        return min(self.period, self.kernel_w)

    @property
    def shift(self) -> int:
        """Columns that a row's last tap lies after its first, in its phase."""
        return (self.kernel_w - 1) * self.dilation_w // self.stride_w

    @property
    def pitch(self) -> int:
        """Elements from one phase of a row to the next."""
        return -(-(self.width + self.shift) // 4) * 4

    def _apart(self, least: int, plane_rows: int, step: int) -> tuple[int, int]:
        """(pitch of the rows, from `least` on; elements from one plane to the next), with which 8 neighbouring threads
        read 16 bytes each of the most different banks.
        """
        near = min(self.columns, 4)

        def banks(pitch: int, plane_size: int) -> int:
            found = set()
            for thread in range(8):
                plane, inside = divmod(thread, self.columns * self.threads_h)
                rest, column = divmod(inside, near)
                further, row = divmod(rest, self.threads_h)
                start = plane * plane_size + row * step * pitch + PIXELS * (column + further * near)
                found.add(start // 4 % 8)
            return len(found)

        pitches = range(-(-least // 4) * 4, least + 36, 4)
        choices = ((pitch, plane_rows * pitch + pad) for pitch in pitches for pad in range(0, 32, 4))
        return max(choices, key=lambda pair: (banks(*pair), -pair[1]))

    @property
    def row_pitch(self) -> int:
        """Elements from one row of the window to the next."""
        return self._apart(self.phases * self.pitch, self.window_rows, self.stride_h)[0]

    @property
    def plane_size(self) -> int:
        """Elements from one plane's window to the next."""
        return self._apart(self.phases * self.pitch, self.window_rows, self.stride_h)[1]

    @property
    def window_rows(self) -> int:
        """Rows of a plane's window."""
        return (self.height - 1) * self.stride_h + (self.kernel_h - 1) * self.dilation_h + 1

    @property
    def weight_pitch(self) -> int:
        """Elements from one row of weights to the next."""
        return -(-self.kernel_w // 4) * 4

    @property
    def stage_pitch(self) -> int:
        """Elements from one row of results to the next."""
        return self._apart(self.width, self.height, 1)[0]

    @property
    def stage_size(self) -> int:
        """Elements from one plane of results to the next."""
        return self._apart(self.width, self.height, 1)[1]

    def floats(self) -> int:
        """Elements of shared memory: weights, then windows, later the results in the place of both."""
        window = self.planes * (self.kernel_h * self.weight_pitch + self.plane_size)
        return max(window, self.planes * self.stage_size)


@functools.lru_cache(maxsize=1024)
def choose(problem: Problem) -> Strip | None:
    """The strip that wastes fewest pixels, or None where none fits shared memory."""
    constants = [(1, *values)[-2:] for values in (problem.kernel, problem.stride, problem.dilation)]
    best: tuple[tuple[int, int], Strip] | None = None
    for rows, columns, threads_h in itertools.product(ROWS, (8, 4, 2, 1), (16, 8, 4, 2, 1)):
        strip = Strip._make((*constants[0], *constants[1], *constants[2], columns, threads_h, rows))
        if 4 * strip.floats() <= STRIP_BYTES:
            # Pixels to be computed, the shared memory that they wait in; then the longer strips.
            cost = (blocks(problem, strip) * rows, strip.floats() // rows)
            if best is None or cost < best[0]:
                best = (cost, strip)
    return best[1] if best else None


def _tiles(problem: Problem, strip: Strip) -> tuple[int, int]:
    out_h, out_w = (1, *problem.out_spatial)[-2:]
    return -(-out_h // strip.height), -(-out_w // strip.width)


def blocks(problem: Problem, strip: Strip) -> int:
    """The number of blocks."""
    planes = problem.batch * problem.out_channels * (1, 1, *problem.out_spatial)[-3]
    return -(-planes // strip.planes) * math.prod(_tiles(problem, strip))


def why_not(problem: Problem, machine: Machine) -> str | None:
    if problem.in_channels != problem.groups:
        return f"each output channel sums {problem.in_channels // problem.groups} input channels, but it takes one"
    for name, dtype in (("input", problem.x_dtype), ("sums", problem.accumulator), ("output", problem.output)):
        if dtype != np.float32:
            return f"the {name} is {dtype.name}, but its strips are of float32"
    if problem.rank == 3 and problem.kernel[0] != 1:
        return f"the kernel is {problem.kernel[0]} planes deep, but it takes one"
    if problem.taps > problem.segments[1]:
        return f"the kernel has {problem.taps} taps, but one accumulator takes {problem.segments[1]} at most"
    reach = (problem.kernel[-1] - 1) * problem.dilation[-1] // problem.stride[-1]
    if max(problem.kernel[-1], reach) > MAX_COLUMNS:
        return f"the kernel is {max(problem.kernel[-1], reach)} columns wide, but it takes {MAX_COLUMNS} at most"
    if math.prod(problem.x_shape) >= LIMIT:
        return f"the input has {math.prod(problem.x_shape)} elements, but its positions hold {LIMIT} at most"
    if choose(problem) is None:
        return f"a window of the input takes more than {STRIP_BYTES >> 10} KiB of shared memory"
    return None


def work(problem: Problem, machine: Machine) -> Work:
    strip = choose(problem)
    assert strip is not None
    busiest = -(-blocks(problem, strip) // machine.multiprocessors) * machine.multiprocessors
    flops = 2.0 * busiest * THREADS * strip.rows * PIXELS * problem.taps
    rate = EFFICIENCY * machine.flop_rate(problem.accumulator)
    return Work(max(flops, problem.flops), rate, problem.bytes, machine.launch, 0.0)


def scratch_bytes(problem: Problem, machine: Machine) -> int:
    return 0


def prepare(problem: Problem, machine: Machine, weight: Any, bias: Any) -> pack.Prepared:
    strip = choose(problem)
    assert strip is not None
    places = (
        problem.out_channels,
        problem.out_channels // max(1, problem.groups),
        *(1, 1, *problem.out_spatial)[-3:],
        *_tiles(problem, strip),
        problem.batch * problem.out_channels * (1, 1, *problem.out_spatial)[-3],
        (1, 1, *problem.stride)[-3],
        int(problem.activation == "relu"),
    )
    return pack.prepare(problem, weight, bias, 1, 1, places)


def run(
    problem: Problem, machine: Machine, prepared: pack.Prepared, x: Any, out: Any, scratch: Any, stream: Any = None
) -> None:
    strip = choose(problem)
    assert strip is not None
    if x.span[0] >= LIMIT:
        x = pack.contiguous(problem, x)
    steps = (*x.strides[:2], *(0, 0, *x.strides[2:])[-3:])
    memory = x.flat() if x.size else out
    weight, bias, *tables, places = prepared
    grid = blocks(problem, strip)
    build(strip)[grid, THREADS, stream or 0](memory, weight, bias, out, *tables, places, x.span[1], *steps)


@inlined
def add_row(sums, values, weights, floats, at, row, constants):  # type: ignore[no-untyped-def]
    """One row of taps for one of a thread's rows of pixels: values from the window at `at`, in units of 4."""
    kernel_w, phases, period, pitch, span, dilation, stride, apart = constants
    base = np.uint64(at) * np.uint64(4) + np.uint64(row * apart)
    first = row * 8
    for phase in range(phases):
        for s in range(span):
            values[phase * span + s] = floats[base + np.uint64(phase * pitch + s)]
    for k in range(kernel_w):
        for j in range(8):
            at_value = k % period * span + k * dilation // stride + j
            sums[first + j] = cuda.fma(values[at_value], weights[k], sums[first + j])


@functools.lru_cache(maxsize=256)
def build(strip: Strip) -> Any:
    """The kernel of a strip, for float32.

    Arguments: x (flat), weight (co, taps), bias (co,), out (flat), depth, height, width (padded position -> position
    or -1), places, and x's start and strides in elements.
    """
    kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, columns, threads_h, each = strip
    planes, rows, width, window_rows = strip.planes, strip.height, strip.width, strip.window_rows
    pitch, row_pitch, phases, columns_used = strip.pitch, strip.row_pitch, strip.phases, strip.width + strip.shift
    weight_pitch, stage_pitch = strip.weight_pitch, strip.stage_pitch
    plane_weights, plane_window, stage_size = kernel_h * weight_pitch, strip.plane_size, strip.stage_size
    windows, floats_size = planes * plane_weights, strip.floats()
    span = PIXELS + strip.shift
    values_size, sums_size = span * phases, each * PIXELS
    # Rows of a thread lie threads_h apart, so that neighbouring threads read neighbouring rows.
    apart = threads_h * stride_h * row_pitch
    constants = (kernel_w, phases, strip.period, pitch, span, dilation_w, stride_w, apart)
    near = min(columns, 4)
    plane_threads = columns * threads_h

    def correlate(x, weight, bias, out, depth, height, table, places, start, stride_n, stride_c, sd, sh, sw):  # type: ignore[no-untyped-def]
        floats = cuda.shared.array(floats_size, np.float32, alignment=16)
        sums = cuda.local.array(sums_size, np.float32)
        values = cuda.local.array(values_size, np.float32)
        weights = cuda.local.array(weight_pitch, np.float32)
        thread = np.int32(cuda.threadIdx.x)
        warp, lane = thread // np.int32(WARP), thread % np.int32(WARP)
        out_channels, multiplier = np.int32(places[0]), np.int32(places[1])
        out_d, out_h, out_w = np.int32(places[2]), np.int32(places[3]), np.int32(places[4])
        block = np.int32(cuda.blockIdx.x)
        tile_w = block % np.int32(places[6])
        rest = block // np.int32(places[6])
        ow0 = tile_w * np.int32(width)
        oh0 = rest % np.int32(places[5]) * np.int32(rows)
        first_plane = rest // np.int32(places[5]) * np.int32(planes)

        for plane in range(planes):
            number = first_plane + plane
            if number < places[7]:
                od = number % out_d
                channel = number // out_d % out_channels
                image = np.int64(start) + number // out_d // out_channels * stride_n + channel // multiplier * stride_c
                d = depth[od * places[8]]
                for i in range(thread, plane_weights, THREADS):
                    k = i % weight_pitch
                    if k < kernel_w:
                        floats[np.uint32(plane * plane_weights + i)] = weight[
                            np.uint32((channel * kernel_h + i // weight_pitch) * kernel_w + k)
                        ]
                    else:
                        floats[np.uint32(plane * plane_weights + i)] = np.float32(0)
                for row in range(warp, window_rows, THREADS // WARP):
                    h = oh0 * stride_h + row
                    from_h = np.int32(-1)
                    if h < len(height) and d >= 0:
                        from_h = height[h]
                    base = image + d * sd + from_h * sh
                    to = windows + plane * plane_window + row * row_pitch
                    for c in range(lane, row_pitch, WARP):
                        phase = c // pitch
                        column = c - phase * pitch
                        w = (ow0 + column) * stride_w + phase * dilation_w % stride_w
                        value = np.float32(0)
                        if from_h >= 0 and phase < phases and column < columns_used and w < len(table):
                            from_w = table[w]
                            if from_w >= 0:
                                value = x[np.uint64(base + from_w * sw)]
                        floats[np.uint32(to + c)] = value
        cuda.syncthreads()

        mine: Any = thread // np.int32(plane_threads)
        inside = np.uint32(thread % np.int32(plane_threads))
        across = np.uint32(inside % np.uint32(near))
        rest_of = np.uint32(inside // np.uint32(near))
        row_thread = np.uint32(rest_of % np.uint32(threads_h))
        across = np.uint32(across + rest_of // np.uint32(threads_h) * np.uint32(near))
        for i in range(sums_size):
            sums[i] = np.float32(0)
        if first_plane + mine < places[7]:
            at = np.uint32(
                np.uint32(windows // 4 + mine * (plane_window // 4))
                + row_thread * np.uint32(stride_h * row_pitch // 4)
                + across * np.uint32(2)
            )
            weight_at = np.uint32(mine * (plane_weights // 4))
            for _ in range(np.int32(kernel_h)):
                base = np.uint64(weight_at) * np.uint64(4)
                for k in range(weight_pitch):
                    weights[k] = floats[base + np.uint64(k)]
                add_row(sums, values, weights, floats, at, 0, constants)
                # Written out, since a loop over them would not unroll.
                if each > 1:
                    add_row(sums, values, weights, floats, at, 1, constants)
                if each > 2:
                    add_row(sums, values, weights, floats, at, 2, constants)
                    add_row(sums, values, weights, floats, at, 3, constants)
                if each > 4:
                    add_row(sums, values, weights, floats, at, 4, constants)
                    add_row(sums, values, weights, floats, at, 5, constants)
                    add_row(sums, values, weights, floats, at, 6, constants)
                    add_row(sums, values, weights, floats, at, 7, constants)
                at = np.uint32(at + np.uint32(dilation_h * row_pitch // 4))
                weight_at = np.uint32(weight_at + np.uint32(weight_pitch // 4))

        # The results go through shared memory, so that neighbouring threads store neighbouring pixels.
        cuda.syncthreads()
        stage = np.uint32(np.uint32(mine * stage_size + row_thread * stage_pitch) + across * np.uint32(8))
        for i in range(each):
            for j in range(8):
                floats[np.uint64(stage) + np.uint64(i * threads_h * stage_pitch + j)] = sums[i * 8 + j]
        cuda.syncthreads()
        for i in range(thread, planes * rows * width, THREADS):
            line = i // np.int32(width)
            ow = ow0 + i % np.int32(width)
            oh = oh0 + line % np.int32(rows)
            plane_out: Any = first_plane + line // np.int32(rows)
            if plane_out < places[7] and oh < out_h and ow < out_w:
                total = (
                    np.float32(0)
                    + floats[
                        np.uint32(
                            line // np.int32(rows) * stage_size
                            + line % np.int32(rows) * stage_pitch
                            + i % np.int32(width)
                        )
                    ]
                )
                total = total + bias[np.uint32(plane_out // out_d % out_channels)]
                if places[9] != 0 and total < np.float32(0):
                    total = np.float32(0)
                out[np.uint64((np.int64(plane_out) * out_h + oh) * out_w + ow)] = total

    return kernel(correlate, THREADS, RESIDENT)
