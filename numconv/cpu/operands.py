"""What methods do alike: three spatial axes, where taps meet the input, the bias, scratch for each thread, refusals."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from ..machine import Machine
from ..method import Array, allowed_scratch
from ..problem import Problem, border_indices, padded_indices

Choice = TypeVar("Choice")

# Elements, so that no two threads write to one line in any dtype.
CACHE_LINE = 64
# An index that gives an array of so many spatial axes three: much faster than a reshape.
MISSING: dict[int, Any] = {1: (..., None, None, slice(None)), 2: (slice(None), slice(None), None), 3: ...}


def three_axes(array: Array, spatial: tuple[int, ...]) -> Array:
    """(n, c, *spatial) as (n, c, d, h, w): the axes that a Problem lacks have length 1."""
    if array.ndim == len(spatial) + 2:
        found: Array = array[MISSING[len(spatial)]]
        return found
    return array.reshape(array.shape[:2] + (1,) * (3 - len(spatial)) + spatial)


def three(problem: Problem, name: str, missing: Any = 1) -> tuple[Any, ...]:
    """A spatial option of a Problem on three axes."""
    found: tuple[Any, ...] = getattr(problem, name)
    return (missing,) * (3 - problem.rank) + found


def same_dtype(problem: Problem) -> bool:
    """Whether the input comes in the dtype of the sums: of float16, which numba knows not on the CPU, float32 is made
    before.
    """
    return problem.accumulator == (np.float32 if problem.x_dtype == np.float16 else problem.x_dtype)


def interleaved(problem: Problem) -> bool:
    """Whether an output row of a channel has other channels between its pixels."""
    return problem.layout != "NCHW" and problem.out_channels > 1


def padded_axes(problem: Problem) -> list[Array]:
    """For each of three axes, the input index of each padded index, -1 in constant padding."""
    sides = zip(three(problem, "spatial"), three(problem, "padding", (0, 0)), strict=True)
    return [padded_indices(size, pair, problem.padding_mode) for size, pair in sides]


@functools.lru_cache(maxsize=1024)
def bordered_axes(problem: Problem) -> list[Array]:
    """The same, but of the last axis, which may be long, its border alone: indices before the input and behind it.

    Made once for all that asks for them, since the other axes may be long, too.
    """
    *sides, last = zip(three(problem, "spatial"), three(problem, "padding", (0, 0)), strict=True)
    whole = [padded_indices(size, pair, problem.padding_mode) for size, pair in sides]
    return [*whole, border_indices(*last, problem.padding_mode)]


def biases(problem: Problem, bias: Array | None) -> Array:
    """(output channels,) in the accumulator's dtype, zeros for none.

    Never -0: a sum may be -0, from a product that underflowed, and a bias of -0 would keep it so, where the one order
    of summation ends in +0.
    """
    if bias is None:
        return np.zeros(problem.out_channels, problem.accumulator)
    found: Array = np.ascontiguousarray(bias, problem.accumulator) + problem.accumulator.type(0)
    return found


def shared_scratch(problem: Problem, machine: Machine, elements: int) -> int:
    """Bytes of scratch in which each thread has so many elements, in cache lines of its own."""
    return machine.threads * -(-elements // CACHE_LINE) * CACHE_LINE * problem.accumulator.itemsize


def no_vectors(problem: Problem, machine: Machine, what: str) -> str | None:
    """Why explicit vectors do not serve, or None; `what` a method has of them."""
    if problem.accumulator.char not in "fd":
        return f"the sums are {problem.accumulator.name}, but its {what} are of float32 and float64"
    if not machine.has_fma:
        return "the processor has no fused multiply-add for vectors"
    return None


def no_room(problem: Problem, machine: Machine, least: int, what: str) -> str | None:
    """Why the scratch that a method takes at least, for `what`, is too much, or None."""
    if least <= (allowed := allowed_scratch(problem, machine)):
        return None
    return f"its smallest {what} take {least} bytes on {machine.threads} threads, but a call may take {allowed}"


def best_that_fits(
    choices: Iterable[Choice],
    cost: Callable[[Choice], float],
    scratch: Callable[[Choice], int],
    allowed: int,
) -> Choice:
    """The cheapest choice, the first of equals, of those whose scratch is allowed; none is: that of least scratch."""
    best = sorted(choices, key=cost)
    return next((choice for choice in best if scratch(choice) <= allowed), None) or min(best, key=scratch)


def meets(problem: Problem, axis: int, outputs: Array) -> Array:
    """For each tap on an axis, whether it meets the input, not the padding, at each of these outputs."""
    shifts = problem.dilation[axis] * np.arange(problem.kernel[axis])[:, None] - problem.padding[axis][0]
    places = outputs * problem.stride[axis] + shifts
    found: Array = (places >= 0) & (places < problem.spatial[axis])
    return found
