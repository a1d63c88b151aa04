"""Correlation by real transforms: tiles in, transforms, products of them, transforms back, sums out.

The transform of a correlation is that of the input times the conjugate of that of the kernel, and channels are added up
there, so that each channel of the input is transformed once and each of the output once [1]_. scipy.fft does the
transforms. A chunk of tiles goes from the input to the output on one thread, while it is in the cache; threads take
chunk after chunk, and no bit depends on which.

How exact it is, with unit roundoff u, tiles of N inputs, and t = log2 N: a pass of radix r multiplies by factors of
modulus 1 and adds up r terms, and every input reaches every output of a transform on one path. So the transform of w is
wrong by at most e*sum|w| in each element, with e = c*t*u to first order, and that of x by at most e*sqrt(N)*|x| in the
2-norm, |x| being x's [2]_. c = 12 covers the passes of 2, 3, 4, 5 and 8: a complex product is wrong by sqrt(2)*gamma(2)
[3]_, its factor by u, and r terms take r - 1 additions, times sqrt(r) for the 2-norm. Products and sums over m channels
add sqrt(2)*(m + 3)*u, and the transform back e again. By Parseval, the 2-norm of the errors of a tile is at most
|x| * sum|w| * (3*e + sqrt(2)*(m + 3)*u), and since |x| <= sqrt(2*N) * max|x| for two real tiles in one transform, so is
each error at most::

    sqrt(2*N) * (36*t + sqrt(2)*(m + 3)) * u * max|x| * sum|w|

The expected error takes roundings for independent and of mean zero. Then the squared errors of the passes add up, and
the transform spreads them evenly over its tiles, which takes away the sqrt(2*N): an error adds up 3*t + m + 3
roundings of a unit each, times max|x| * sum|w|, and below 8 times the root of that with the probability of accuracy.py.
Measured root-mean-square errors of transforms are 0.6 * sqrt(t) * u and less [4]_.

Underflow would add its own errors, so that tiles, or kernels, of nothing but such tiny numbers are added up directly,
as are those that overflow.

.. [1] M. Mathieu, M. Henaff, Y. LeCun, "Fast training of convolutional networks through FFTs", ICLR 2014.
.. [2] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, 2002, theorem 24.2.
.. [3] The same, lemma 3.5.
.. [4] J. C. Schatzman, "Accuracy of the discrete Fourier transform and the fast Fourier transform", SIAM J. Sci.
   Comput. 17, 1996.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import jit
from ..accuracy import LAMBDA
from ..machine import Machine
from ..method import Array, Work
from ..problem import Problem
from .operands import biases, bordered_axes, three, three_axes
from .overlap import (
    Tiling,
    fitting,
    is_complex,
    product_flops,
    ranked,
    share_bytes,
    stored,
    thread_seconds,
    transform_flops,
    transform_seconds,
    workers,
)
from .repair import repair
from .tile_rows import read, tile_rows, write
from .transforms import backward, forward, multiplied

PASS = 12.0
# Seconds of what a call does once, and of starting threads, which find no memory of their own.
OVERHEAD, STARTING = 60e-6, 300e-6


# The tiles of one transform, each (image, number on each axis).
Places = list[tuple[int, ...]]


class Prepared(NamedTuple):
    """The conjugate of the kernels' transforms: (groups, output channels per group, input channels per group, ...). The
    weight, (groups, output channels per group, taps), and bias, (output channels,), in the accumulator's dtype.
    """

    spectrum: Array
    weight: Array
    bias: Array


class Fourier:
    """The functions of a method, with transforms of one precision."""

    def __init__(self, real: Any) -> None:
        self.real = np.dtype(real)
        self.item = self.real.itemsize
        self.unit = float(np.finfo(real).eps) / 2

    def why_not(self, problem: Problem, machine: Machine) -> str | None:
        if math.prod(problem.kernel) == 1:
            return "the kernel has one tap, so that there is nothing to transform"
        if not math.prod(problem.out_shape) * math.prod(problem.x_shape):
            return "there is nothing to transform: an array is empty"
        kind, size = problem.accumulator.kind, problem.accumulator.itemsize
        if self.item < 8 and size != self.item * (2 if kind == "c" else 1):
            return f"the sums are {problem.accumulator.name}, but its transforms are of float32"
        if kind in "iu" and self._integer_error(problem) >= 0.5:
            return (
                f"sums of {problem.x_dtype.name} * {problem.weight_dtype.name} may be wrong by"
                f" {self._integer_error(problem):.2g}, but integers must be exact after rounding"
            )
        return fitting(problem, machine, self.item)[1] or None

    def error_bound(self, problem: Problem) -> float:
        if problem.accumulator.kind in "iu":
            return 0.0
        unit = float(np.finfo(problem.accumulator).eps) / 2
        return self._bound(problem) * (1 + unit) + unit

    def expected_error(self, problem: Problem) -> float:
        if problem.accumulator.kind in "iu":
            return 0.0
        unit = float(np.finfo(problem.accumulator).eps) / 2
        steps = 3 * math.log2(self._ideal(problem)) + problem.in_channels // problem.groups + 3
        return min(self.error_bound(problem), LAMBDA * math.sqrt(steps) * self.unit + unit)

    def _ideal(self, problem: Problem) -> int:
        """The size of the largest tile that any machine takes; of no transform, 2."""
        if math.prod(problem.kernel) == 1 or not math.prod(problem.out_shape) * math.prod(problem.x_shape):
            return 2
        return ranked(problem, self.item)[0].size

    def _bound(self, problem: Problem) -> float:
        """Without the rounding of the result."""
        size, channels = self._ideal(problem), problem.in_channels // problem.groups
        steps = 3 * PASS * math.log2(size) + math.sqrt(2) * (channels + 3)
        return math.sqrt(2 * size) * steps * self.unit / (1 - steps * self.unit)

    def _integer_error(self, problem: Problem) -> float:
        x, weight = (_largest(dtype) for dtype in (problem.x_dtype, problem.weight_dtype))
        return self._bound(problem) * max(x, abs(problem.padding_value)) * weight * problem.taps

    def work(self, problem: Problem, machine: Machine) -> Work:
        tiling = self._tiling(problem, machine)
        transforms = problem.batch * tiling.of_image
        channels, kernels = problem.in_channels + problem.out_channels, math.prod(problem.weight_shape[:2])
        flops = transforms * channels * transform_flops(problem, tiling)
        flops += transforms * problem.groups * product_flops(problem, tiling, self.item)
        count = workers(problem, machine, tiling, self.item)
        seconds, overhead = thread_seconds(problem, tiling, self.item) / count, OVERHEAD + STARTING * (count > 1)
        preparing = kernels * transform_seconds(problem, tiling, self.item) / tiling.rows
        return Work(flops, flops / seconds, problem.bytes, overhead, preparing * machine.bandwidth)

    def scratch_bytes(self, problem: Problem, machine: Machine) -> int:
        tiling = self._tiling(problem, machine)
        return workers(problem, machine, tiling, self.item) * share_bytes(problem, tiling, self.item)

    def _tiling(self, problem: Problem, machine: Machine) -> Tiling:
        found, _ = fitting(problem, machine, self.item)
        assert found is not None, "why_not refuses what has no tiles"
        return found

    def _dtype(self, problem: Problem, tiling: Tiling) -> np.dtype[Any]:
        """Of what is transformed."""
        found: np.dtype[Any] = np.dtype(self.real.char.upper()) if is_complex(problem, tiling) else self.real
        return found

    def prepare(self, problem: Problem, machine: Machine, weight: Array, bias: Array | None) -> Prepared:
        tiling, groups = self._tiling(problem, machine), problem.groups
        lengths = _along(tiling, tiling.lengths)
        sides = stored(problem, tiling, self.item) if is_complex(problem, tiling) else lengths
        # Axes of one tap have no transform, and no place among the spectrum's.
        rows = weight.reshape(groups, len(weight) // groups, -1, *(n for n in weight.shape[2:] if n > 1))
        taps = tuple(slice(None, None, step) for step in _along(tiling, three(problem, "dilation")))
        spectrum: Array | None = None
        for place in np.ndindex(rows.shape[:2]):
            padded = np.zeros((rows.shape[2], *sides), self._dtype(problem, tiling))
            spread = padded[:, *taps]
            spread[:, *(slice(n) for n in rows.shape[3:])] = np.conj(rows[place])
            found = np.conj(forward(padded, lengths))
            if spectrum is None:
                spectrum = np.empty((*rows.shape[:2], *found.shape), found.dtype)
            spectrum[place] = found
        assert spectrum is not None
        # Transforms back are not scaled: of numbers as real ones, among which a NaN is no error.
        parts = spectrum.view(self.real)
        parts /= tiling.size
        packed = weight.astype(problem.accumulator, order="C", copy=False)
        if _fades(packed, _least(problem, tiling, self.real)):
            spectrum[...] = np.nan  # flags every tile
        return Prepared(spectrum, packed.reshape(*rows.shape[:2], problem.taps), biases(problem, bias))

    def run(
        self,
        problem: Problem,
        machine: Machine,
        prepared: Prepared,
        x: Array,
        out: Array,
        scratch: Array,
        stream: object = None,
    ) -> None:
        tiling = self._tiling(problem, machine)
        correlation = _Correlation(problem, tiling, prepared, self._dtype(problem, tiling), x, out)
        most, size = workers(problem, machine, tiling, self.item), share_bytes(problem, tiling, self.item)
        # Threads take chunks from one iterator.
        todo = iter(list(correlation.chunks()))

        def share(number: int) -> None:
            with np.errstate(all="ignore"):
                for chunk in todo:
                    correlation.run(*chunk, scratch[number * size : (number + 1) * size])

        jit.spread(share, most)
        if problem.accumulator.kind not in "iu":
            repair(problem, machine, prepared.weight, prepared.bias, x, out, correlation.flags, tiling.outputs)


class _Correlation:
    """One run: its arrays, on three axes, with channels by group; flags as `repair` takes them."""

    def __init__(
        self, problem: Problem, tiling: Tiling, prepared: Prepared, dtype: np.dtype[Any], x: Array, out: Array
    ) -> None:
        self.problem, self.tiling, self.spectrum, self.dtype = problem, tiling, prepared.spectrum, dtype
        batch, groups = problem.batch, problem.groups
        x, out = three_axes(x, problem.spatial), three_axes(out, problem.out_spatial)
        self.x = x.reshape(batch, groups, -1, *x.shape[2:])
        self.out = out.reshape(batch, groups, -1, *out.shape[2:])
        self.bias = prepared.bias.reshape(groups, -1)
        self.flags = np.zeros((batch, *tiling.counts), np.uint8)
        self.least = _least(problem, tiling, self.spectrum.real.dtype)
        depth, height, border = bordered_axes(problem)
        self.tables, self.padding = (depth, height, border), np.array([problem.padding_value], problem.accumulator)
        self.steps = np.multiply(tiling.outputs, three(problem, "stride"))
        self.rows = tuple(length for axis, length in enumerate(tiling.lengths) if axis not in tiling.axes)
        self.sides = _along(tiling, tiling.lengths)
        self.room = self.spectrum.shape[3:] if dtype.kind == "c" else self.sides
        # Of a tile that comes back, what holds outputs.
        ends = ((size - 1) * step + 1 for size, step in zip(tiling.outputs, three(problem, "stride"), strict=True))
        self.kept = _along(tiling, tuple(ends))

    def chunks(self) -> Iterator[tuple[slice, list[Places]]]:
        """(groups, transforms) of which each is a chunk; a transform is its tiles, each (image, number on each axis).
        Tiles of two images never meet in one, so that no bit depends on the batch.
        """
        tiling, groups = self.tiling, self.tiling.groups
        numbers, parts = list(np.ndindex(tiling.counts)), tiling.parts
        places = [
            [(n, *number) for number in numbers[start : start + parts]]
            for n, start in itertools.product(range(len(self.x)), range(0, len(numbers), parts))
        ]
        starts = range(0, self.problem.groups, groups), range(0, len(places), tiling.transforms)
        for first, start in itertools.product(*starts):
            yield slice(first, min(first + groups, self.problem.groups)), places[start : start + tiling.transforms]

    def run(self, groups: slice, places: list[Places], scratch: Array) -> None:
        """One chunk, from the input to the output."""
        lead, count = (len(places), *self.rows), groups.stop - groups.start
        buffer, is_complex = scratch.view(self.dtype), self.dtype.kind == "c"
        shape = (*lead, count, self.x.shape[2], *self.room)
        room = buffer[: math.prod(shape)].reshape(shape)
        self._read(room, groups, places)
        products = multiplied(forward(room, self.sides), self.spectrum[groups], buffer[room.size :])
        result = backward(products, self.sides, self.kept, is_complex)
        self._write(products if is_complex else np.ascontiguousarray(result), groups, places)

    def _read(self, room: Array, groups: slice, places: list[Places]) -> None:
        """What tiles read of their images. Behind the padded input's end lies padding, which no output needs."""
        integers, elements = tile_rows(self.problem, self.tiling, room.shape, False), self._elements(room)
        buffer = np.empty((self.tiling.parts, self.tiling.lengths[-1]), elements.dtype)
        for target, tile, part in zip(elements, room[..., : self.sides[-1]], places, strict=True):
            corners = np.array(part)[:, 1:] * self.steps
            read(target, self.x[part[0][0], groups], corners, *self.tables, self.padding, buffer, integers)
            if _fades(tile, self.least):
                self.flags[tuple(np.transpose(part))] = 1

    def _write(self, tiles: Array, groups: slice, places: list[Places]) -> None:
        """The sums of tiles, bias and activation included; flags where one is NaN or inf before the activation."""
        integers, elements = tile_rows(self.problem, self.tiling, tiles.shape, True), self._elements(tiles)
        is_integer, bias = self.out.dtype.kind in "iu", self.bias[groups]
        buffer = np.empty((self.tiling.parts, self.tiling.outputs[-1]), elements.dtype)
        for source, part in zip(elements, places, strict=True):
            corners, out = np.array(part)[:, 1:] * self.tiling.outputs, self.out[part[0][0], groups]
            if is_integer:
                np.rint(source, out=source)
            finite = write(out, source, corners, np.zeros(bias.shape) if is_integer else bias, buffer, integers)
            for corner in corners if is_integer or self.problem.activation == "relu" else ():
                ends = corner + self.tiling.outputs
                target = out[:, :, *(slice(*pair) for pair in zip(corner, ends, strict=True))]
                if is_integer:
                    target += bias[..., None, None, None]
                if self.problem.activation == "relu":
                    np.maximum(target, 0, out=target)
            if not finite:
                # What one tile holds has rounded the other.
                self.flags[tuple(np.transpose(part))] = 1

    def _elements(self, tiles: Array) -> Array:
        """The elements of each transform: its numbers, or the halves of them."""
        found = tiles.reshape(len(tiles), -1)
        return found.view(self.spectrum.real.dtype) if self.tiling.parts == 2 else found


def _least(problem: Problem, tiling: Tiling, dtype: np.dtype[Any]) -> float:
    """The magnitude below which underflow spoils a transform: N smallest normal numbers. 0 where none can be."""
    small = problem.accumulator.kind in "iu" or np.finfo(problem.accumulator).bits < np.finfo(dtype).bits
    return 0.0 if small else tiling.size * float(np.finfo(dtype).tiny)


def _fades(values: Array, least: float) -> bool:
    """Whether the largest of some numbers is so small, and not zero."""
    if not least or not values.size:
        return False
    parts = values.view(values.real.dtype) if values.dtype.kind == "c" else values
    return bool(0 < max(parts.max(), -parts.min()) < least)


def _along(tiling: Tiling, values: tuple[Any, Any, Any]) -> tuple[Any, ...]:
    """The values of the axes that are transformed."""
    return tuple(values[axis] for axis in tiling.axes)


def _largest(dtype: np.dtype[Any]) -> int:
    """The largest magnitude that an integer of a dtype has."""
    return 1 if dtype.kind == "b" else max(-int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
