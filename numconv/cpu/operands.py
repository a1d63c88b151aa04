"""What the direct methods do with arrays alike: three spatial axes, the bias, one scratch row for each thread."""

from __future__ import annotations

import numpy as np

from ..machine import Machine
from ..method import Array
from ..problem import Problem

# Elements, so that no two threads write to one line in any dtype.
CACHE_LINE = 64


def three_axes(array: Array, spatial: tuple[int, ...]) -> Array:
    """(n, c, *spatial) as (n, c, d, h, w): the axes that a Problem lacks have length 1."""
    return array.reshape(array.shape[:2] + (1,) * (3 - len(spatial)) + spatial)


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
