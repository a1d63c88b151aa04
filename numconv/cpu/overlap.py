"""Overlapping tiles for transforms: how large they are, and which inputs each reads.

A circular correlation of length N with a kernel that spans K gives N - K + 1 sums that did not wrap around, so tiles of
N inputs, each K - 1 inputs into the next, give all of them [1]_. Axes on which the kernel has one tap are not
transformed: there a tile is so many rows. Lengths are products of 2, 3 and 5, the fast ones of a real transform.

Two tiles of real numbers may go through one complex transform, as the real and the imaginary part of its numbers: a
real kernel leaves them apart. It is as much arithmetic as two real transforms are, but is done in place, where those of
scipy.fft take new memory, and fresh pages cost as much time as transforming what they hold.

.. [1] A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd edition, section 8.7.3: overlap-save.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

from ..aligned import LINE_BYTES
from ..machine import Machine
from ..method import allowed_scratch
from ..problem import Problem
from .operands import three

Sizes = tuple[int, int, int]

# Transforms of the kernels that a plan may hold unless `workspace` allows more.
SPECTRUM_BYTES = 64 << 20
# Inputs, or results, transformed at a time: with what they come from they fit a second-level cache of 1 MiB.
CHUNK_BYTES = 512 << 10
# Seconds that one thread of scipy.fft takes for a real number on each axis, and for each of the passes that it makes
# along one, by bytes of the number and the factor of the axis's length. So many times as long take real transforms,
# which need new memory; transforms of more bytes than so; and fewer lines than share a vector.
AXIS_SECONDS = {8: 0.8e-9, 4: 0.8e-9}
PASS_SECONDS = {
    8: {8: 0.34e-9, 4: 0.29e-9, 2: 0.21e-9, 3: 0.27e-9, 5: 0.42e-9},
    4: {8: 0.16e-9, 4: 0.12e-9, 2: 0.08e-9, 3: 0.12e-9, 5: 0.20e-9},
}
REAL, LARGE, ALONE = 1.4, 1.2, 2.5
LARGE_BYTES, TOGETHER = 2 << 20, 4
# Flop/s of complex products, seconds of copying a number (bench/test_fft.py).
PRODUCT_RATES = {8: 4e9, 4: 5.5e9}
COPY_SECONDS = 0.6e-9
# Tiles are chosen for so many threads: by the number that a call has, its result would depend on it.
SHARES = 2
# Seconds of a chunk's and a tile's Python.
CHUNK_SECONDS, TILE_SECONDS = 40e-6, 18e-6


class Tiling(NamedTuple):
    """Tiles on three axes: the inputs and the output pixels of one, and how many an image has; the axes that are
    transformed; how many of an image's tiles one transform takes, 1 or 2; and how many groups and transforms make a
    chunk.
    """

    lengths: Sizes
    outputs: Sizes
    counts: Sizes
    axes: tuple[int, ...]
    parts: int
    groups: int
    transforms: int

    @property
    def size(self) -> int:
        """Inputs that one transform mixes."""
        return math.prod(self.lengths[axis] for axis in self.axes)

    @property
    def rows(self) -> int:
        """Transforms of a tile and channel."""
        return math.prod(self.lengths) // self.size

    @property
    def of_image(self) -> int:
        """Transforms of an image: of an odd number of tiles, the last one's partner is zeros."""
        return -(-math.prod(self.counts) // self.parts)


def reaches(problem: Problem) -> list[int]:
    """What the kernel spans on each axis, its dilation included."""
    spans = zip(three(problem, "kernel"), three(problem, "dilation"), strict=True)
    return [dilation * (taps - 1) + 1 for taps, dilation in spans]


@functools.lru_cache(maxsize=1024)
def fast_length(least: int) -> int:
    """The least product of 2, 3 and 5 that is as long."""
    powers = range(least.bit_length())
    odd: list[int] = [3**threes * 5**fives for threes in powers for fives in powers]
    return min(part << (-(-least // part) - 1).bit_length() for part in odd if part < 2 * least)


def transform_bytes(problem: Problem, tiling: Tiling, item: int) -> int:
    """Of the kernels' transforms, `item` bytes to a real number: about half of them are stored."""
    return math.prod(problem.weight_shape[:2]) * math.prod(stored(problem, tiling, item)) * 2 * item


def share_bytes(problem: Problem, tiling: Tiling, item: int) -> int:
    """What one thread takes for its chunk: tiles, their transforms, those of the result and the result."""
    channels = (problem.in_channels + problem.out_channels) // problem.groups
    each = math.prod(stored(problem, tiling, item)) * 2 * item + (
        0 if is_complex(problem, tiling) else tiling.size * item
    )
    return tiling.transforms * tiling.groups * tiling.rows * channels * each


def is_complex(problem: Problem, tiling: Tiling) -> bool:
    """Whether the numbers that are transformed are: then all is done in place."""
    return tiling.parts == 2 or problem.accumulator.kind == "c"


def stored(problem: Problem, tiling: Tiling, item: int) -> tuple[int, ...]:
    """The complex numbers of one transform on each transformed axis.

    Rows of several have room behind them, so that a column's numbers do not compete for a few places of the cache: an
    odd number of its lines lies from one row to the next.
    """
    *sides, last = (tiling.lengths[axis] for axis in tiling.axes)
    if not is_complex(problem, tiling):
        return (*sides, last // 2 + 1)
    line = LINE_BYTES // (2 * item)
    return (*sides, (-(-last // line) | 1) * line if sides else last)


@functools.lru_cache(maxsize=1024)
def ranked(problem: Problem, item: int) -> tuple[Tiling, ...]:
    """Tiles for transforms of `item` bytes to a real number, those of the least time first: by the Problem alone."""
    axes = zip(reaches(problem), three(problem, "out_spatial"), three(problem, "stride"), strict=True)
    parts = (1,) if problem.accumulator.kind == "c" else (1, 2)
    choices = itertools.product(itertools.product(*(_choices(*axis, item) for axis in axes)), parts)
    found = [_tiling(problem, item, sizes, part) for sizes, part in choices]
    if problem.rank > 1:
        # One that is far beyond the cache, or far below, is never the best of many.
        least = min(tiling.size for tiling in found)
        most = max(8 * CHUNK_BYTES, 8 * least * item)
        found = [tiling for tiling in found if tiling.size * tiling.parts * item <= most]
    return tuple(sorted(found, key=lambda tiling: _cost(problem, tiling, item)))


def _cost(problem: Problem, tiling: Tiling, item: int) -> float:
    """What the choice minimises: the time on SHARES threads."""
    count = chunks(problem, tiling)
    return thread_seconds(problem, tiling, item) / count * -(-count // SHARES)


@functools.lru_cache(maxsize=1024)
def fitting(problem: Problem, machine: Machine, item: int) -> tuple[Tiling | None, str]:
    """The best tiles whose scratch and kernels' transforms are allowed, or why there are none. They are no larger than
    the best of all, for which the errors are reckoned.
    """
    allowed, best = allowed_scratch(problem, machine), ranked(problem, item)
    found = [tiling for tiling in best if tiling.size <= best[0].size]
    least = min(share_bytes(problem, tiling, item) for tiling in found)
    if least > allowed:
        return None, f"all channels of one tile take {least} bytes of scratch at least, but a call may take {allowed}"
    found = [tiling for tiling in found if share_bytes(problem, tiling, item) <= allowed]
    held = min(transform_bytes(problem, tiling, item) for tiling in found)
    most = max(SPECTRUM_BYTES, machine.workspace or 0)
    if held > most:
        return None, f"the kernels' transforms take {held} bytes, over {most}: workspace={held} allows that"
    return next(tiling for tiling in found if transform_bytes(problem, tiling, item) <= most), ""


def workers(problem: Problem, machine: Machine, tiling: Tiling, item: int) -> int:
    """Threads that the scratch, and the chunks, suffice for."""
    share = max(1, share_bytes(problem, tiling, item))
    return max(1, min(machine.threads, chunks(problem, tiling), allowed_scratch(problem, machine) // share))


def chunks(problem: Problem, tiling: Tiling) -> int:
    """Of all tiles and groups."""
    return -(-problem.batch * tiling.of_image // tiling.transforms) * -(-problem.groups // tiling.groups)


def _choices(reach: int, outputs: int, stride: int, item: int) -> list[tuple[int, int, int]]:
    """(length, output pixels, tiles) of an axis: from one tile to short ones, of which half is overlap; only those that
    read less in all, or take less time, than every shorter one.
    """
    found: set[tuple[int, int, int]] = set()
    for count in (1, *(part << power for power in range(60) for part in (2, 3))):
        pixels = -(-outputs // count)
        least = (pixels - 1) * stride + reach
        # Passes of 8 and 4 may be worth a longer tile. An axis without a transform has as many rows as outputs.
        lengths = [fast_length(-(-least // part)) * part for part in (1, 8, 32)] if reach > 1 else [pixels]
        for length in lengths:
            whole = min(outputs, (length - reach) // stride + 1) if reach > 1 else pixels
            found.add((length, whole, -(-outputs // whole)))
        if lengths[0] < 2 * reach:
            break
    kept: list[tuple[int, int, int]] = []
    reads = seconds = math.inf
    for length, pixels, count in sorted(found):
        read = length * count
        taken = read * (axis_seconds(length, item) if reach > 1 else 1.0)
        if read < reads or taken < seconds:
            kept.append((length, pixels, count))
        reads, seconds = min(reads, read), min(seconds, taken)
    return kept


def _tiling(problem: Problem, item: int, sizes: tuple[tuple[int, int, int], ...], parts: int) -> Tiling:
    lengths, outputs, counts = zip(*sizes, strict=True)
    axes = tuple(axis for axis, taps in enumerate(three(problem, "kernel")) if taps > 1)
    group = math.prod(lengths) * max(problem.in_channels, problem.out_channels) // problem.groups * item * parts
    groups = min(problem.groups, max(1, CHUNK_BYTES // group))
    found = Tiling(lengths, outputs, counts, axes, parts, groups, max(1, CHUNK_BYTES // (group * groups)))
    return found._replace(transforms=min(found.transforms, problem.batch * found.of_image))


def transform_flops(problem: Problem, tiling: Tiling) -> float:
    """Of one channel, there or back; a complex transform is two real ones."""
    real = 2 if is_complex(problem, tiling) else 1
    return 2.5 * real * tiling.rows * tiling.size * math.log2(tiling.size)


def product_flops(problem: Problem, tiling: Tiling, item: int) -> float:
    """Of all products of one transform and group."""
    inputs, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    return 8.0 * tiling.rows * math.prod(stored(problem, tiling, item)) * inputs * outputs


@functools.lru_cache(maxsize=1024)
def axis_seconds(length: int, item: int) -> float:
    """Of one real number on an axis of that length."""
    seconds = AXIS_SECONDS[item]
    for factor, each in PASS_SECONDS[item].items():
        while length % factor == 0:
            seconds, length = seconds + each, length // factor
    return seconds


def transform_seconds(problem: Problem, tiling: Tiling, item: int) -> float:
    """Of one channel, there or back, on one thread."""
    numbers = tiling.rows * tiling.size * (2 if is_complex(problem, tiling) else 1)
    each = sum(axis_seconds(tiling.lengths[axis], item) for axis in tiling.axes)
    if not is_complex(problem, tiling):
        each *= REAL
    lines = tiling.transforms * tiling.groups * tiling.rows * problem.in_channels // problem.groups
    if len(tiling.axes) == 1 and lines < TOGETHER:
        return numbers * each * ALONE
    return numbers * each * (LARGE if numbers * item > LARGE_BYTES else 1)


def thread_seconds(problem: Problem, tiling: Tiling, item: int) -> float:
    """What all tiles take on one thread."""
    transforms = problem.batch * tiling.of_image
    channels = (problem.in_channels + problem.out_channels) // problem.groups
    group = channels * transform_seconds(problem, tiling, item)
    group += product_flops(problem, tiling, item) / PRODUCT_RATES[item]
    group += channels * math.prod(tiling.lengths) * tiling.parts * COPY_SECONDS
    seconds = transforms * (problem.groups * group + tiling.parts * TILE_SECONDS)
    return seconds + chunks(problem, tiling) * CHUNK_SECONDS
