"""Phases: a Problem with an input dilation, a crop or a fold, taken apart into plain Problems.

With an input dilation s, the outputs of one residue class (o = a, a + P, a + 2P, ... on each axis) meet the same taps,
every T-th from some first one, and those taps meet neighbouring inputs: a plain correlation with a part of the kernel,
so that no zero is ever inserted or multiplied [1]_. With stride t and dilation d, P = s / gcd(t, s), T = s / gcd(d, s),
and within the phase the stride is t / gcd(t, s) and the dilation d / gcd(d, s). A crop is a slice of the input.

A fold is the adjoint of padding: the correlation's result falls into boxes, the middle one being the output; each of
the others, thin ones, is computed aside and added to the border that the padding would have copied.

.. [1] V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import NamedTuple

from .method import Array
from .problem import Problem, padded_indices

# Bytes that the results of some phases may take beside a quarter of the input and output; their methods may take more.
ROOM = 4 << 20


class Phase(NamedTuple):
    """A plain Problem, the inputs and taps that it takes, and the outputs that it writes, as slices of all axes.

    taps is empty where the outputs meet none: they are the bias alone. The Problem's batch may be a part of the whole.
    """

    problem: Problem
    inputs: tuple[slice, ...]
    taps: tuple[slice, ...]
    outputs: tuple[slice, ...]


class Row(NamedTuple):
    """Phases that write to the same rows, each to every so-manieth column: those of all columns, or one of them where
    the results of all, of one image, would take too much memory. So many images go at a time.
    """

    phases: tuple[Phase, ...]
    images: int


class Box(NamedTuple):
    """A box of the correlation's result: its shape, its phases, and where it goes.

    targets: for each spatial axis, the output's index of each of the box's, or None where they are the same.
    """

    shape: tuple[int, ...]
    rows: tuple[Row, ...]
    targets: tuple[Array | None, ...]

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Those of all rows."""
        return tuple(phase for row in self.rows for phase in row.phases)

    @property
    def middle(self) -> bool:
        """Whether it is the output itself."""
        return all(target is None for target in self.targets)


class _Axis(NamedTuple):
    """One axis of a phase."""

    outputs: slice
    taps: slice
    inputs: slice
    size: int
    kernel: int
    stride: int
    dilation: int
    padding: tuple[int, int]


@functools.lru_cache(maxsize=1024)
def boxes(problem: Problem) -> tuple[Box, ...]:
    """The boxes of a Problem, the middle one first; without a fold, that is all."""
    if not any(map(any, problem.fold)):
        return (Box(problem.out_shape, _rows(problem), (None,) * problem.rank),)
    found = []
    for sides in itertools.product(*(_sides(problem, axis) for axis in range(problem.rank))):
        targets = tuple(target for _, target in sides)
        # Bias and activation come after the folding.
        part = dataclasses.replace(
            problem,
            padding=tuple(padding for padding, _ in sides),
            padding_mode="zeros",
            has_bias=False,
            activation=None,
            fold=((0, 0),) * problem.rank,
        )
        found.append(Box(part.out_shape, _rows(part), targets))
    return tuple(found)


def sources(problem: Problem, axis: int) -> Array:
    """Where each index of the correlation's result falls in the output, on one axis."""
    return padded_indices(problem.out_spatial[axis], problem.fold[axis], problem.padding_mode)


def _sides(problem: Problem, axis: int) -> list[tuple[tuple[int, int], Array | None]]:
    """(padding, targets) of the middle of an axis and of both its ends, where there are any."""
    (before, after), first = problem.padding[axis], problem.fold[axis][0]
    size, stride = problem.out_spatial[axis], problem.stride[axis]
    places = sources(problem, axis)
    cuts = (
        (first, first + size, None),
        (0, first, places[:first]),
        (first + size, len(places), places[first + size :]),
    )
    return [
        ((before - start * stride, after - (len(places) - end) * stride), target)
        for start, end, target in cuts
        if start < end
    ]


def _rows(problem: Problem) -> tuple[Row, ...]:
    """The phases of a Problem without fold."""
    assert problem.padding_mode == "zeros", "beyond a crop or between inputs there is nothing to repeat"
    *leading, columns = (_axis_phases(problem, axis) for axis in range(problem.rank))
    found = []
    for parts in itertools.product(*leading):
        phases = tuple(_phase(problem, (*parts, column)) for column in columns)
        found += [_row(problem, phases)] if _images(problem, phases) else [_row(problem, (one,)) for one in phases]
    return tuple(found)


def _row(problem: Problem, phases: tuple[Phase, ...]) -> Row:
    """Phases with as many images at a time as fit, or one."""
    images = max(_images(problem, phases), min(problem.batch, 1))
    each = (phase._replace(problem=dataclasses.replace(phase.problem, batch=images)) for phase in phases)
    return Row(tuple(each), images)


def _axis_phases(problem: Problem, axis: int) -> list[_Axis]:
    """The phases of one axis."""
    size, kernel, outputs = problem.spatial[axis], problem.kernel[axis], problem.out_spatial[axis]
    stride, dilation, spread = problem.stride[axis], problem.dilation[axis], problem.input_dilation[axis]
    period, tap_step = spread // math.gcd(stride, spread), spread // math.gcd(dilation, spread)
    stride_inside, dilation_inside = stride * period // spread, dilation * tap_step // spread
    found = []
    for start in range(min(period, outputs)):
        count = len(range(start, outputs, period))
        shift = start * stride - problem.padding[axis][0]
        first_tap = next((k for k in range(min(tap_step, kernel)) if (shift + k * dilation) % spread == 0), kernel)
        taps = len(range(first_tap, kernel, tap_step))
        first = (shift + first_tap * dilation) // spread
        end = first + (count - 1) * stride_inside + (taps - 1) * dilation_inside + 1
        low = min(max(first, 0), size)
        high = max(min(end, size), low)
        # Beyond the input, all is padding.
        padding = (low - first, end - high) if low < high else (end - first, 0)
        found.append(
            _Axis(
                outputs=slice(start, None, period),
                taps=slice(first_tap, None, tap_step),
                inputs=slice(low, high),
                size=high - low,
                kernel=taps,
                stride=stride_inside,
                dilation=dilation_inside,
                padding=padding,
            )
        )
    return found


def _phase(problem: Problem, axes: tuple[_Axis, ...]) -> Phase:
    """The phase of one residue class on each axis."""
    every = slice(None)
    met = all(axis.kernel for axis in axes)
    plain = dataclasses.replace(
        problem,
        spatial=tuple(axis.size for axis in axes),
        kernel=tuple(axis.kernel for axis in axes),
        stride=tuple(axis.stride for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        padding=tuple(axis.padding for axis in axes),
        input_dilation=(1,) * problem.rank,
    )
    return Phase(
        plain,
        (every, every, *(axis.inputs for axis in axes)),
        (every, every, *(axis.taps for axis in axes)) if met else (),
        (every, every, *(axis.outputs for axis in axes)),
    )


def _images(problem: Problem, phases: tuple[Phase, ...]) -> int:
    """So many images at a time that the results of some phases together take no more than they may, or none."""
    if phases[0].problem.out_shape == problem.out_shape or not any(phase.taps for phase in phases):
        return problem.batch
    most = (math.prod(problem.x_shape) * problem.x_dtype.itemsize + _out_bytes(problem)) // 4 + ROOM
    # A phase's Problem is of the whole batch as yet.
    taken = sum(_out_bytes(phase.problem) for phase in phases)
    fit = (n for n in range(problem.batch, 0, -1) if problem.batch % n == 0 and n * taken <= most * problem.batch)
    return next(fit, 0)


def _out_bytes(problem: Problem) -> int:
    return math.prod(problem.out_shape) * problem.accumulator.itemsize
