"""The geometry of a strip: what the kernel of `depthwise` (strip.py) is compiled for, and which one suits a Problem.

A block computes rows and columns of pixels of one or several planes. Their windows lie in shared memory as lines, one
behind the other: of each plane the rows that lie a multiple of the stride apart stand together, so that neighbouring
threads read neighbouring lines. Where the stride is larger than what the taps reach, columns are split alike.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from ..problem import Problem
from .tiling import THREADS, Row

# Pixels side by side and rows of them that a thread sums: multiples of 7 suit the maps of networks.
PIXELS = (28, 16, 8)
ROWS = (8, 7, 4, 2, 1)
# Elements of 4 bytes in registers: the pixels' sums; with what a row of taps meets and its weights.
SUMS, REGISTERS = 64, 104
RESIDENT = 4
# So that as many fit the 164 KiB of compute capability 8.0.
BYTES = 40 << 10
WARP, WARPS = 32, THREADS // 32
# Elements of 4 bytes that come at least: 32 bytes.
SECTOR = 8
# Threads that read 128 bits at a time meet all banks of shared memory.
NEAR = 8
# Loads and stores of global memory that a thread has on their way at a time.
FLIGHT = 8
# What a choice is made for, since bits do not depend on it: a multiprocessor's share of an H100. Bytes of global memory
# and warps' accesses of shared memory a cycle, registers, and cycles from a block's start to its end without the work.
MULTIPROCESSORS, SCHEDULERS, FILE, MEMORY, LATENCY = 132, 4, 65536, 13.0, 3000.0
# Of those predicted best, as many are asked for conflicts of banks.
FEW = 4
# Share of the cycles in which a scheduler finds a warp that is ready.
ISSUE = 0.7


class Near(NamedTuple):
    """Planes whose threads stand together, before rows and columns; elements from one line of the window to the next,
    and of the results; how many of 8 neighbouring threads share a bank.
    """

    planes: int
    pitch: int
    stage_pitch: int
    shared: float


@dataclasses.dataclass(frozen=True)
class Strip(Row):
    """A kernel's constants. threads_h: threads above one another, of `rows` rows each; stride_w: by which columns are
    split into phases; step: from one pixel to the next in a row of the window. Their product is the stride.
    """

    step: int
    kernel_h: int
    stride_h: int
    dilation_h: int
    threads_h: int
    rows: int
    planes: int

    @property
    def height(self) -> int:
        """Rows of pixels of a block."""
        return self.rows * self.threads_h

    @property
    def span(self) -> int:
        """Elements of a phase that a thread's pixels meet."""
        return (self.pixels - 1) * self.step + 1 + self.shift

    @property
    def pitch(self) -> int:
        """Elements from one phase of a row to the next."""
        return -(-((self.width - 1) * self.step + 1 + self.shift) // self.unit) * self.unit

    @property
    def registers(self) -> int:
        """Elements that a thread holds beside addresses."""
        return self.rows * self.pixels + self.phases * self.span + self.weight_pitch

    @property
    def phase_rows(self) -> int:
        """Rows of the window that lie a multiple of the stride apart."""
        return -(-((self.height - 1) * self.stride_h + (self.kernel_h - 1) * self.dilation_h + 1) // self.stride_h)

    @property
    def plane_lines(self) -> int:
        """Lines of a plane's window."""
        return self.stride_h * self.phase_rows

    @property
    def weight_pitch(self) -> int:
        """Elements from one row of weights to the next."""
        return -(-self.kernel_w // self.unit) * self.unit

    @functools.cached_property
    def fill(self) -> tuple[int, int, int, int]:
        """How threads copy the window: see `_shared_out`."""
        return _shared_out(self.phases * self.pitch, self.planes * self.plane_lines)

    @functools.cached_property
    def drain(self) -> tuple[int, int, int, int]:
        """How threads copy the results."""
        return _shared_out(self.width, self.planes * self.height)

    @functools.cached_property
    def near(self) -> Near:
        """Which threads stand side by side, and pitches with which these share fewest banks of shared memory."""
        choices = []
        for planes in (one for one in (1, 2, 4, 8) if self.planes % one == 0):
            threads = [self.thread(i, planes) for i in range(WARP)]
            window = self._apart(threads, self.phases * self.pitch, self.pixels * self.step, self.plane_lines)
            stage = self._apart(threads, self.width, self.pixels, self.height)
            choices.append((self.kernel_h * window[0] + stage[0], Near(planes, window[1], stage[1], window[0])))
        return min(choices)[1]

    def thread(self, i: int, planes: int) -> tuple[int, int, int]:
        """(row, column, plane) of a thread, where so many planes stand together."""
        left, plane = divmod(i, planes)
        left, row = divmod(left, self.threads_h)
        left, column = divmod(left, self.columns)
        return row, column, plane + left * planes

    def _apart(
        self, threads: list[tuple[int, int, int]], least: int, column: int, plane_lines: int
    ) -> tuple[float, int]:
        """(how many of 8 threads share a bank, the pitch from `least` on with which fewest do)."""
        found = []
        for pitch in range(least, least + NEAR * self.unit, self.unit):
            banks = [((p * plane_lines + r) * pitch + c * column) // self.unit % NEAR for r, c, p in threads]
            parts = [banks[i : i + NEAR] for i in range(0, WARP, NEAR)]
            found.append((sum(max(map(part.count, part)) for part in parts) / len(parts), pitch))
        return min(found)

    def batch(self, each: int, rounds: int) -> int:
        """Rounds of copying so many elements that are on their way together."""
        return rounds // -(-rounds // max(1, FLIGHT // each))

    def elements(self) -> int:
        """Elements of shared memory: windows, later the results in their place."""
        _, _, side, rounds = self.fill
        return max(side * rounds * self.near.pitch, self.planes * self.height * self.near.stage_pitch)

    def weights(self) -> int:
        """Elements of shared memory for the weights."""
        return self.planes * self.kernel_h * self.weight_pitch

    def bytes(self) -> int:
        """Shared memory: with the places of every line of the window and of the results."""
        (_, _, side, rounds), (_, _, out_side, out_rounds) = self.fill, self.drain
        return self.itemsize * (self.elements() + self.weights()) + 4 * side * rounds + 8 * out_side * out_rounds


def _shared_out(columns: int, lines: int) -> tuple[int, int, int, int]:
    """How threads share out the elements of lines: (threads along a line, elements of each in it, lines side by side,
    rounds of these), with fewest accesses.
    """
    found = []
    # A warp or more along a line, whose elements are neighbours.
    for each in {-(-columns // across) for across in (THREADS, THREADS // 2, 48, WARP)}:
        across = -(-columns // each) if each == 1 else max(WARP, -(-columns // each))
        side = min(THREADS // across, lines)
        # Beside its elements, a line takes the look at where it starts; a warp on two lines meets some banks twice.
        cost = -(-lines // side) * (each + 0.4) * (1.1 if across % WARP and side > 1 else 1)
        found.append((cost, each, across, side))
    _, each, across, side = min(found)
    # As many at a time as fit, all the same.
    rounds = -(-lines // side)
    batches = -(-rounds // max(1, FLIGHT // each))
    return across, each, side, batches * -(-rounds // batches)


def _splits(size: int, most: int) -> list[int]:
    """Into how many parts a length may be cut for one tile: all of it, a half, ... as powers of two beside."""
    powers = [1 << i for i in range(most.bit_length()) if 1 << i <= most]
    return sorted({*powers, *(-(-size // parts) for parts in range(1, 9) if -(-size // parts) <= most)})


def _candidates(problem: Problem) -> Iterator[Strip]:
    (kernel_h, kernel_w), (stride_h, stride_w), (dilation_h, dilation_w) = (
        (1, *values)[-2:] for values in (problem.kernel, problem.stride, problem.dilation)
    )
    itemsize = problem.accumulator.itemsize
    words = itemsize // 4
    out_h, out_w = (1, *problem.out_spatial)[-2:]
    planes = _planes(problem)
    for pixels in (one // words for one in PIXELS):
        # Columns side by side as they lie, or by phases where that is shorter.
        row = Row(itemsize, kernel_w, stride_w, dilation_w, 1, pixels)
        whole = (pixels - 1) * stride_w + 1 + (kernel_w - 1) * dilation_w
        split, step = (1, stride_w) if whole <= row.phases * (pixels + row.shift) else (stride_w, 1)
        for columns, rows in itertools.product(_splits(-(-out_w // pixels), 16), ROWS):
            if rows * pixels * words > SUMS or (rows > 1 and rows >= 2 * out_h):
                continue
            for threads_h in (1, 2, 4, 8, 16, 32, 64, 128):
                most = THREADS // (columns * threads_h)
                if not most or (threads_h > 1 and rows * threads_h >= 2 * out_h):
                    break
                for parts in (1, 2, 4, 8):
                    if most >= parts:
                        yield Strip(
                            itemsize, kernel_w, split, dilation_w, columns, pixels, step,
                            kernel_h, stride_h, dilation_h, threads_h, rows, max(1, min(most // parts, planes)),
                        )  # fmt: skip


def cycles(problem: Problem, strip: Strip, shared_by: float = 1) -> float:
    """What a multiprocessor of the nominal GPU takes for its blocks: the most of what it issues, of shared memory and
    of global memory, or what the blocks' latencies add up to where few fit side by side. shared_by: threads
    that read one bank at a time.
    """
    (_, each, _, rounds), (_, out_each, _, out_rounds) = strip.fill, strip.drain
    words = strip.itemsize // 4
    row_loads = strip.phases * strip.span / strip.unit
    lines, pixels = strip.planes * strip.plane_lines, strip.planes * strip.height * strip.width
    # A thread's instructions, and its share of the wavefronts of a warp.
    copied, stored = rounds * each, out_rounds * out_each
    row = strip.pixels * strip.kernel_w + row_loads + 2
    taps = strip.kernel_h * (strip.rows * row + strip.weight_pitch / strip.unit + 6) + 2 * strip.rows * strip.pixels
    busy = -(-strip.planes * strip.columns * strip.threads_h // WARP) / WARPS
    issued = WARPS * (400 + 7 * copied + 6 * stored + busy * taps)
    read_shared = strip.kernel_h * strip.rows * row_loads * 4 * shared_by + strip.rows * strip.pixels
    shared = WARPS * words * (busy * read_shared + 2 * copied + 3 * stored)
    read = lines * (strip.phases * strip.pitch + SECTOR / words)
    once = min(read, pixels * strip.stride_h * strip.stride_w * strip.step)
    # What is read again comes from the cache, at twice the rate.
    moved = strip.itemsize * ((once + read) / 2 + pixels)
    work = _overlapped(issued / SCHEDULERS / ISSUE, shared, moved / MEMORY)
    registers = min(128, 32 + 3 * words * strip.rows * strip.pixels // 2)
    resident = min(16, FILE // (THREADS * registers), RESIDENT * BYTES // _least(strip))
    count = -(-blocks(problem, strip) // MULTIPROCESSORS)
    latency = LATENCY + 800 * copied / FLIGHT + taps
    return latency + _overlapped(count * work, count / min(count, resident) * latency)


def _overlapped(*times: float) -> float:
    """The longest, and a quarter of the others, since they do not quite hide behind it."""
    return 0.75 * max(times) + 0.25 * sum(times)


def _least(strip: Strip) -> int:
    """Bytes of shared memory, if no pitch is wider than it must."""
    _, _, side, rounds = strip.fill
    lines = max(side * rounds * strip.phases * strip.pitch, strip.planes * strip.height * strip.width)
    return strip.itemsize * (lines + strip.weights())


@functools.lru_cache(maxsize=1024)
def choose(problem: Problem) -> Strip | None:
    """The strip of least predicted time, or None where none fits shared memory and registers."""
    words = problem.accumulator.itemsize // 4
    fitting = {
        strip: cycles(problem, strip)
        for strip in _candidates(problem)
        if words * strip.registers <= REGISTERS and _least(strip) <= BYTES
    }
    small = (strip for strip in sorted(fitting, key=fitting.__getitem__) if strip.bytes() <= BYTES)
    few = itertools.islice(small, FEW)
    return min(few, key=lambda strip: cycles(problem, strip, strip.near.shared), default=None)


def _planes(problem: Problem) -> int:
    """Planes of results, of all images."""
    return problem.batch * problem.out_channels * (1, 1, *problem.out_spatial)[-3]


def tiles(problem: Problem, strip: Strip) -> tuple[int, int]:
    """Tiles of a plane, down and across."""
    out_h, out_w = (1, *problem.out_spatial)[-2:]
    return -(-out_h // strip.height), -(-out_w // strip.width)


def blocks(problem: Problem, strip: Strip) -> int:
    """The number of blocks."""
    return -(-_planes(problem) // strip.planes) * math.prod(tiles(problem, strip))
